"""Whether the plugin is ready to write: free, primed for the frames that will come, staged in an order that works."""

from ophyd.areadetector.trigger_mixins import SingleTrigger
from ophyd.device import Staged

from bluesky_filestore.mixins.priming import why_unprimed
from bluesky_filestore.mixins.upstream import seen_format
from bluesky_filestore.mixins.waiting import pv_name

from .finding import Verdict, fine, open_question, wrong
from .subject import Subject

__all__ = ["check_frames", "check_idle", "check_left_behind", "check_priming", "check_staging_order", "check_trigger"]

_ONE_IMPORT = "Import the mixin from bluesky_filestore instead of ophyd.areadetector.filestore_mixins"

_HARMLESS = ("enable", "blocking_callbacks", "parent.cam.array_callbacks", "array_callbacks")
"""What ophyd's own plugin classes set after the capture has begun, and may."""


def check_idle(subject: Subject) -> Verdict:
    """Nobody uses the plugin, and no killed client has left it capturing."""
    if subject.plugin._staged is not Staged.no:
        return wrong("it is staged, or was not wholly unstaged", "Call unstage(), then look again")
    capture = subject.signal("capture")
    if capture is None or not capture.get():
        return fine("it is free")
    words = f"{pv_name(capture)} is 1: it captures, for another client or for one that was killed"
    return wrong(words, f"Make sure that nobody takes data, and set {pv_name(capture).removesuffix('_RBV')} to 0")


def check_priming(subject: Subject) -> Verdict:
    """The plugin has seen a frame, or needs none."""
    if subject.signal("array_size") is None:
        return open_question("the plugin has no records of the frame's size")
    if (seen := seen_format(subject.plugin)) is not None:
        return fine(f"it has seen {seen}")
    words = "it has seen no frame"
    if subject.primes_itself:
        return fine(f"{words}; stage() will let it see one (prime='auto')")
    if not subject.captures:
        return fine(f"{words}, and needs none: it opens a file for each")
    if subject.is_ours and subject.plugin._prime == "never" and subject.text("lazy_open") == "Yes":
        return fine(f"{words}, and needs none: it opens its file when the first one comes")
    if subject.is_ours:
        return wrong(words, "Let it see one: make it with prime='auto', or enable it and acquire once")
    return wrong(words, f"Enable it and acquire once, as hdf5.warmup() does. {_ONE_IMPORT}: it will see to that itself")


def check_frames(subject: Subject) -> Verdict | None:
    """What the plugin has seen is what will come."""
    plugin = subject.plugin
    seen = seen_format(plugin)
    if seen is None:
        return None
    changes = subject.changes_of_frames()
    reason, _ = why_unprimed(plugin, getattr(plugin, "_known_pair", None))
    if reason is None and not changes:
        return fine(f"{seen} will arrive")
    words = f"staging sets {', '.join(changes)}, which changes the frames" if changes else str(reason)
    if subject.primes_itself:
        return fine(f"{words}; stage() will look again and let it see one if needed (prime='auto')")
    if not subject.captures:
        return fine(f"{words}; it opens a file for each frame, so that does no harm")
    if changes or "does not let us tell" in words:
        return open_question(words, "Let it see one such frame before it is staged")
    return wrong(
        words, "Let it see one such frame, or the frames will be lost" + ("" if subject.is_ours else f". {_ONE_IMPORT}")
    )


def check_staging_order(subject: Subject) -> Verdict:
    """``CreateDirectory`` comes before ``FilePath``, and ``Capture`` after everything else."""
    if subject.is_ours:
        return fine("CreateDirectory, FilePath, everything else, Capture")
    plugin = subject.plugin
    keys = [key if isinstance(key, str) else getattr(key, "attr_name", "") for key in plugin.stage_sigs]
    after = [key for key in keys[keys.index("capture") + 1 :] if key not in _HARMLESS] if "capture" in keys else []
    if after:
        late = ", ".join(after)
        advice = f"Call {plugin.attr_name}.stage_sigs.move_to_end('capture'). {_ONE_IMPORT}: there it is last"
        return wrong(f"capture begins before {late} is set", advice)
    create = subject.signal("create_directory")
    if create is None or create not in subject.staged or create.get() == subject.staged[create]:
        return fine("capture is last" if subject.captures else "nothing in it depends on the order")
    return wrong(
        f"{pv_name(create)} is {create.get()} and will be set to {subject.staged[create]} only after FilePath, "
        f"which is too late: a directory that is missing will not be made",
        f"{_ONE_IMPORT}, or set it by hand",
    )


def check_trigger(subject: Subject) -> Verdict | None:
    """The camera may be done before the datums are made."""
    if not isinstance(subject.detector, SingleTrigger):
        return None
    if type(subject.detector).trigger is not SingleTrigger.trigger:
        return fine("however fast the camera is, it gives a status")
    return open_question(
        "ophyd's SingleTrigger ends the plan ('NoneType' object has no attribute 'add_callback') if the camera is done "
        "before the datums are made",
        "Import SingleTrigger from bluesky_filestore, which makes them first",
    )


def check_left_behind(subject: Subject) -> Verdict:
    """No setting of the plugin makes it skip frames, or refuse to capture."""
    if subject.signal("min_callback_time") is not None and float(subject.value("min_callback_time")) > 0:
        seconds = subject.value("min_callback_time")
        words = f"{pv_name(subject.plugin.min_callback_time)} is {seconds}: frames that come sooner are lost"
        return wrong(words, "Set it to 0, e.g. with stage_sigs['min_callback_time'] = 0")
    if subject.text("position_mode").lower() in ("1", "on", "yes", "enable"):
        words = f"{pv_name(subject.plugin.position_mode)} is on, and a capture fails at once"
        return wrong(words, "Set it to Off, e.g. with stage_sigs['position_mode'] = 'Off'")
    layout = subject.text("xml_file_name") or subject.text("layout_filename")
    valid = subject.text("xml_valid") or subject.text("layout_valid")
    if layout and valid.lower() in ("no", "0"):
        return wrong(
            f"the HDF5 layout {layout!r} is not valid, and no file will be opened: {subject.text('xml_error_msg')}",
            "Correct it, or set stage_sigs['xml_file_name'] = ''",
        )
    if layout:
        return open_question(
            f"an HDF5 layout {layout!r} may put the frames elsewhere than /entry/data/data", "Run with --probe to see"
        )
    return fine("no setting that makes it skip frames")

"""Whether the frames will be found again: by which key, by whose handler, and through which filter."""

from collections import Counter

from bluesky_filestore.errors import UnknownSpecError
from bluesky_filestore.files.hdf5_filters import has_filter
from bluesky_filestore.handlers.registry import announced_handlers
from bluesky_filestore.mixins.causes import arriving_codec
from bluesky_filestore.mixins.data_keys import data_key_name, external_key
from bluesky_filestore.mixins.upstream import pipeline
from bluesky_filestore.mixins.waiting import optional, pv_name
from bluesky_filestore.model.specs import spec_named

from .finding import Verdict, fine, open_question, wrong
from .subject import Subject, as_text, file_plugins

__all__ = ["check_codec", "check_compression", "check_data_key", "check_handler"]

_FILTERS = {"N-bit": 5, "szip": 4, "zlib": 1, "Blosc": 32001, "BSLZ4": 32008, "LZ4": 32004, "JPEG": 32019}
"""areaDetector's ``Compression`` and the number under which the HDF Group has registered the filter."""

_CODECS = {"blosc": "Blosc", "bslz4": "BSLZ4", "lz4": "LZ4", "jpeg": "JPEG"}
"""What a codec plugin calls them, and what ``Compression`` does."""


def _keys(detector: object) -> dict[str, str]:
    """The data key of each file plugin that will write, by attribute name."""
    writers = [subject for subject in map(_writer, file_plugins(detector)) if subject is not None]
    names = [subject.plugin.attr_name for subject in writers]
    image = getattr(detector, "_image_name", None) or ""
    keys = {}
    for subject, name in zip(writers, names, strict=True):
        override = getattr(subject.plugin, "_data_key", None)
        if override is not None:
            keys[name] = external_key(image, image, override)
        else:
            keys[name] = data_key_name(image, name, names) if subject.is_ours else image
    return keys


def _writer(plugin: object) -> Subject | None:
    try:
        subject = Subject.of(plugin)
        return subject if subject.will_write else None
    except Exception:  # noqa: BLE001 - of stage_sigs that are of no use there is a finding already
        return Subject.at_present(plugin)


def check_data_key(subject: Subject) -> Verdict:
    """The plugin's frames have a data key that nothing else has, and that gets into the events."""
    plugin, detector = subject.plugin, subject.detector
    keys = _keys(detector)
    key = keys.get(plugin.attr_name, "")
    if not key:
        return open_question("the detector does not say what its images are called (it has no trigger mixin)")
    if Counter(keys.values())[key] > 1:
        others = ", ".join(name for name, other in keys.items() if other == key and name != plugin.attr_name)
        advice = "Give one of them another data_key=" if subject.is_ours else "Import the mixins from bluesky_filestore"
        return wrong(f"{key!r} is the key of {others}, too: an event can name the frames of one of them only", advice)
    if plugin is not detector and plugin.attr_name not in detector.read_attrs:
        words = f"{plugin.attr_name!r} is not in the detector's read_attrs, so no event will name its frames"
        return wrong(words, f"Add it: {detector.name}.read_attrs.append({plugin.attr_name!r})")
    return fine(f"{key!r}")


def check_handler(subject: Subject) -> Verdict:
    """What the documents say the files are, somebody can read."""
    spec = getattr(subject.plugin, "filestore_spec", "")
    if not spec:
        return wrong("it has no filestore_spec", "Set it to what the files are, e.g. 'AD_HDF5'")
    installed = announced_handlers(spec)
    handler = f"handler {installed[0].value}" if installed else ""
    try:
        mimetype = spec_named(spec).mimetype
    except UnknownSpecError as error:
        if handler:
            words = f"{spec}: {handler}; no adapter of a stock catalog knows the spec"
            return open_question(words, "See that the catalog's server has our adapters, and the same handler")
        advice = "Install the package that has its handler, or set filestore_spec to a known one"
        return wrong(str(error).rstrip("."), advice)
    return fine(f"{spec}: {mimetype}; {handler or 'no handler of databroker is installed for it'}")


def check_codec(subject: Subject) -> Verdict:
    """No codec plugin before it compresses frames in a way that it can't write, or nobody reads."""
    codec, where = _codec_before(subject)
    if not codec:
        return fine("frames come uncompressed")
    advice = "Switch the codec plugin off, or take the frames from the port before it"
    if subject.signal("compression") is None:
        return wrong(f"frames come compressed with {codec!r} ({where}), and this plugin writes none of them", advice)
    if codec not in _CODECS:
        return open_question(f"frames come compressed with {codec!r} ({where}), which is not known here", advice)
    number = _FILTERS[_CODECS[codec]]
    if not has_filter(number):
        return wrong(f"frames come compressed with {codec!r} ({where}); h5py has no filter {number} here", advice)
    return fine(f"frames come compressed with {codec!r} ({where}), and are written so; h5py reads them here")


def _codec_before(subject: Subject) -> tuple[str, str]:
    """How frames will be compressed once staged, and where that is said; empty if they are not, or nobody tells."""
    port = subject.signal("nd_array_port")
    devices = None if port is None else pipeline(subject.plugin, subject.value("nd_array_port"))
    for device in reversed(devices or []):
        mode, compressor = optional(device, "mode"), optional(device, "compressor")
        if mode is None or compressor is None:
            continue
        mode_word, word = (
            as_text(signal, subject.staged[signal] if signal in subject.staged else signal.get())
            for signal in (mode, compressor)
        )
        return (word.lower(), device.name) if mode_word == "Compress" and word != "None" else ("", "")
    if devices:
        return "", ""
    # What is before it, its class does not know: that of the last frame.
    pv, value = arriving_codec(subject.plugin)
    return value.lower(), pv


def check_compression(subject: Subject) -> Verdict | None:
    """The filter that the plugin compresses with is one that h5py has here."""
    if subject.signal("compression") is None:
        return None
    name = subject.text("compression")
    if name == "None":
        return fine("none")
    if name not in _FILTERS:
        return open_question(f"{pv_name(subject.plugin.compression)} is {name!r}, which is not known here")
    if has_filter(_FILTERS[name]):
        return fine(f"{name}, which h5py reads here with hdf5plugin; other readers need the same filter")
    return wrong(
        f"{name}: h5py has no filter {_FILTERS[name]} here, so the frames can't be read",
        "Choose another compression (Blosc, BSLZ4, LZ4 and zlib can be read), or install the filter for every reader",
    )

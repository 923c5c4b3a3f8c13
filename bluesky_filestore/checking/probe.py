"""One point taken for a trial, and its frame looked for where the documents say that it is."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bluesky_filestore.errors import DocumentError, FileStoreError, StageTimeoutError
from bluesky_filestore.files.numbered import SourceArrays
from bluesky_filestore.handlers.announced import Announced
from bluesky_filestore.mixins.waiting import optional, says
from bluesky_filestore.model.frame_map import Source

from .finding import Finding
from .subject import Subject, file_plugins

__all__ = ["probe_detector"]

_PATIENCE = 60.0
"""Seconds that each step may take besides the exposure."""


@dataclass(frozen=True, slots=True)
class _Point:
    """What a detector tells of one trigger."""

    described: dict[str, Any]
    """By data key."""
    readings: dict[str, Any]
    """By data key."""
    documents: list[tuple[str, Any]]
    """The asset documents."""


def probe_detector(detector: Any, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Stage, trigger once, read, unstage, and find the frame of each external key.

    Parameters
    ----------
    detector : Device
        Not staged.
    findings : sequence of Finding
        Of the checks that came before. With ophyd's own mixins some problems end in a wait without end, so that they
        must be mended first.
    """
    name = detector.name
    stock = not all(Subject.of(plugin).is_ours for plugin in file_plugins(detector))
    if any(finding.ok is False for finding in findings if stock or finding.check in ("IOC", "use")):
        yield Finding("probe", name, None, "no frame was taken", "Mend the problems above first")
        return
    try:
        point = _take_point(detector)
    except Exception as error:  # noqa: BLE001 - a detector may fail in any way, and that is the finding
        yield Finding("probe", name, False, _in_words(error), _ADVICE)
        return
    external = [key for key, data_key in point.described.items() if data_key.get("external")]
    if not external:
        words = f"no external data key among {list(point.described)}"
        yield Finding("probe", name, False, words, "Add the file plugin to the detector's read_attrs")
    for key in external:
        try:
            yield _compared(name, key, point)
        except (FileStoreError, OSError, LookupError, ValueError, RuntimeError) as error:
            # What the readers of files raise where a frame is not.
            yield Finding("probe", name, False, f"{key}: the frame was not found: {_in_words(error)}", _ADVICE)


_ADVICE = "Look at the plugin's WriteMessage, and whether this machine sees the IOC's disk under root"


def _in_words(error: Exception) -> str:
    notes = " ".join(getattr(error, "__notes__", ()))
    text = f"{error} {notes}".strip() or type(error).__name__
    return (text if isinstance(error, FileStoreError) else f"{type(error).__name__}: {text}").rstrip(".")


def _compared(name: str, key: str, point: _Point) -> Finding:
    """The last frame of the latest reading, read as `fill` reads it, and what is said of it."""
    source, index = _place(key, point)
    described = point.described[key]
    arrays = SourceArrays(source, str(source.path), described)
    last = arrays.numbers(index)[-1:]
    frame = arrays.frames.read(last)[0]
    (file,) = arrays.frames.paths(last)
    words = f"{key}: frame {last.start} is in {file}, {' x '.join(map(str, frame.shape))} {frame.dtype.str}"
    shape, dtype = tuple(described["shape"][1:]), described.get("dtype_numpy", frame.dtype.str)
    if shape == frame.shape and dtype == frame.dtype.str:
        return Finding("probe", name, True, words)
    words += f", but described as {' x '.join(map(str, shape))} {dtype}"
    return Finding("probe", name, False, words, "Import the mixins from bluesky_filestore, or override make_data_key()")


def _place(key: str, point: _Point) -> tuple[Source, int]:
    """The source and the index of a reading, as the RunEngine would document it in an event.

    Raises
    ------
    DocumentError, UnknownSpecError, PathError
        If the documents do not say where the frame is.
    """
    announced, run = Announced(), {"uid": "probe", "run_start": "probe", "name": "probe"}
    announced.receive("descriptor", {**run, "data_keys": {key: point.described[key]}})
    for name, doc in point.documents:
        if name == "stream_datum":
            # Descriptor and numbers are the RunEngine's to say; the last index is that of the reading.
            count = doc["indices"]["stop"] - doc["indices"]["start"]
            doc = {**doc, "descriptor": "probe", "seq_nums": {"start": 2 - count, "stop": 2}}
        announced.receive(name, doc)
    data = {key: point.readings[key]["value"]} if key in point.readings else {}
    (event,) = announced.receive("event", {**run, "descriptor": "probe", "seq_num": 1, "data": data})
    missing = announced.missing(event)
    if missing:
        raise DocumentError(f"{missing}; expected it to be handed out.")
    source, _, index, count = announced.place(event, key)
    return source, index + count - 1


def _take_point(detector: Any) -> _Point:
    error: Exception | None = None
    try:
        _within(_PATIENCE, detector, detector.stage)
        _within(_PATIENCE + _exposure(detector), detector, lambda: _trigger(detector))
        described, readings = detector.describe(), detector.read()
        documents = list(detector.collect_asset_docs())
    except Exception as caught:
        error = caught
        raise
    finally:
        _unstage(detector, error)
    return _Point(described, readings, documents)


def _trigger(detector: Any) -> None:
    status = detector.trigger()
    if status is not None:
        status.wait(_PATIENCE + _exposure(detector))


def _exposure(detector: Any) -> float:
    """Seconds that the camera needs for one point."""
    values = [optional(detector, f"cam.{name}") for name in ("num_images", "acquire_time", "acquire_period")]
    images, *times = [0.0 if signal is None else float(signal.get()) for signal in values]
    return images * max(times)


def _unstage(detector: Any, error: Exception | None) -> None:
    try:
        _within(_PATIENCE, detector, detector.unstage)
    except Exception as second:
        # It is reported, with the first one if there is one.
        if error is None:
            raise
        error.add_note(f"While it was being unstaged: {second}")


def _within(seconds: float, detector: Any, function: Callable[[], object]) -> None:
    """Call a function of ophyd's that may wait for ever, in another thread, as the RunEngine does, too.

    Raises
    ------
    StageTimeoutError
        If it has not returned in time; it goes on in its thread.
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        what = "".join(says(plugin) for plugin in file_plugins(detector))
        raise StageTimeoutError(
            f"{detector.name} was still busy after {seconds:.0f} s; expected it to be done.{what} Restart this "
            f"session: the wait goes on in it."
        )
    if errors:
        raise errors[0]

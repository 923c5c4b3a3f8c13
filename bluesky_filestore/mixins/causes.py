"""Why frames are not in the files, as far as the records tell."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ophyd.signal import EpicsSignalBase, EpicsSignalRO

from .upstream import seen_format
from .waiting import answers, optional, pv_name

__all__ = ["arriving_codec", "bytes_of_frame", "likely_causes", "write_error"]

_LONGEST_SEARCH = 1.0
"""Seconds that a record is searched for, of which the class knows nothing."""
_OFF = (0, "0", "Off", "No", "Done", "")


def write_error(plugin: Any) -> str:
    """What ``WriteStatus`` and ``WriteMessage`` tell of the last file; empty if nothing is wrong."""
    status, message = optional(plugin, "write_status"), optional(plugin, "write_message")
    if status is None or status.get() in (0, "0", "Write OK"):
        return ""
    words = "" if message is None else f" and {pv_name(message)} {message.get()!r}"
    return f"{pv_name(status)} is {status.get()!r}{words}"


def bytes_of_frame(plugin: Any) -> int:
    """How large a frame is in memory; 0 if the plugin does not tell."""
    frames = seen_format(plugin)
    return 0 if frames is None else math.prod(frames.shape) * np.dtype(frames.dtype).itemsize


def likely_causes(plugin: Any) -> str:
    """What of the present settings keeps frames from being written, as the end of an error's text."""
    file_path = getattr(plugin, "file_path", None)
    if file_path is not None and not answers(file_path):
        return " Its IOC does not answer any more: it may have died with the file open."
    causes = [cause(plugin) for cause in (_full_disk, _skipped, _acquiring, _compressed, _positions)]
    return "".join(f" {cause}" for cause in causes if cause)


def _full_disk(plugin: Any) -> str:
    directory = Path(getattr(plugin, "_fp", None) or "")
    if not directory.is_absolute() or not directory.is_dir():
        return ""
    free = shutil.disk_usage(directory).free
    if free > bytes_of_frame(plugin):
        return ""
    return f"The disk of {directory} is full: {free} bytes are free."


def _skipped(plugin: Any) -> str:
    pv, value = _record(plugin, "min_callback_time", "MinCallbackTime_RBV")
    if not value:
        return ""
    return (
        f"{pv} is {value!r}: the plugin skips frames that come sooner after one another, and does not count them as "
        f"dropped; set it to 0."
    )


def _acquiring(plugin: Any) -> str:
    signal = optional(plugin.parent, "cam.acquire")
    if signal is None or signal.get() in _OFF:
        return ""
    return f"The camera is still acquiring: {pv_name(signal)} is {signal.get()!r}, and Acquire=1 has no effect then."


def _compressed(plugin: Any) -> str:
    pv, value = arriving_codec(plugin)
    if not value:
        return ""
    return (
        f"Frames arrive compressed, {pv} is {value!r}, and a file plugin keeps silent of those that it can't write; "
        f"switch the codec plugin before it off, or take the frames from before that."
    )


def arriving_codec(plugin: Any) -> tuple[str, str]:
    """The record that says how the frames that arrive are compressed, and what it says; empty if they are not."""
    pv, value = _record(plugin, "codec", "Codec_RBV")
    return pv, "" if value is None else str(value)


def _positions(plugin: Any) -> str:
    if optional(plugin, "position_mode") is None:
        return ""
    pv, value = _record(plugin, "position_mode", "PositionMode_RBV")
    if value in _OFF:
        return ""
    return f"{pv} is {value!r}, but the frames carry no positions; set it to Off."


def _record(plugin: Any, name: str, suffix: str) -> tuple[str, Any]:
    """A record's name and value; asked for by its suffix if the plugin's class, older than the IOC, lacks it."""
    signal = optional(plugin, name)
    if signal is not None:
        return pv_name(signal), signal.get()
    if not isinstance(getattr(plugin, "file_path", None), EpicsSignalBase):
        return suffix, None
    # Kept: destroying a signal whose metadata are still on their way crashes the client library.
    asked = plugin.__dict__.setdefault("_records_asked_for", {})
    if suffix not in asked:
        asked[suffix] = EpicsSignalRO(f"{plugin.prefix}{suffix}", name=f"{plugin.name}_{name}", string=True)
    try:
        return pv_name(asked[suffix]), asked[suffix].get(connection_timeout=_LONGEST_SEARCH)
    except TimeoutError:
        return suffix, None

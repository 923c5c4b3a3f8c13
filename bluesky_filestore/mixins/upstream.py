"""What a file plugin has seen, and what the ports before it will send, read from the records."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from ophyd.areadetector.plugins import PluginBase

from .frame_format import FrameFormat, after_roi, from_sizes, of_camera, turned, with_data_type
from .waiting import optional

__all__ = ["expected_format", "frame_token", "pipeline", "seen_format"]

_UNCHANGING = ("NDPluginStats", "NDPluginCircularBuff", "NDPluginOverlay", "NDPluginAttribute", "NDPluginROIStat")
"""Plugins that hand frames on as they are, by ``PluginType``."""


def _text(signal: Any, default: str = "") -> str:
    """A string, or the text of an enum."""
    if signal is None:
        return default
    value = signal.get()
    choices = getattr(signal, "enum_strs", None)
    if choices and not isinstance(value, str):
        return str(choices[int(value)])
    return default if value is None else str(value)


def _number(device: Any, name: str, default: int = 0) -> int:
    signal = optional(device, name)
    return default if signal is None else int(signal.get() or 0)


def seen_format(plugin: Any) -> FrameFormat | None:
    """What the last frame that the plugin saw was like; None if it saw none, or tells nothing of sizes."""
    sizes = optional(plugin, "array_size")
    if sizes is None:
        return None
    values = sizes.get()
    fields = ("width", "height", "depth")
    if not all(hasattr(values, field) for field in fields):
        return None
    data_type = _text(optional(plugin, "data_type")) or _text(optional(plugin.parent, "cam.data_type"))
    color_mode = _color_mode(optional(plugin, "color_mode"))
    return from_sizes(tuple(int(getattr(values, field)) for field in fields), data_type or "uint8", color_mode)


def _color_mode(signal: Any) -> str:
    text = _text(signal, "Mono")
    return text if text and not text.isdigit() else "Mono"


def pipeline(plugin: Any, port: str | None = None) -> list[Any] | None:
    """The devices that frames pass on their way to the plugin, the camera first; None if ophyd does not know them all.

    Parameters
    ----------
    plugin : Device
        Where the frames arrive.
    port : str, optional
        The port to take the frames from; by default the one it takes them from now.
    """
    source = optional(plugin, "nd_array_port")
    if source is None or not hasattr(plugin, "ad_root"):
        return None
    devices: list[Any] = []
    wanted = port or source.get()
    while True:
        device = plugin.ad_root.get_plugin_by_asyn_port(wanted)
        if device is None or device in devices:
            return None
        devices.insert(0, device)
        upstream = optional(device, "nd_array_port")
        if upstream is None:
            return devices
        wanted = upstream.get()


def expected_format(plugin: Any) -> tuple[FrameFormat | None, tuple[Any, ...]]:
    """The next frame that will arrive at the plugin, from the settings of all that is before it.

    Returns
    -------
    FrameFormat or None
        None if something is before it of which we don't know what it does.
    tuple
        What we know all the same: if it changes, so may the frames.
    """
    devices = pipeline(plugin)
    if not devices:
        return None, ()
    frames = _camera_format(devices[0])
    known: list[Any] = [frames, *(device.name for device in devices)]
    for device in devices[1:]:
        frames = _format_after(device, frames) if frames is not None else None
        # Where it can't be computed what a plugin makes of a frame, it may change with each of its settings.
        known.append(_own_settings(device) if frames is None else frames)
    return frames, tuple(known)


def _own_settings(device: Any) -> tuple[tuple[str, str], ...]:
    """The settings that a plugin has beyond those that all plugins have, as they were put."""
    if _text(optional(device, "plugin_type")).startswith("NDPluginTransform") and optional(device, "type_") is None:
        # The class lacks the one setting that matters: nothing that was known before counts.
        return (("type_", str(time.monotonic_ns())),)
    common = {name for kind in type(device).__mro__ if issubclass(kind, PluginBase) for name in _of_base(kind)}
    names = [name for name in device.component_names if name not in common]
    return tuple((name, str(signal.get_setpoint())) for name, signal in _settable(device, names))


def _of_base(kind: type[Any]) -> tuple[str, ...]:
    """The components of a class, if it is one that all plugins build on."""
    return tuple(kind.component_names) if kind.__name__.startswith("PluginBase") else ()


def _settable(device: Any, names: Iterable[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The signals with these names that can be set, those of groups included."""
    for name in names:
        child = optional(device, name)
        if hasattr(child, "component_names"):
            yield from _settable(child, child.component_names, f"{prefix}{name}.")
        elif child is not None and hasattr(child, "get_setpoint"):
            yield f"{prefix}{name}", child


def _camera_format(camera: Any) -> FrameFormat | None:
    if optional(camera, "size.size_x") is None or optional(camera, "data_type") is None:
        return None
    size = (_number(camera, "size.size_x"), _number(camera, "size.size_y"))
    binning = (_number(camera, "bin_x", 1), _number(camera, "bin_y", 1))
    return of_camera(size, binning, _text(camera.data_type), _color_mode(optional(camera, "color_mode")))


def _format_after(device: Any, frames: FrameFormat) -> FrameFormat | None:
    kind = _text(optional(device, "plugin_type"))
    if kind.startswith(_UNCHANGING):
        return frames
    if kind.startswith("NDPluginProcess"):
        return with_data_type(frames, _text(optional(device, "data_type_out"), "Automatic"))
    if kind.startswith("NDPluginTransform"):
        return _after_transform(device, frames)
    if kind.startswith("NDPluginROI"):
        return _after_roi(device, frames)
    return None


def _after_transform(device: Any, frames: FrameFormat) -> FrameFormat | None:
    kind = optional(device, "type_")
    if kind is None:
        return None
    return turned(frames) if any(turn in _text(kind) for turn in ("90", "270")) else frames


def _after_roi(roi: Any, frames: FrameFormat) -> FrameFormat | None:
    if _is_on(roi, "collapse_dims"):
        return None
    for axis in "xy":
        if not _is_on(roi, f"roi_enable.{axis}"):
            continue
        start, size = _number(roi, f"min_xyz.min_{axis}"), _number(roi, f"size.{axis}")
        if _is_on(roi, f"auto_size.{axis}"):
            if start:
                # Versions of the plugin differ in whether the offset counts then.
                return None
            size = max(frames.shape)
        frames = after_roi(frames, axis, start=start, size=size, binning=_number(roi, f"bin_.{axis}", 1))
    return with_data_type(frames, _text(optional(roi, "data_type_out"), "Automatic"))


def _is_on(device: Any, name: str) -> bool:
    return _text(optional(device, name), "No").lower() in ("enable", "yes", "1")


def frame_token(plugin: Any) -> tuple[Any, ...]:
    """Something that changes whenever the plugin sees a frame; empty if it has no record that does."""
    signals = (optional(plugin, name) for name in ("unique_id", "time_stamp", "epics_ts_sec", "epics_ts_nsec"))
    return tuple(signal.get() for signal in signals if signal is not None)

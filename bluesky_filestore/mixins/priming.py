"""Making sure that a file plugin knows the frames that will come, before it opens a file for them.

A plugin that has seen no frame does not capture at all; one that has last seen frames of another size writes one empty
frame and drops the rest, without a word.
"""

from collections.abc import Iterable
from typing import Any, Literal

from ophyd.utils import UnprimedPlugin

from bluesky_filestore.errors import UnprimedPluginError
from bluesky_filestore.logs import get_logger

from .frame_format import FrameFormat
from .staging import Undo
from .upstream import expected_format, frame_token, pipeline, seen_format
from .waiting import TimedSetting, components_with, optional, poll_until, pv_name

__all__ = ["Prime", "UnprimedFilePluginError", "prime", "why_unprimed"]

Prime = Literal["auto", "require", "never"]

_LONGEST_EXPOSURE = 1.0
"""Seconds; a longer exposure time is shortened for the one frame."""

_log = get_logger(__name__)


class UnprimedFilePluginError(UnprimedPluginError, UnprimedPlugin):
    """Ours, and ophyd's `UnprimedPlugin` for those who catch that."""


def why_unprimed(plugin: Any, known: tuple[Any, Any] | None) -> tuple[str | None, Any]:
    """What stands against capturing with what the plugin has seen.

    Parameters
    ----------
    plugin : Device
        The file plugin.
    known : tuple or None
        A pair, of what was known of the settings upstream and what the plugin saw, that a frame has shown to belong
        together. It is for cameras that send something else than their settings say.

    Returns
    -------
    str or None
        The reason; None if there is none.
    object
        What is known of the settings upstream now.
    """
    expected, settings = expected_format(plugin)
    seen = seen_format(plugin)
    if optional(plugin, "array_size") is None or (seen is not None and (seen == expected or known == (settings, seen))):
        return None, settings
    if seen is None:
        can_tell = expected is not None or "capture" in plugin.stage_sigs
        # Where nothing is captured, nothing can be lost; a camera without a size will not send anything either.
        return "it has seen no frame" if can_tell else None, settings
    if expected is None:
        return f"it has last seen {seen}, but what is before it does not let us tell what will arrive", settings
    return f"it has last seen {seen}, but {expected} will arrive", settings


def prime(plugin: Any, ports: Iterable[tuple[Any, Any]], timeout: float) -> FrameFormat | None:
    """Let the plugin see one frame, and put back every setting that this changed.

    Other file plugins of the detector do not see it.

    Parameters
    ----------
    plugin : Device
        The file plugin.
    ports : iterable of tuple
        Signals and values: the ports that will be set at stage.
    timeout : float
        Seconds that each setting and the frame may take.

    Returns
    -------
    FrameFormat
        What the frame was like.

    Raises
    ------
    UnprimedFilePluginError
        If no frame arrives.
    """
    _log.info("%s takes one frame, since its idea of the frames is missing or stale.", plugin.name)
    with Undo(plugin) as undo:
        for signal, value in ports:
            undo.set(TimedSetting(signal, plugin, timeout), value)
        camera = _prepare(plugin, undo, timeout)
        _take_frame(plugin, camera, timeout)
        return seen_format(plugin)


def _prepare(plugin: Any, undo: Undo, timeout: float) -> Any:
    """Open the way from the camera to the plugin for one frame, and close it to those that would write it."""
    devices = pipeline(plugin)
    if not devices:
        raise UnprimedFilePluginError(
            f"{plugin.name} has not seen the frames that will come, and the way from the camera to "
            f"{pv_name(plugin)} is not known: its NDArrayPort is {plugin.nd_array_port.get()!r}. Expected a camera or "
            f"plugin of this detector; add it as a component, or prime by hand and stage with prime='never'."
        )
    camera, *between = devices

    def put(device: Any, name: str, value: Any) -> None:
        signal = optional(device, name)
        if signal is not None:
            choices = getattr(signal, "enum_strs", None) or ()
            before = signal.get()
            wanted = choices[value] if isinstance(before, str) and isinstance(value, int) and choices else value
            undo.set(TimedSetting(signal, plugin, timeout), wanted)

    for sibling in _other_writers(plugin):
        put(sibling, "enable", 0)
    put(plugin, "auto_save", 0)
    put(plugin, "enable", 1)
    for device in between:
        put(device, "enable", 1)
        put(device, "array_callbacks", 1)
        put(device, "enable_filter", 0)
    put(camera, "acquire", 0)
    put(camera, "array_callbacks", 1)
    put(camera, "image_mode", 0)
    if "Internal" in (getattr(optional(camera, "trigger_mode"), "enum_strs", None) or ()):
        put(camera, "trigger_mode", camera.trigger_mode.enum_strs.index("Internal"))
    exposure = optional(camera, "acquire_time")
    if exposure is not None and exposure.get() > _LONGEST_EXPOSURE:
        put(camera, "acquire_time", _LONGEST_EXPOSURE)
    return camera


def _other_writers(plugin: Any) -> list[Any]:
    """The other file plugins of the detector; what is not made yet has not been staged either, but may be enabled."""
    parent = plugin.parent
    names = components_with(parent, "generate_datum")
    return [sibling for name in names if (sibling := optional(parent, name)) not in (None, plugin)]


def _take_frame(plugin: Any, camera: Any, timeout: float) -> None:
    before = frame_token(plugin)
    seen_before = seen_format(plugin)
    camera.acquire.put(1)

    def arrived() -> bool:
        return frame_token(plugin) != before or (not before and seen_format(plugin) not in (None, seen_before))

    try:
        if not poll_until(arrived, timeout + _LONGEST_EXPOSURE):
            raise UnprimedFilePluginError(
                f"{plugin.name} saw no frame within {timeout + _LONGEST_EXPOSURE} s after {pv_name(camera.acquire)} "
                f"was set to 1; expected one, so that it knows size and type of what it will write. Look whether the "
                f"camera runs, and whether frames reach the plugin's NDArrayPort {plugin.nd_array_port.get()!r}."
            )
    finally:
        if not poll_until(lambda: not camera.acquire.get(), timeout):
            camera.acquire.put(0)

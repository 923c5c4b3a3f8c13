"""Waiting for records, always with an end, and with an error that says what was waited for."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ophyd.signal import EpicsSignalBase, Signal

from bluesky_filestore.errors import IOCUnreachableError, StageError, StageTimeoutError
from bluesky_filestore.leanings import log_once
from bluesky_filestore.logs import get_logger

__all__ = [
    "CaptureSetting",
    "PathSetting",
    "TimedSetting",
    "Wait",
    "answers",
    "components_with",
    "is_connected",
    "optional",
    "poll_until",
    "pv_name",
    "says",
    "values_before",
    "wait_until_connected",
]

_log = get_logger(__name__)

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_NOT_CAPTURING = (0, "0", "Done")
_REJECTED_AFTER = 1.0
"""Seconds after which a ``Capture`` that shows 0 again counts as refused: the record itself shows a put at once."""


def pv_name(signal: Any) -> str:
    """The PV behind a signal, or the signal's own name if there is none."""
    return str(getattr(signal, "pvname", None) or getattr(signal, "name", signal))


def is_connected(signal: Any) -> bool:
    """Whether a signal's records are there; a soft signal's always are."""
    return bool(getattr(signal, "connected", True))


def ioc_of(signal: Any) -> object:
    """What the signals of one IOC that is connected have in common, its address; of others each has its own."""
    host = getattr(getattr(signal, "_read_pv", None), "host", None) if is_connected(signal) else None
    return host or id(signal)


def answers(signal: Any) -> bool:
    """Whether the record's IOC still says something, when it is asked now.

    That a connection is lost is heard a moment after the first request has failed by it.
    """
    if not is_connected(signal):
        return False
    fresh = {"use_monitor": False} if isinstance(signal, EpicsSignalBase) else {}
    try:
        signal.get(**fresh)
    except Exception:  # noqa: BLE001 - a get that a disconnection breaks off raises what the client library likes
        return False
    return is_connected(signal)


def optional(device: Any, name: str) -> Any:
    """A component by its dotted name; None if the class has none such, or the IOC does not serve it.

    What the IOC did not serve once is not asked for again: each such question lasts as long as a connection may take.
    """
    root = device
    missing: set[str] = device.__dict__.setdefault("_components_not_served", set())
    if name in missing:
        return None
    try:
        for part in name.split("."):
            device = getattr(device, part)
    except AttributeError:
        return None
    except TimeoutError:
        # An IOC that is gone serves nothing, and will again what it did.
        signals = (signal for _, signal in root.get_instantiated_signals() if signal.parent is root)
        if any(is_connected(signal) for signal in signals if isinstance(signal, EpicsSignalBase)):
            missing.add(name)
        return None
    return device


def components_with(device: Any, attribute: str) -> list[str]:
    """The names of a device's components whose class has an attribute, in their order; made or not."""
    kind = type(device)
    names = getattr(kind, "component_names", ())
    return [name for name in names if hasattr(getattr(getattr(kind, name), "cls", None), attribute)]


def values_before(device: Any) -> "OrderedDict[Any, Any]":
    """What ophyd's unstage puts back, by signal."""
    kept: OrderedDict[Any, Any] | None = getattr(device, "_original_vals", None)
    if kept is None:
        log_once(_log, "ophyd keeps elsewhere what its unstage puts back; so that ends at the first that cannot be")
        return OrderedDict()
    return kept


def says(plugin: Any) -> str:
    """What the plugin's ``WriteMessage`` tells, as the end of an error's text."""
    message = optional(plugin, "write_message")
    if message is None:
        return ""
    return f" {pv_name(message)} says {message.get()!r}."


def poll_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether `condition` becomes true within `timeout` seconds; it is asked at least once."""
    pause = _FIRST_PAUSE
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


def wait_until_connected(device: Any, signals: Iterable[Any], timeout: float) -> None:
    """Wait until the records are there that the device can't do without; an IOC may just have been rebooted.

    Raises
    ------
    IOCUnreachableError
        If they do not come.
    """
    needed = list(signals)
    if not poll_until(lambda: all(map(is_connected, needed)), timeout):
        missing = ", ".join(pv_name(signal) for signal in needed if not is_connected(signal))
        raise IOCUnreachableError(
            f"{device.name} can't be staged: its IOC does not serve {missing or 'its records'} after {timeout} s; "
            f"expected that it does, as it did before. Look whether the IOC runs."
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """What `set` returns: only `wait`, which is all that ophyd's staging uses."""

    wait: Callable[[], None]
    """Returns when the record has the value; raises otherwise."""


class TimedSetting:
    """A signal of ``stage_sigs`` whose every wait ends; to ophyd's stage and unstage it looks like the signal.

    It equals the signal and hashes like it, so that ``_original_vals[plugin.capture]`` finds it.

    Parameters
    ----------
    signal : ophyd.Signal, or anything with `get` and `set`
        What is set.
    plugin : Device
        Whose ``WriteMessage`` goes into the error.
    timeout : float
        Seconds.
    """

    def __init__(self, signal: Any, plugin: Any, timeout: float) -> None:
        self._signal = signal
        self._plugin = plugin
        self.timeout = timeout
        self._before: Any = None

    def __eq__(self, other: object) -> bool:
        return self._signal is (other._signal if isinstance(other, TimedSetting) else other)

    def __hash__(self) -> int:
        return hash(self._signal)

    @property
    def signal(self) -> Any:
        """What is set."""
        return self._signal

    @property
    def name(self) -> str:
        """The signal's name."""
        return str(self._signal.name)

    def get(self) -> Any:
        """The signal's value, remembered for the case that a later set fails."""
        self._before = self._signal.get()
        return self._before

    def set(self, value: Any) -> Wait:
        """Put the value; wait for it with the result's `wait`."""
        # A set() that ophyd itself does not end would go on in its thread and block the next one.
        options = {"timeout": self.timeout} if isinstance(self._signal, Signal) else {}
        status = self._signal.set(value, **options)
        return Wait(lambda: self._wait(status, value))

    def _wait(self, status: Any, value: Any) -> None:
        try:
            # The status ends by itself with the signal's time-out; a little more for that to happen.
            status.wait(self.timeout + 1)
        except TimeoutError as error:
            found = self._signal.get()
            self._put_back(value)
            raise StageTimeoutError(
                f"{pv_name(self._signal)} is {found!r} {self.timeout} s after {value!r} was put to it; expected it to "
                f"read back as that.{says(self._plugin)} Look whether the IOC takes this value, or raise stage_timeout."
            ) from error

    def _put_back(self, value: Any) -> None:
        if self._before is not None and self._before != value:
            self._signal.put(self._before)


def _without_separators(path: str) -> str:
    # An IOC appends a separator, and on Windows may show either of the two.
    return path.replace("\\", "/").rstrip("/")


class PathSetting(TimedSetting):
    """``FilePath``, which reads back with a separator at its end, and may be empty, which ophyd's own set can't put."""

    def set(self, value: Any) -> Wait:
        """Put the value; the result's `wait` ends when it reads back."""
        self._signal.put(value)
        return Wait(lambda: self._read_back(value))

    def _read_back(self, value: str) -> None:
        wanted = _without_separators(value)
        if not poll_until(lambda: _without_separators(self._signal.get()) == wanted, self.timeout):
            raise StageTimeoutError(
                f"{pv_name(self._signal)} is {self._signal.get()!r} {self.timeout} s after {value!r} was put to it; "
                f"expected it to read back as that.{says(self._plugin)} A path may be too "
                f"long for the record, or hold letters beyond ASCII; choose another."
            )


class CaptureSetting(TimedSetting):
    """``Capture``: put without waiting for completion, which may never come, and watched until it is as wanted."""

    def set(self, value: Any) -> Wait:
        """Put the value; the result's `wait` looks at ``Capture_RBV``, ``WriteStatus`` and the record itself."""
        status = self._write_error()
        self._signal.put(value)
        return Wait(lambda: self._watch(value, status))

    def _watch(self, value: Any, status_before: tuple[Any, Any]) -> None:
        began = time.monotonic()
        wanted = value not in _NOT_CAPTURING

        def settled() -> bool:
            if (self._signal.get() not in _NOT_CAPTURING) == wanted:
                return True
            error = self._write_error()
            if wanted and error[0] and error != status_before:
                raise self._refused("the plugin reports an error")
            if wanted and time.monotonic() - began > _REJECTED_AFTER and self._setpoint() in _NOT_CAPTURING:
                raise self._refused("it went back to 0 by itself")
            return False

        if not poll_until(settled, self.timeout):
            raise self._refused(f"it did not happen within {self.timeout} s", StageTimeoutError, value)

    def _write_error(self) -> tuple[Any, Any]:
        status, message = optional(self._plugin, "write_status"), optional(self._plugin, "write_message")
        return (status.get() if status is not None else 0, message.get() if message is not None else "")

    def _setpoint(self) -> Any:
        return self._signal.get_setpoint() if hasattr(self._signal, "get_setpoint") else None

    def _refused(self, reason: str, kind: type[StageError] = StageError, value: Any = 1) -> StageError:
        # It builds on this module.
        from .causes import likely_causes

        off = value in _NOT_CAPTURING
        text = (
            f"{pv_name(self._signal)} is {self._signal.get()!r} after {value!r} was put to it: {reason}."
            f"{says(self._plugin)}{'' if off else likely_causes(self._plugin)}"
            f" Expected the plugin to {'stop capturing' if off else 'capture'}; look at its "
            f"directory, and whether it has seen a frame of the camera's present size (prime='auto' takes one)."
        )
        if not off:
            self._signal.put(0)
        return kind(text)

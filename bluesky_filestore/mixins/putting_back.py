"""Unstaging that goes on: every setting is put back that can be, and those that could not are named.

ophyd's unstage stops at the first signal that does not obey, and leaves all others, and the device itself, as they are.
Some settings can't be put back: an IOC refuses ``NumFramesFlush`` its boot value, a record has limits, or is gone with
its IOC.
"""

import logging
from collections.abc import Iterator
from typing import Any

from bluesky_filestore.errors import IOCUnreachableError

from .waiting import CaptureSetting, TimedSetting, Wait, is_connected, pv_name, values_before

__all__ = ["PutBackReport", "devices_below", "raise_together"]

_log = logging.getLogger(__name__)


class PutBackReport:
    """What could not be put back while some devices were unstaged.

    Parameters
    ----------
    timeout : float
        Seconds that each setting may take which has no time-out of its own.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.problems: list[Exception] = []
        """The errors, each with the record's name, the latest last."""
        self.captures: list[Exception] = []
        """Those of captures that did not end although their IOC answers: their files may not be whole."""
        self._words: list[str] = []
        self._is_dead = False

    def attach(self, device: Any) -> None:
        """Let the device's next `unstage` go on after what fails, and note that here."""
        kept = values_before(device)
        given = list(kept.items())
        kept.clear()
        for signal, value in given:
            setting = signal if isinstance(signal, _PutBack) else _PutBack(self._timed(signal, device), self)
            kept[setting] = value

    def _timed(self, signal: Any, device: Any) -> Any:
        return signal if isinstance(signal, TimedSetting) else TimedSetting(signal, device, self._timeout)

    def put(self, setting: TimedSetting, value: Any) -> None:
        """Put a value back, or note why not."""
        try:
            if self._is_dead or not is_connected(setting.signal):
                raise IOCUnreachableError(f"its IOC does not answer; look whether {pv_name(setting.signal)} is served.")
            setting.set(value).wait()
        except Exception as error:  # noqa: BLE001 - it is reported, and the other values must be put back all the same
            self._is_dead = self._is_dead or not _answers(setting.signal)
            if isinstance(setting, CaptureSetting) and not self._is_dead:
                self.captures.append(error)
            words = f"{pv_name(setting.signal)} could not be put back to {value!r}"
            error.add_note(f"{words}.")
            self.problems.append(error)
            self._words.append(words if self._is_dead else f"{words}: {error}")

    def log(self, name: str) -> None:
        """Name in the log what could not be put back when the device of this name was unstaged."""
        if self._words:
            why = ", since its IOC does not answer" if self._is_dead else ""
            _log.warning("Not all settings of %s could be put back%s: %s", name, why, "; ".join(self._words))


def _answers(signal: Any) -> bool:
    """Whether the record's IOC still says something."""
    try:
        signal.get()
    except Exception:  # noqa: BLE001 - a get that a disconnection breaks off raises what the client library likes
        return False
    return is_connected(signal)


class _PutBack:
    """A key of ``_original_vals``, equal to the signal, whose `set` never fails."""

    def __init__(self, setting: TimedSetting, report: PutBackReport) -> None:
        self._setting = setting
        self._report = report

    def __eq__(self, other: object) -> bool:
        return self._setting == (other._setting if isinstance(other, _PutBack) else other)

    def __hash__(self) -> int:
        return hash(self._setting)

    @property
    def name(self) -> str:
        """The signal's name."""
        return self._setting.name

    def set(self, value: Any) -> Wait:
        """Put the value back, as far as that goes; nothing is left to wait for."""
        self._report.put(self._setting, value)
        return Wait(lambda: None)


def devices_below(device: Any) -> Iterator[Any]:
    """The device and all devices in it that have been made."""
    yield device
    if hasattr(device, "walk_subdevices"):
        yield from (below for _, below in device.walk_subdevices())


def raise_together(errors: list[Exception]) -> None:
    """Raise the first of some errors, if there are any, with the others as notes."""
    if errors:
        first, *others = errors
        for other in others:
            first.add_note(f"And: {other}")
        raise first

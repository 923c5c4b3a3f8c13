"""Staging a file plugin, and putting everything back: at unstage, and when staging fails halfway.

**At the door.** In ``class MyHDF5(HDF5Plugin, FileStoreHDF5)`` ophyd's own stage methods run before the mixin's, and
`HDF5Plugin.stage` refuses a plugin that has seen no frame before the mixin can let it see one. So `StageGuard` replaces
the `stage` of each class that is made from it by one that does what comes first, and then calls the one that was there,
which is ``MyHDF5.stage.__wrapped__``. A stage that another one calls by ``super()`` is not guarded again. Where
`HDF5Plugin.stage` itself would be next, it is left out: its one question has been answered by then. The decision record
"Priming before the stock plugin's stage" says why. Plainer ways fall short: an attribute `stage` of each object leaves
the classes alone, but a class with a stage of its own would meet the stock check by its ``super().stage()``; a
metaclass that puts the guard first in the order of classes excludes every other metaclass.

**The states of a plugin**

========== ===============================================================================================
unstaged   `_staged` is no, `_original_vals` is empty, nothing of the IOC's is ours
preparing  the same, and `_staging_undo` is there: `_prepare_to_stage` ends a left-over capture, and primes
staging    `_staging_undo` is there: the stage methods run, and `_original_vals` grows with each setting
staged     `_staged` is yes, and `_original_vals` has what each setting was before
half       `_staged` is partially: a component's own `unstage` has failed, and settings wait to be put back
========== ===============================================================================================

=================== ==================================== ======================================================
in                  when                                 then
=================== ==================================== ======================================================
unstaged            `stage()`                            preparing
preparing           `_prepare_to_stage` has returned     staging
staging             the stage methods have returned      staged
preparing, staging  anything is raised, a Ctrl-C, too    unstaged, all put back that can be; the error goes on,
                                                         with notes of what could not be put back
staged, half        `stage()`                            as it is, and `RedundantStaging`; nothing is changed
any                 `unstage()`                          unstaged; only then what is wrong with captures and
                                                         frames is raised, and settings are named in the log
any                 `unstage()`, a component's raises    half; `unstage()` once more goes on where it ended
=================== ==================================== ======================================================

**The attributes**, besides ophyd's two: `_staging_undo` has what a failure must put back that is not in
`_original_vals`: path, name and number, which else stay until the next stage sets others. It is there while the guard
is at work, which is also how an inner stage knows that it is one. `_not_put_back` is what the last `unstage` could not
put back. `_errors_at_unstage` is a list while a detector unstages its plugins together: they add their errors to it,
and the detector raises them when all are unstaged.

**Threads.** Only the one that runs the plan stages and unstages, and touches any of these. ophyd's `unstage` stops at
the first signal that does not obey, and leaves all others, and the device itself, as they are. Ours goes on: an IOC
refuses ``NumFramesFlush`` its boot value, a record has limits, or is gone with its IOC.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from ophyd.areadetector.plugins import HDF5Plugin
from ophyd.device import Staged
from ophyd.utils import RedundantStaging

from bluesky_filestore.errors import IOCUnreachableError, StageError
from bluesky_filestore.logs import get_logger

from .waiting import CaptureSetting, TimedSetting, Wait, answers, ioc_of, is_connected, pv_name, values_before

__all__ = ["PutBackReport", "StageGuard", "Undo", "devices_below", "end_stage_not_begun", "errors_gathered"]
__all__ += ["raise_together"]

_log = get_logger(__name__)


class Undo:
    """Values to put back, the latest first; as a context manager, at the end of the with-block."""

    def __init__(self, plugin: Any) -> None:
        self._plugin = plugin
        self._values: list[tuple[Any, Any]] = []

    def __enter__(self) -> Self:
        """Nothing has been changed yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put everything back.

        Raises
        ------
        StageError
            If that fails, unless another error is on its way, to which it is added.
        """
        problems = [str(problem) for problem in self.put_back()]
        if error is not None:
            for problem in problems:
                error.add_note(f"While the settings were being put back: {problem}")
        elif problems:
            raise StageError(f"not all settings of {self._plugin.name} could be put back: {'; '.join(problems)}")

    def remember(self, setting: Any) -> None:
        """Keep a `TimedSetting`'s present value."""
        self._values.append((setting, setting.get()))

    def set(self, setting: Any, value: Any) -> None:
        """Keep a `TimedSetting`'s present value, and set another one, unless it has that already."""
        before = setting.get()
        if before != value:
            self._values.append((setting, before))
            setting.set(value).wait()

    def put_back(self) -> list[Exception]:
        """Put everything back, and return what went wrong with it."""
        errors: list[Exception] = []
        while self._values:
            setting, value = self._values.pop()
            try:
                setting.set(value).wait()
            except Exception as error:  # noqa: BLE001 - the other values must be put back all the same
                errors.append(error)
        return errors


class StageGuard:
    """Base of the classes whose `stage` is replaced as the page above says.

    A class made from it finds its own `stage`, or the one it inherits, as ``stage.__wrapped__``.
    """

    _staging_undo: Undo | None = None
    _not_put_back: Sequence[Exception] = ()
    _errors_at_unstage: list[Exception] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the guard in front of the class's `stage`, whoever defines it."""
        super().__init_subclass__(**kwargs)
        _guard_stage(cls)

    def _prepare_to_stage(self) -> None:
        """Whatever must be right before the first `stage` method of this object runs; for subclasses."""

    def _raise_or_hand_over(self, errors: list[Exception]) -> None:
        """What went wrong at `unstage`: to the detector that unstages all its plugins, or to who called."""
        if self._errors_at_unstage is None:
            raise_together(errors)
        else:
            self._errors_at_unstage += errors


def _guard_stage(cls: Any) -> None:
    behind: Callable[[Any], list[object]] = cls.stage
    is_own = "stage" in cls.__dict__
    if not is_own and getattr(behind, "is_guarded", False):
        return
    inner = behind if is_own else functools.partial(_inherited_stage, cls)

    @functools.wraps(behind, updated=())
    def stage(self: Any) -> list[object]:
        # A stage that calls another one by super() is guarded once, by the outermost.
        return inner(self) if self._staging_undo is not None else _stage_guarded(self, inner)

    stage.is_guarded = True  # type: ignore[attr-defined]
    cls.stage = stage


def _inherited_stage(cls: type[Any], plugin: Any) -> list[object]:
    # All that HDF5Plugin.stage does is to refuse a plugin that has seen no frame, whatever the user decided with
    # prime=; that question has been answered by now.
    stock = getattr(super(cls, plugin).stage, "__func__", None) is HDF5Plugin.stage
    after: type[Any] = HDF5Plugin if stock else cls
    staged: list[object] = super(after, plugin).stage()
    return staged


def _stage_guarded(plugin: Any, inner: Callable[[Any], list[object]]) -> list[object]:
    if plugin._staged is not Staged.no:
        raise RedundantStaging(
            f"{plugin.name} is already staged, or was not wholly unstaged; nothing has been changed. "
            f"Call unstage() first."
        )
    plugin._staging_undo = Undo(plugin)
    try:
        plugin._prepare_to_stage()
        return inner(plugin)
    except BaseException as error:
        for problem in _restore(plugin):
            error.add_note(f"While the settings were being put back: {problem}")
        raise
    finally:
        plugin._staging_undo = None


def _restore(plugin: Any) -> list[Exception]:
    """Undo a stage that failed halfway; returns what went wrong with it."""
    problems: list[Exception] = []
    if plugin._staged is not Staged.no or values_before(plugin):
        try:
            plugin.unstage()
            problems += plugin._not_put_back
        except Exception as error:  # noqa: BLE001 - the first error is the one to report
            problems.append(error)
            problems += _put_back_the_rest(plugin)
    problems += plugin._staging_undo.put_back()
    _log.info("%s could not be staged; its settings have been put back, with %d problems.", plugin.name, len(problems))
    return problems


def end_stage_not_begun(device: Any) -> None:
    """Unstage a device that ophyd leaves half staged, if a value cannot be read before anything was set."""
    if device._staged is Staged.partially and not values_before(device):
        device._staged = Staged.no


def _put_back_the_rest(plugin: Any) -> list[Exception]:
    # ophyd's unstage stops at the first signal that does not obey, and leaves the others as they are.
    problems: list[Exception] = []
    for signal, value in reversed(list(values_before(plugin).items())):
        try:
            signal.set(value).wait()
        except Exception as error:  # noqa: BLE001 - the other values must be put back all the same
            error.add_note(f"{pv_name(signal)} could not be put back to {value!r}.")
            problems.append(error)
    values_before(plugin).clear()
    plugin._staged = Staged.no
    return problems


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
        self._unanswered: list[str] = []
        self._dead: set[object] = set()

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
            if ioc_of(setting.signal) in self._dead or not is_connected(setting.signal):
                raise IOCUnreachableError(f"its IOC does not answer; look whether {pv_name(setting.signal)} is served.")
            setting.set(value).wait()
        except Exception as error:  # noqa: BLE001 - it is reported, and the other values must be put back all the same
            ioc = ioc_of(setting.signal)
            if ioc not in self._dead and not answers(setting.signal):
                # What else it serves is not waited for; other IOCs may well be there.
                self._dead.add(ioc)
            if isinstance(setting, CaptureSetting) and ioc not in self._dead:
                self.captures.append(error)
            words = f"{pv_name(setting.signal)} could not be put back to {value!r}"
            error.add_note(f"{words}.")
            self.problems.append(error)
            if ioc in self._dead:
                self._unanswered.append(words)
            else:
                self._words.append(f"{words}: {error}")

    def log(self, name: str) -> None:
        """Name in the log what could not be put back when the device of this name was unstaged."""
        for words, why in ((self._words, ""), (self._unanswered, ", since its IOC does not answer")):
            if words:
                _log.warning("Not all settings of %s could be put back%s: %s", name, why, "; ".join(words))


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


@contextmanager
def errors_gathered(plugins: Sequence[StageGuard]) -> Iterator[list[Exception]]:
    """While a detector is unstaged, gather its plugins' errors, so that none keeps the others staged."""
    errors: list[Exception] = []
    for plugin in plugins:
        plugin._errors_at_unstage = errors
    try:
        yield errors
    finally:
        for plugin in plugins:
            plugin._errors_at_unstage = None

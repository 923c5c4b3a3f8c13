"""What surrounds a file plugin's stage: checks that come before everybody else's, and putting back what was changed.

In ``class MyHDF5(HDF5Plugin, FileStoreHDF5)`` ophyd's own stage methods run before the mixin's. So the mixin replaces
the outermost `stage` of each class that has it; see the decision record "Priming before the stock plugin's stage".
"""

import functools
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ophyd.areadetector.plugins import HDF5Plugin
from ophyd.device import Staged
from ophyd.utils import RedundantStaging

from bluesky_filestore.errors import StageError

from .waiting import pv_name, values_before

__all__ = ["Undo", "guard_stage"]

_log = logging.getLogger(__name__)


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


def guard_stage(cls: type[Any]) -> None:
    """Let the class's stage run inside `_stage_guarded`, whoever defines it."""
    if "stage" in cls.__dict__:
        inner = cls.__dict__["stage"]
    elif getattr(cls.stage, "is_guarded", False):
        return
    else:
        inner = functools.partial(_inherited_stage, cls)
    cls.stage = _guarded(inner)


def _guarded(inner: Callable[[Any], list[object]]) -> Callable[[Any], list[object]]:
    @functools.wraps(inner, assigned=("__doc__",), updated=())
    def stage(self: Any) -> list[object]:
        # A stage that calls another one by super() is guarded once, by the outermost.
        if self._staging_undo is not None:
            return inner(self)
        return _stage_guarded(self, inner)

    stage.is_guarded = True  # type: ignore[attr-defined]
    stage.__name__ = "stage"
    return stage


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

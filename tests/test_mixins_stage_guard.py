"""The guard in front of `stage`: each row of the table at the top of `mixins.staging`, on soft signals."""

import pytest
from mixin_detectors import Bare, BareCam, OurHDF5
from ophyd import Component, Device, Signal
from ophyd.utils import RedundantStaging

from bluesky_filestore.errors import StageError


class Part(Device):
    """A component of a plugin with a setting of its own, whose `unstage` may fail."""

    setting = Component(Signal, value=0)
    fails = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stage_sigs["setting"] = 1

    def unstage(self):
        """Fail, if that is asked for."""
        if self.fails:
            raise OSError("the part does not move")
        return super().unstage()


class Stateful(Bare):
    """A plugin that notes its state on the way, and fails where it is told to."""

    part = Component(Part, "")
    fails_when = ""
    error: BaseException = OSError("no")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def _step(self, name):
        self.seen.append(state(self))
        if self.fails_when == name:
            raise self.error

    def _prepare_to_stage(self):
        super()._prepare_to_stage()
        self._step("preparing")

    def stage(self):
        """Ours, and then perhaps an error."""
        staged = super().stage()
        self._step("staging")
        return staged


class StatefulDetector(Device):
    """What a plugin needs around it."""

    cam = Component(BareCam, "")
    file = Component(Stateful, "", write_path_template="/data/%Y", root="/data", prime="never")


@pytest.fixture
def plugin():
    """A plugin that is not staged."""
    return StatefulDetector("", name="double").file


def state(plugin):
    """The state by the attributes, as the table of states has it."""
    ophyds = plugin._staged.value
    if plugin._staging_undo is not None:
        return "staging" if plugin._original_vals else "preparing"
    return {"no": "unstaged", "yes": "staged", "partially": "half"}[ophyds]


def settings(plugin):
    """All that staging may change."""
    return {name: signal.get() for name, signal in plugin._signals.items() if isinstance(signal, Signal)} | {
        "part": plugin.part.setting.get()
    }


def bring_to(plugin, wanted):
    """Bring a plugin that is not staged to another state."""
    if wanted in ("staged", "half"):
        plugin.stage()
    if wanted == "half":
        plugin.part.fails = True
        with pytest.raises(OSError, match="does not move"):
            plugin.unstage()
        plugin.part.fails = False
    assert state(plugin) == wanted


@pytest.mark.parametrize(
    ("before", "call", "after"),
    [("unstaged", "stage", "staged"), ("staged", "unstage", "unstaged"), ("unstaged", "unstage", "unstaged"),
     ("half", "unstage", "unstaged")],
)  # fmt: skip
def test_transitions(plugin, before, call, after):
    """What is put back when the plugin is unstaged is what it was before, but where the last file is."""
    values = settings(plugin)
    bring_to(plugin, before)
    getattr(plugin, call)()
    assert state(plugin) == after
    if call == "stage":
        assert plugin.seen == ["preparing", "staging"]
    else:
        changed = {name for name, value in settings(plugin).items() if value != values[name]}
        assert changed == ({"file_path", "file_name"} if before != "unstaged" else set())
        assert not plugin._original_vals


@pytest.mark.parametrize("before", ["staged", "half"])
def test_staged_twice(plugin, before):
    """A plugin that is staged, or was not wholly unstaged, is left as it is."""
    bring_to(plugin, before)
    values, seen = settings(plugin), list(plugin.seen)
    with pytest.raises(RedundantStaging, match=r"double_file is already staged, .* Call unstage\(\) first"):
        plugin.stage()
    assert (state(plugin), settings(plugin), plugin.seen) == (before, values, seen)


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt("no")], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize("where", ["preparing", "staging"])
def test_staging_fails(plugin, where, error):
    """Whatever is raised on the way, everything is put back, and the next stage begins anew."""
    values = settings(plugin)
    plugin.fails_when, plugin.error = where, error
    with pytest.raises(type(error), match="no"):
        plugin.stage()
    assert (state(plugin), settings(plugin)) == ("unstaged", values)
    plugin.fails_when = ""
    plugin.stage()
    assert state(plugin) == "staged"


def test_putting_back_fails_too(plugin):
    """A part that can't be unstaged does not keep the others, and what it says is a note to the first error."""
    values = settings(plugin)
    plugin.fails_when, plugin.part.fails = "staging", True
    with pytest.raises(OSError, match="no") as caught:
        plugin.stage()
    assert caught.value.__notes__ == ["While the settings were being put back: the part does not move"]
    assert (state(plugin), settings(plugin)) == ("unstaged", values | {"part": 1})


def test_errors_are_gathered(plugin):
    """A detector that unstages several plugins gets their errors when all are unstaged."""
    from bluesky_filestore.mixins.staging import errors_gathered, raise_together

    plugin.stage()
    with errors_gathered([plugin]) as errors:
        plugin._raise_or_hand_over([StageError("first"), StageError("second")])
        plugin.unstage()
    with pytest.raises(StageError, match="first") as caught:
        raise_together(errors)
    assert caught.value.__notes__ == ["And: second"]
    with pytest.raises(StageError, match="first"):
        plugin._raise_or_hand_over([StageError("first")])


def test_the_stage_behind_the_guard(plugin):
    """The stage that was written is behind the guard, with its name and words; a class without one gets none."""
    written = Stateful.stage.__wrapped__
    assert (written.__name__, written.__doc__) == ("stage", "Ours, and then perhaps an error.")
    assert (Stateful.stage.__name__, Stateful.stage.__doc__) == (written.__name__, written.__doc__)
    assert OurHDF5.stage.__wrapped__.__qualname__ == "HDF5Plugin.stage"
    assert type("Later", (Stateful,), {}).stage is Stateful.stage

"""A file plugin as it will be once it is staged, found out without staging it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from bluesky_filestore.mixins import FileStorePluginBase
from bluesky_filestore.mixins.upstream import pipeline
from bluesky_filestore.mixins.waiting import components_with, optional

__all__ = ["StagedValues", "Subject", "as_text", "file_plugins"]

_SHAPING = {"size_x", "size_y", "bin_x", "bin_y", "x", "y", "min_x", "min_y"} | {
    "data_type",
    "data_type_out",
    "color_mode",
    "collapse_dims",
    "nd_array_port",
}
"""The signals, by attribute name, that change size or type of the frames."""


def file_plugins(device: Any) -> list[Any]:
    """The file plugins of a detector that have a file store, in component order; a file plugin is its own."""
    if hasattr(device, "reg_root"):
        return [device]
    return [getattr(device, name) for name in components_with(device, "reg_root")]


class StagedValues(Mapping[Any, Any]):
    """What signals will be set to, the last of each; signals may be of any kind, also such that have no hash."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        self._pairs: dict[int, tuple[Any, Any]] = {}
        for signal, value in pairs:
            self._pairs[id(signal)] = (signal, value)

    def __getitem__(self, signal: Any) -> Any:
        return self._pairs[id(signal)][1]

    def __contains__(self, signal: object) -> bool:
        return id(signal) in self._pairs

    def __iter__(self) -> Iterator[Any]:
        return (signal for signal, _ in self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)


def as_text(signal: Any, value: Any) -> str:
    """A value as text, that of an enum as its word, whether it is given as word or index."""
    choices = getattr(signal, "enum_strs", None) or ()
    if isinstance(value, int | float) and 0 <= int(value) < len(choices):
        return str(choices[int(value)])
    return str(value)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks look at."""

    plugin: Any
    """The file plugin."""
    detector: Any
    """The detector that it is a component of."""
    staged: Mapping[Any, Any]
    """What each signal will be set to when the detector is staged."""

    @classmethod
    def of(cls, plugin: Any) -> Self:
        """Look at a plugin, and at what its detector's ``stage_sigs`` will do."""
        detector = plugin.parent if plugin.parent is not None else plugin
        return cls(plugin, detector, StagedValues(_stage_sigs(detector)))

    @classmethod
    def at_present(cls, plugin: Any) -> Self:
        """Look at a plugin as it is set now, where nobody can tell what staging will do."""
        detector = getattr(plugin, "parent", None)
        return cls(plugin, plugin if detector is None else detector, StagedValues())

    @property
    def is_ours(self) -> bool:
        """Whether it has this package's mixin, which has answers of its own to some problems."""
        return isinstance(self.plugin, FileStorePluginBase)

    @property
    def primes_itself(self) -> bool:
        """Whether `stage` lets it see a frame where that is needed."""
        return self.is_ours and self.plugin._prime == "auto"

    @property
    def captures(self) -> bool:
        """Whether staging opens a file for frames that are yet to come."""
        return self.signal("capture") in self.staged

    @property
    def will_write(self) -> bool:
        """Whether it is enabled once it is staged, or has no say in that."""
        return self.signal("enable") is None or self.text("enable").lower() not in ("0", "disable", "no", "false")

    def signal(self, name: str) -> Any:
        """A component of the plugin; None if it has none such, or the IOC does not serve it."""
        return optional(self.plugin, name)

    def value(self, name: str) -> Any:
        """What a signal of the plugin will be once staged."""
        signal = self.signal(name)
        return self.staged[signal] if signal in self.staged else signal.get()

    def text(self, name: str) -> str:
        """The same as text; empty if there is no such signal."""
        return "" if self.signal(name) is None else as_text(self.signal(name), self.value(name))

    def changes_of_frames(self) -> list[str]:
        """What staging will set to another value than it has now, and that changes what the frames are like."""
        port = self.signal("nd_array_port")
        devices = [self.plugin]
        if port is not None:
            devices += pipeline(self.plugin, self.value("nd_array_port")) or []
        return [
            f"{signal.name} to {as_text(signal, value)}"
            for signal, value in self.staged.items()
            if getattr(signal, "attr_name", "") in _SHAPING
            and any(parent is device for parent in _parents(signal) for device in devices)
            and as_text(signal, signal.get()) != as_text(signal, value)
        ]


def _stage_sigs(device: Any) -> "list[tuple[Any, Any]]":
    """Signals and values in the order in which ophyd sets them."""
    pairs = [
        (optional(device, key) if isinstance(key, str) else key, value)
        for key, value in getattr(device, "stage_sigs", {}).items()
    ]
    for name in components_with(device, "stage"):
        sub_device = optional(device, name)
        pairs += _stage_sigs(sub_device) if sub_device is not None else []
    return [(signal, value) for signal, value in pairs if signal is not None]


def _parents(signal: Any) -> list[Any]:
    parents = []
    while (signal := getattr(signal, "parent", None)) is not None:
        parents.append(signal)
    return parents

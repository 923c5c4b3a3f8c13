"""An event of a run that is followed, and where events come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["EventSource", "FollowedEvent", "Frames"]


class Frames(Mapping[str, NDArray[Any]]):
    """The arrays of an event that are in files, by their data keys; each is read when it is asked for, each time.

    Parameters
    ----------
    keys : sequence of str
        Their data keys.
    read : callable
        Reads one of them.
    """

    def __init__(self, keys: Sequence[str], read: Callable[[str], NDArray[Any]]) -> None:
        self._keys, self._read = tuple(keys), read

    def __getitem__(self, key: str) -> NDArray[Any]:
        """Read one.

        Raises
        ------
        UnreadableFileError
            If it is not in its file, after `patience` seconds; a note says of which event it is.
        DocumentError
            If no document says, so far, where it is.
        CatalogError
            If it is read through the catalog, which does not give it.
        """
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Frames {', '.join(self._keys) or 'none'}>"


@dataclass(frozen=True, slots=True, eq=False)
class FollowedEvent:
    """One event of a run, as `follow` gives it.

    ``event["motor"]`` is a value, ``event["det_image"]`` a frame, which is read then.
    """

    run: str
    """The run's uid."""
    position: int
    """How many events of the run, of any stream, there are up to this one: `follow` goes on ``after`` it. It is the
    same wherever the run is read from."""
    stream: str
    """The name of its stream."""
    row: int
    """Its row in the event table of the stream, and in each of the stream's arrays."""
    seq_num: int
    """Its number in the stream."""
    is_repeated: bool
    """Whether the stream came as far before: the plan was paused, went back to a checkpoint, and takes this point, or
    one of those that follow, again. Of events with one `seq_num` the last counts."""
    uid: str
    """Its uid."""
    time: float
    """When it was, in seconds since 1970."""
    data: Mapping[str, Any]
    """The values that came with it, by data key."""
    timestamps: Mapping[str, Any]
    """When they were taken."""
    frames: Frames
    """The arrays that are in files, by data key."""

    def __getitem__(self, key: str) -> Any:
        """A value, or a frame, which is read; raises as `Frames` do."""
        return self.data[key] if key in self.data else self.frames[key]


class EventSource(Protocol):
    """Where the events of one run come from, as they come. It is for one thread at a time; frames are for any."""

    @property
    def uid(self) -> str:
        """The run's uid."""

    @property
    def start(self) -> Mapping[str, Any]:
        """The run's start document."""

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """Its stop document; None if none has come, and none will where `is_over`."""

    @property
    def is_over(self) -> bool:
        """Whether no more events will come."""

    def wait(self, seconds: float) -> float:
        """For how long to wait before `take` is worth its while, when there was nothing for so long; 0 if it is now."""

    def take(self) -> Sequence[FollowedEvent]:
        """Some of the events that have come since, in their order.

        Raises
        ------
        FileStoreError
            If they cannot be had from there any more.
        """

    def close(self) -> None:
        """Let go of what is open."""

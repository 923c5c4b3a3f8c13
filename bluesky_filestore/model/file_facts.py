"""What is known of a file that an array is made of, by whoever looked into it."""

from dataclasses import dataclass
from typing import Literal

from bluesky_filestore.errors import LockedFileError, MissingFileError, UnreadableFileError

__all__ = ["FileFacts", "Unseen", "why_unseen"]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file (or the dataset in it) says of itself."""

    shape: tuple[int, ...]
    """As it is stored; the frames of an HDF5 dataset are along its first axis."""
    dtype: str
    """In numpy's notation, with byte order."""
    in_pieces: bool = False
    """Whether it is a dataset in numbered pieces, which HDF5 itself does not join."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why nothing is known of a file."""

    kind: Literal["out of reach", "missing", "busy", "broken"]
    """Out of reach: its directory is not there, so that this machine has no say in it. Busy: it is being written."""
    reason: str
    """In words, with the path."""


def why_unseen(error: UnreadableFileError) -> Unseen:
    """What a reader of files raises, as the reason why nothing is known of one."""
    if isinstance(error, LockedFileError):
        return Unseen("busy", str(error))
    # One that is missing may be led to by a link.
    return Unseen("missing" if isinstance(error, MissingFileError) else "broken", str(error))

"""Another process that opens HDF5 files before this one does, and unpacks what this one had better not.

HDF5 and its filters are C, and end the process with a file that is damaged in the right place. A thread may have such a
process: those of a server do. Who reads in a process of his own has none.
"""

import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .rows import AxisKey, Frames

__all__ = ["Apart", "apart", "set_apart"]


class Apart(Protocol):
    """Reads in another process."""

    def check(self, path: str, dataset: str | None) -> None:
        """Look at a file, and a dataset in it if one is meant ("/": all that is in it), before this process does.

        Raises
        ------
        UnreadableFileError
            If that ends the process, or takes too long or too much memory.
        """

    @property
    def can_read(self) -> bool:
        """Whether there is another process that reads."""

    def read(
        self,
        path: str,
        dataset: str,
        frames: Frames,
        part: tuple[AxisKey, ...],
        *,
        into: NDArray[np.generic],
        per_chunk: int,
    ) -> None:
        """Read frames, or a part of each.

        Raises
        ------
        UnreadableFileError
            As reading here does, and as `check`.
        """


_here = threading.local()


def apart() -> Apart | None:
    """What this thread has of the kind."""
    return getattr(_here, "apart", None)


def set_apart(reader: Any) -> None:
    """Have it for this thread."""
    _here.apart = reader

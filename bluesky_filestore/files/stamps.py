"""What files were like when they were registered, and whether each is still the same file.

A file that has the size and the time of then is taken for the same. Where one of the two is another, some of what it
held is compared: copies have other times, and files of HDF5 grow at their end when they are closed, or when a later run
goes on in them. What tells is not what the library keeps at a file's beginning, which all this changes, but the first
and the last frame that the array has there; of a series, where each frame is a file, the bytes at both ends.
"""

import hashlib
import os
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import (
    AddressError,
    ChangedFileError,
    ForbiddenFileError,
    LockedFileError,
    MissingFileError,
    TruncatedFileError,
    UnreadableFileError,
)

from .readable import Roots, Signature, bytes_of, signature_of

__all__ = [
    "FileStamper",
    "Stamp",
    "Stamps",
    "byte_samples",
    "check_stamp",
    "explain",
    "frame_sample",
    "stamp_file",
    "stamps_of",
    "without_stamps",
]

FileStamper: TypeAlias = "Callable[[int, Stamp | None], Stamp]"
"""Looks at a file, by its number; what it was like before spares the work if it is unchanged."""
Samples: TypeAlias = "Callable[[Stamp], Iterable[str]]"
"""Reads from a file what a stamp has samples of."""

_NAME = "as_registered"
_MOST_FILES = 1000
_MOST_BYTES = 2**28
_BYTES_OF_AN_END = 4096
_SAMPLE_BYTES = 8
_MOST_REMEMBERED = 4096
# The others cannot be other files than were registered, whatever is known of these.
_NOT_THERE = (MissingFileError, ForbiddenFileError, LockedFileError)

_found_same: "OrderedDict[tuple[str, Stamp], Signature]" = OrderedDict()
"""Files that were found the same by what they hold, and what they looked like then."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What one file was like."""

    size: int
    """In bytes."""
    modified: int
    """When it was last written to, in nanoseconds."""
    samples: tuple[str, ...] = ()
    """What some of its content comes to."""
    frames: tuple[int, ...] = ()
    """The frames that the samples are of, as they are numbered there; without, they are of the bytes at both ends."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """What the files of an array were like; of very many files, those of some of them."""

    numbers: tuple[int, ...]
    """The files that are known, by their place among the array's; rising."""
    stamps: tuple[Stamp, ...]
    """One for each."""
    lengths: tuple[int, ...] = ()
    """Of HDF5 files that are joined: how many frames each had."""
    _places: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {number: place for place, number in enumerate(self.numbers)})

    @classmethod
    def made(
        cls,
        files: Sequence[int],
        look: FileStamper,
        *,
        before: "Stamps | None" = None,
        sample_bytes: int = 1,
        lengths: Sequence[int] = (),
    ) -> "Stamps":
        """The stamps of files as they are now.

        Parameters
        ----------
        files : sequence of int
            The numbers of the array's files, rising.
        look : callable
            Looks at one.
        before : Stamps, optional
            What they were like at the last look.
        sample_bytes : int
            How much is read for one file: of very many files, or large frames, some evenly spaced ones are looked at.
        lengths : sequence of int
            Of HDF5 files that are joined: how many frames each has.

        Raises
        ------
        UnreadableFileError
            If one cannot be read.
        """
        most = max(2, min(_MOST_FILES, _MOST_BYTES // max(1, sample_bytes)))
        steps = max(1, min(most, len(files)) - 1)
        numbers = tuple(files[step * (len(files) - 1) // steps] for step in range(min(most, len(files))))
        known = dict(zip(before.numbers, before.stamps, strict=True)) if before is not None else {}
        return cls(numbers, tuple(look(number, known.get(number)) for number in numbers), tuple(lengths))

    def nearest(self, number: int) -> tuple[int, Stamp]:
        """The file that answers for one, which is mostly that file itself: its number and its stamp."""
        place = self._places.get(number)
        if place is None:
            behind = min(bisect(self.numbers, number), len(self.numbers) - 1)
            place = min(behind, max(0, behind - 1), key=lambda place: abs(self.numbers[place] - number))
        return self.numbers[place], self.stamps[place]

    def to_properties(self) -> dict[str, Any]:
        """As an entry of a data source's properties."""
        said: dict[str, Any] = {
            "files": list(self.numbers),
            "sizes": [stamp.size for stamp in self.stamps],
            "times": [stamp.modified for stamp in self.stamps],
            "samples": [list(stamp.samples) for stamp in self.stamps],
        }
        if any(stamp.frames for stamp in self.stamps):
            said["frames"] = [list(stamp.frames) for stamp in self.stamps]
        if self.lengths:
            said["lengths"] = list(self.lengths)
        return {_NAME: said}


def stamps_of(properties: Mapping[str, Any]) -> Stamps | None:
    """The stamps among a data source's properties; None if there are none, as in catalogs of before."""
    said = properties.get(_NAME)
    try:
        if not said or not said["files"]:
            return None
        frames = said.get("frames") or [()] * len(said["files"])
        columns = zip(said["files"], said["sizes"], said["times"], said["samples"], frames, strict=True)
        known = {
            index(number): Stamp(index(size), index(time), tuple(map(str, samples)), tuple(map(index, of)))
            for number, size, time, samples, of in columns
        }
        return Stamps(tuple(known), tuple(known.values()), tuple(map(index, said.get("lengths") or ())))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AddressError(
            f"the properties of a data source do not say what its files were like ({error!r}); expected what was "
            f"registered: register it again, or have it read as it is now (allow_changed=True)."
        ) from error


def without_stamps(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The other properties: for who wants to read whatever the files hold now."""
    others = {name: value for name, value in properties.items() if name != _NAME}
    # Each part of an array whose rows differ has its own.
    return {**others, "parts": list(map(without_stamps, others["parts"]))} if "parts" in others else others


def stamp_file(path: str, before: Stamp | None, frames: tuple[int, ...], samples: Samples) -> Stamp:
    """What a file is like now.

    Parameters
    ----------
    path : str
        The file.
    before : Stamp or None
        What it was like at the last look.
    frames : tuple of int
        The frames that `samples` reads; none for bytes.
    samples : callable
        Reads from it.

    Raises
    ------
    UnreadableFileError
        If it cannot be read.
    """
    # Before it is read: if it is written to meanwhile, its time is another when it is compared, and its samples tell.
    found = signature_of(path)
    if before is not None and (before.size, before.modified, before.frames) == (found.size, found.modified, frames):
        return before
    stamp = Stamp(found.size, found.modified, frames=frames)
    return Stamp(found.size, found.modified, tuple(samples(stamp)), frames)


def check_stamp(path: str, stamp: Stamp, samples: Samples) -> None:
    """Compare a file with what it was like when it was registered.

    Raises
    ------
    ChangedFileError
        If it is another, or was changed.
    TruncatedFileError
        If it begins as it did, and ends before.
    UnreadableFileError
        If it is not there, or cannot be compared.
    """
    found = signature_of(path)
    if (found.size, found.modified) == (stamp.size, stamp.modified) or _found_same.get((path, stamp)) == found:
        return
    try:
        for expected, sample in zip(stamp.samples, samples(stamp), strict=True):
            if sample != expected:
                raise ChangedFileError(_words(path, stamp, found))
    except (ChangedFileError, *_NOT_THERE):
        raise
    except UnreadableFileError as error:
        kind = TruncatedFileError if isinstance(error, TruncatedFileError) else ChangedFileError
        raise kind(f"{_words(path, stamp, found)} Now {error}") from error
    _found_same[path, stamp] = found
    while len(_found_same) > _MOST_REMEMBERED:
        _found_same.popitem(last=False)


def explain(error: UnreadableFileError, checks: Iterable[Callable[[], None]]) -> None:
    """Raise the true reason for what could not be read, if it is that a file was changed.

    Parameters
    ----------
    error : UnreadableFileError
        What reading came to.
    checks : iterable of callable
        Each compares one file.

    Raises
    ------
    ChangedFileError, TruncatedFileError
        As `check_stamp` does.
    """
    if isinstance(error, ChangedFileError | MissingFileError | ForbiddenFileError | LockedFileError):
        return
    for check in checks:
        try:
            check()
        except (ChangedFileError, TruncatedFileError) as cause:
            raise cause from error
        except UnreadableFileError:
            # What cannot be compared tells nothing; the error that there is stands.
            continue


def frame_sample(values: NDArray[Any]) -> str:
    """What a frame comes to."""
    return _sample_of(bytes_of(np.ascontiguousarray(values)))


def byte_samples(path: str, size: int, roots: Roots) -> Iterator[str]:
    """What the bytes at the two ends of a file come to, the end being where it was when the file had a size.

    Raises
    ------
    UnreadableFileError
        If the file cannot be read.
    """
    with roots.opened(path) as descriptor:
        yield _sample_of(os.pread(descriptor, min(size, _BYTES_OF_AN_END), 0))
        begin = max(0, size - _BYTES_OF_AN_END)
        yield _sample_of(os.pread(descriptor, size - begin, begin))


def _sample_of(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=_SAMPLE_BYTES).hexdigest()


def _words(path: str, stamp: Stamp, found: Signature) -> str:
    sizes = f"{stamp.size} bytes, written {_shown(stamp.modified)}"
    now = f"{found.size} bytes, written {_shown(found.modified)}"
    return (
        f"file {path} is not the file that was registered, which had {sizes}: there is one of {now}, with other "
        f"content: it was written again, replaced or cut short. Expected the first: bring it back; if this one is "
        f"right, deliver the run again (bluesky-filestore resume --run), or read it with allow_changed=True."
    )


def _shown(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")

"""Frames that are what a handler answers, whatever it reads."""

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError, ForbiddenFileError, UnreadableFileError
from bluesky_filestore.files.hdf5_links import check_file
from bluesky_filestore.files.readable import Roots, file_errors
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.files.rows import AxisKey, Frames
from bluesky_filestore.files.stamps import Stamp, Stamps, check_stamp, explain, frame_sample, stamp_file
from bluesky_filestore.model.addressing import HandledPart, HandledRows
from bluesky_filestore.model.limits import check_width
from bluesky_filestore.model.paths import with_trailing_separator
from bluesky_filestore.protocols import HandlerClass

from .base import ArrayFormat, told_of_handler
from .lazily import as_read

__all__ = ["HandledFrames", "handled_frames"]


@dataclass(frozen=True, slots=True)
class HandledFrames:
    """What handlers answer to the Datums of one or several Resources."""

    handler_class: HandlerClass
    """Makes the handlers."""
    spec: str
    """Of the Resources, for messages."""
    paths: Sequence[str]
    """Of the files or directories."""
    parts: Sequence[HandledPart]
    """The events in their order, by Resource."""
    frame_shape: tuple[int, ...]
    """The shape of an event, as registered."""
    dtype: np.dtype[np.generic]
    """Of its elements, as registered."""
    roots: Roots
    """Where the files may lie."""
    stamps: Stamps | None = None
    """What the files were like when they were registered, if that is known."""

    @classmethod
    def from_parameters(
        cls,
        parameters: Mapping[str, Any],
        paths: Sequence[str],
        frame_shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        *,
        handlers: Mapping[str, HandlerClass],
        roots: Roots,
        stamps: Stamps | None = None,
    ) -> "HandledFrames":
        """From the parameters of a data source of the mimetype `bluesky_filestore.model.addressing.HANDLED`.

        Raises
        ------
        AddressError
            If they do not say what the events are, or nobody has a handler for the spec.
        """
        rows = HandledRows.from_parameters(parameters)
        roots.limits.check("frames", sum(len(part.datum_kwargs) for part in rows.parts), "its parts are", "events")
        for part in rows.parts:
            # Handlers fill it in before it is known which files they read.
            check_width(part.resource_kwargs.get("template"), roots.limits)
        missing = next((part.asset for part in rows.parts if part.asset >= len(paths)), None)
        if missing is not None:
            raise AddressError(f"events are in file number {missing}; expected one of {len(paths)} assets.")
        try:
            handler_class = handlers[rows.spec]
        except KeyError as error:
            raise AddressError(str(error)) from error
        return cls(handler_class, rows.spec, paths, rows.parts, frame_shape, dtype, roots, stamps)

    @property
    def count(self) -> int:
        """How many events there are."""
        return sum(len(part.datum_kwargs) for part in self.parts)

    def read(self, frames: Frames, part: tuple[AxisKey, ...] = ()) -> NDArray[np.generic]:
        """Events, one after the other along the first axis, or a part of each."""
        shape = np.broadcast_to(np.zeros(()), self.frame_shape)[part].shape
        values = np.empty((len(frames), *shape), self.dtype)
        starts = self._starts()
        by_part = groupby(enumerate(frames), key=lambda asked: bisect(starts, asked[1]) - 1)
        for number, events in by_part:
            asset = self.parts[number].asset
            try:
                with self._handler(self.parts[number]) as handler:
                    for place, event in events:
                        answer = self._answer(handler, self.parts[number], event - starts[number])
                        values[place] = self._checked(answer, event, self._path(self.parts[number]))[part]
            except UnreadableFileError as error:
                explain(error, [partial(self._compare, asset)])
                raise
            self._compare(asset)
        return values

    def check_files(self, frames: Frames) -> None:
        """Compare the files of some events with what they were like when they were registered."""
        starts = self._starts()
        for asset in dict.fromkeys(self.parts[bisect(starts, event) - 1].asset for event in frames):
            self._compare(asset)

    def stamped(self, before: Stamps | None) -> Stamps:
        """What the files are like now; of the directories that some handlers are made with nothing is known."""
        ends: dict[int, tuple[int, int]] = {}
        for start, part in zip(self._starts(), self.parts, strict=True):
            if Path(self._path(part)).is_file():
                first, _ = ends.get(part.asset, (start, 0))
                ends[part.asset] = (first, start + len(part.datum_kwargs) - 1)

        def look(asset: int, known: Stamp | None) -> Stamp:
            frames = tuple(dict.fromkeys(ends[asset]))
            return stamp_file(self.paths[asset], known, frames, self._samples)

        sample_bytes = 2 * math.prod(self.frame_shape) * self.dtype.itemsize
        return Stamps.made(sorted(ends), look, before=before, sample_bytes=sample_bytes)

    def answer_of(self, event: int) -> NDArray[np.generic]:
        """An event as the handler has it, whatever is registered."""
        starts = self._starts()
        number = bisect(starts, event) - 1
        with self._handler(self.parts[number]) as handler:
            return self._answer(handler, self.parts[number], event - starts[number])

    def formats(self, most: int) -> Iterator[ArrayFormat]:
        """Shape and dtype of the events of the first Resource as its handler has them, one after the other.

        Parameters
        ----------
        most : int
            They end after an event of more bytes, if the handler has to read it to know.
        """
        part = self.parts[0]
        with self._handler(part) as handler:
            said = getattr(handler, "format", None)
            for place, datum_kwargs in enumerate(part.datum_kwargs):
                if said is not None:
                    with self._told(self._path(part), f"{dict(datum_kwargs)} of "):
                        expected: ArrayFormat = said(**datum_kwargs)
                    yield expected
                    continue
                answer = self._answer(handler, part, place)
                yield ArrayFormat(answer.shape, answer.dtype)
                if answer.nbytes > most:
                    return

    def end_paths(self) -> list[str]:
        """The files of the first and of the last event, where the handler tells; else what it is made with."""
        ends = ((self.parts[0], 0), (self.parts[-1], -1))
        return [path for part, place in ends for path in self.files_of(part, [part.datum_kwargs[place]])]

    def files_of(self, part: HandledPart, datum_kwargs: Sequence[Mapping[str, Any]]) -> list[str]:
        """The files of some events of a part, where the handler tells; else what it is made with."""
        with self._handler(part) as handler:
            told_by = getattr(handler, "get_file_list", None)
            if told_by is None:
                for asked in datum_kwargs if self.roots.directories is not None else ():
                    self._check_files(handler, part, asked)
                return [self._path(part)]
            with self._told(self._path(part), "the list of files of "):
                return [str(path) for path in told_by(datum_kwargs)]

    def _compare(self, asset: int) -> None:
        if self.stamps is not None:
            number, stamp = self.stamps.nearest(asset)
            check_stamp(self.paths[number], stamp, self._samples)

    def _samples(self, stamp: Stamp) -> Iterable[str]:
        return (frame_sample(self.answer_of(event)) for event in stamp.frames)

    def _starts(self) -> list[int]:
        """The first event of each part."""
        return [0, *accumulate(len(part.datum_kwargs) for part in self.parts[:-1])]

    def _path(self, part: HandledPart) -> str:
        return self.paths[part.asset]

    def _answer(self, handler: Any, part: HandledPart, place: int) -> NDArray[np.generic]:
        """What the handler answers, if all files that it names for the event lie where they may."""
        datum_kwargs = part.datum_kwargs[place]
        with self._told(self._path(part), f"{dict(datum_kwargs)} of "):
            if self.roots.directories is not None:
                self._check_files(handler, part, datum_kwargs)
            return np.asarray(as_read(handler(**datum_kwargs)))

    def _check_files(self, handler: Any, part: HandledPart, datum_kwargs: Mapping[str, Any]) -> None:
        """Refuse what a handler would read outside the roots, by way of links as well."""
        if hasattr(handler, "get_file_list"):
            files = [str(file) for file in handler.get_file_list([datum_kwargs])]
        else:
            files = [self._path(part)]
            for name, value in {**part.resource_kwargs, **datum_kwargs}.items():
                if isinstance(value, str) and _may_lead_away(value):
                    raise ForbiddenFileError(
                        f"the handler of spec {self.spec!r} does not say which files it reads (it has no "
                        f"get_file_list), and its argument {name}={value!r} may lead outside the directories that may "
                        f"be read; expected a handler that says it, or no such path."
                    )
        for file in files:
            check_file(file, self.roots)

    @contextmanager
    def _handler(self, part: HandledPart) -> Iterator[Any]:
        path = self._path(part)
        with self._told(path):
            handed = self.roots.admit(path)
            if part.directory:
                # Some handlers put a file's name right behind it.
                handed = with_trailing_separator(handed, "posix")
            handler = self.handler_class(handed, **part.resource_kwargs)
        try:
            yield handler
        finally:
            if hasattr(handler, "close"):
                with self._told(path):
                    handler.close()

    @contextmanager
    def _told(self, path: str, what: str = "") -> Iterator[None]:
        with told_of_handler(self.spec, f"{what}{path}"), file_errors(path):
            yield

    def _checked(self, found: NDArray[np.generic], event: int, path: str) -> NDArray[np.generic]:
        if found.size != math.prod(self.frame_shape) or not np.can_cast(found.dtype, self.dtype, "safe"):
            raise UnreadableFileError(
                f"the handler of spec {self.spec!r} answers with shape {list(found.shape)} and {found.dtype} for event "
                f"{event} of {path}; expected {list(self.frame_shape)} and {self.dtype} of the catalog."
            )
        return found.reshape(self.frame_shape)


def handled_frames(registered: Registered, *, handlers: Mapping[str, HandlerClass], roots: Roots) -> HandledFrames:
    """The frames of an array of the mimetype `bluesky_filestore.model.addressing.HANDLED`.

    Raises
    ------
    AddressError
        If its parameters do not say what its events are, or nobody has a handler for the spec.
    """
    shape = registered.shape
    frames = HandledFrames.from_parameters(
        registered.parameters,
        registered.paths,
        shape[1:],
        registered.dtype,
        handlers=handlers,
        roots=roots,
        stamps=registered.stamps,
    )
    if shape[:1] != (frames.count,):
        raise AddressError(
            f"the array has shape {list(shape)}; expected {frames.count} events, as many as datum_kwargs."
        )
    return frames


def _may_lead_away(text: str) -> bool:
    """Whether a text, as part of a path, leads out of a directory; paths in a file of HDF5 look much like it."""
    parts = Path(text).parts
    return ".." in parts or (len(parts) > 1 and parts[0] == "/" and Path(*parts[:2]).exists())

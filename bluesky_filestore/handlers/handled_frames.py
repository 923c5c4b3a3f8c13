"""Frames that are what a handler answers, whatever it reads."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError, FileStoreError, UnreadableFileError
from bluesky_filestore.protocols import HandlerClass
from bluesky_filestore.reading.files import Roots, told
from bluesky_filestore.reading.registered import Registered
from bluesky_filestore.reading.rows import AxisKey, Frames

__all__ = ["HandledFrames", "handled_frames"]


@dataclass(frozen=True, slots=True)
class HandledFrames:
    """What a handler answers to the Datums of one Resource."""

    handler_class: HandlerClass
    """Makes the handler."""
    spec: str
    """Of the Resource, for messages."""
    path: str
    """Of the file or directory."""
    resource_kwargs: Mapping[str, Any]
    """What the handler is made with."""
    datum_kwargs: Sequence[Mapping[str, Any]]
    """What it is asked for each event."""
    frame_shape: tuple[int, ...]
    """The shape of an event, as registered."""
    dtype: np.dtype[np.generic]
    """Of its elements, as registered."""
    roots: Roots
    """Where the file may lie."""

    @classmethod
    def from_parameters(
        cls,
        parameters: Mapping[str, Any],
        path: str,
        frame_shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        *,
        handlers: Mapping[str, HandlerClass],
        roots: Roots,
    ) -> "HandledFrames":
        """From the parameters of a data source of the mimetype `bluesky_filestore.addressing.HANDLED`.

        Raises
        ------
        AddressError
            If they do not say what the events are, or nobody has a handler for the spec.
        """
        spec, datum_kwargs = parameters.get("spec"), parameters.get("datum_kwargs")
        if not isinstance(spec, str) or not isinstance(datum_kwargs, list) or not datum_kwargs:
            raise AddressError(
                f"parameters {sorted(parameters)} do not say what the events are; expected spec, resource_kwargs, and "
                f"datum_kwargs with a mapping for each."
            )
        try:
            handler_class = handlers[spec]
        except KeyError as error:
            raise AddressError(str(error)) from error
        resource_kwargs = parameters.get("resource_kwargs") or {}
        return cls(handler_class, spec, path, resource_kwargs, datum_kwargs, frame_shape, dtype, roots)

    @property
    def count(self) -> int:
        """How many events there are."""
        return len(self.datum_kwargs)

    def read(self, frames: Frames, part: tuple[AxisKey, ...] = ()) -> NDArray[np.generic]:
        """Events, one after the other along the first axis, or a part of each."""
        shape = np.broadcast_to(np.zeros(()), self.frame_shape)[part].shape
        values = np.empty((len(frames), *shape), self.dtype)
        with self._handler() as handler:
            for place, event in enumerate(frames):
                values[place] = self._checked(self._asked(handler, event), event)[part]
        return values

    def answer_of(self, event: int) -> NDArray[np.generic]:
        """An event as the handler has it, whatever is registered."""
        with self._handler() as handler:
            return np.asarray(self._asked(handler, event))

    def _asked(self, handler: Any, event: int) -> Any:
        """What the handler answers, if all files that it names for the event lie where they may."""
        datum_kwargs = self.datum_kwargs[event]
        if self.roots.directories is not None and hasattr(handler, "get_file_list"):
            for path in handler.get_file_list([datum_kwargs]):
                self.roots.admit(str(path))
        return handler(**datum_kwargs)

    def end_paths(self) -> list[str]:
        """The files of the first and of the last event, where the handler tells; else what it is made with."""
        ends = [self.datum_kwargs[place] for place in (0, -1)]
        with self._handler() as handler:
            if not hasattr(handler, "get_file_list"):
                return [self.path]
            return [str(path) for path in handler.get_file_list(ends)]

    @contextmanager
    def _handler(self) -> Iterator[Any]:
        try:
            with told(self.path):
                handler = self.handler_class(self.roots.admit(self.path), **self.resource_kwargs)
                with closing(handler) if hasattr(handler, "close") else nullcontext():
                    yield handler
        except FileStoreError:
            raise
        except Exception as error:
            # A handler is anybody's code, and raises what it likes.
            raise UnreadableFileError(
                f"the handler of spec {self.spec!r} cannot read {self.path}: {type(error).__name__}: {error}."
            ) from error

    def _checked(self, answer: Any, event: int) -> NDArray[np.generic]:
        found = np.asarray(answer)
        if found.size != math.prod(self.frame_shape) or not np.can_cast(found.dtype, self.dtype, "safe"):
            raise UnreadableFileError(
                f"the handler of spec {self.spec!r} answers with shape {list(found.shape)} and {found.dtype} for event "
                f"{event} of {self.path}; expected {list(self.frame_shape)} and {self.dtype} of the catalog."
            )
        return found.reshape(self.frame_shape)


def handled_frames(registered: Registered, *, handlers: Mapping[str, HandlerClass], roots: Roots) -> HandledFrames:
    """The frames of an array of the mimetype `bluesky_filestore.addressing.HANDLED`.

    Raises
    ------
    AddressError
        If its parameters do not say what its events are, or nobody has a handler for the spec.
    """
    shape = registered.shape
    frames = HandledFrames.from_parameters(
        registered.parameters, registered.paths[0], shape[1:], registered.dtype, handlers=handlers, roots=roots
    )
    if shape[:1] != (frames.count,):
        raise AddressError(
            f"the array has shape {list(shape)}; expected {frames.count} events, as many as datum_kwargs."
        )
    return frames

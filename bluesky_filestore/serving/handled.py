"""The adapter for whatever there is a handler for: each event is what the handler answers to its Datum."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import AddressError, FileStoreError, UnreadableFileError
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.protocols import HandlerClass
from bluesky_filestore.reading.files import ANYWHERE, Roots, told
from bluesky_filestore.reading.rows import AxisKey, Frames

from .assets import path_of, paths_of
from .found import found_structure
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["HANDLED", "HandledAdapters"]

HANDLED = "application/x-bluesky-filestore-handled"
"""Parameters: ``spec``, ``resource_kwargs``, and ``datum_kwargs``, a list with a mapping for each event.

The one asset is the file, or the directory, that the handler is made with.
"""


@dataclass(frozen=True, slots=True)
class _Events:
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
                values[place] = self._checked(handler(**self.datum_kwargs[event]), event)[part]
        return values

    def answer_of(self, event: int) -> NDArray[np.generic]:
        """An event as the handler has it, whatever is registered."""
        with self._handler() as handler:
            return np.asarray(handler(**self.datum_kwargs[event]))

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


class HandledAdapters:
    """Makes the adapters of data sources of the mimetype `HANDLED`.

    Parameters
    ----------
    roots : Roots
        Where files may lie, beside what Tiled allows.
    handlers : mapping, optional
        Handler class by spec; by default `bluesky_filestore.handler_registry`.
    """

    def __init__(self, roots: Roots = ANYWHERE, handlers: Mapping[str, HandlerClass] | None = None) -> None:
        self._roots = roots
        self._handlers = handler_registry if handlers is None else handlers

    def from_catalog(self, data_source: "DataSource[ArrayStructure]", node: Any, /, **parameters: Any) -> FramesAdapter:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say what its events are, or nobody has a handler for its spec.
        """
        structure = data_source.structure
        with answered():
            path, shape = paths_of(data_source)[0], tuple(structure.shape)
            events = self._events(path, parameters, shape[1:], structure.data_type.to_numpy_dtype())
            if shape[:1] != (events.count,):
                raise AddressError(
                    f"the array has shape {list(shape)}; expected {events.count} events, as many as datum_kwargs."
                )
        return FramesAdapter(lambda: events, structure, metadata=node.metadata_, specs=node.specs)

    def from_uris(self, *data_uris: str, **parameters: Any) -> FramesAdapter:
        """The adapter of events as the first of them is, as the validator of bluesky-tiled-plugins asks for it.

        Raises
        ------
        HTTPException
            If the first event cannot be read.
        """
        with answered():
            some = self._events(path_of(data_uris[0]), parameters, (), np.dtype(np.uint8))
            first = some.answer_of(0)
            events = replace(some, frame_shape=first.shape, dtype=first.dtype)
            structure = found_structure((events.count, *first.shape), first.dtype)
        return FramesAdapter(lambda: events, structure)

    def _events(
        self, path: str, parameters: Mapping[str, Any], frame_shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> _Events:
        spec, datum_kwargs = parameters.get("spec"), parameters.get("datum_kwargs")
        if not isinstance(spec, str) or not isinstance(datum_kwargs, list) or not datum_kwargs:
            raise AddressError(
                f"parameters {sorted(parameters)} do not say what the events are; expected spec, resource_kwargs, and "
                f"datum_kwargs with a mapping for each."
            )
        try:
            handler_class = self._handlers[spec]
        except KeyError as error:
            raise AddressError(str(error)) from error
        resource_kwargs = parameters.get("resource_kwargs") or {}
        return _Events(handler_class, spec, path, resource_kwargs, datum_kwargs, frame_shape, dtype, self._roots)

"""The handlers that are open: made when they are needed, a bounded number of them at a time."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bluesky_filestore.files.numbered import SourceArrays
from bluesky_filestore.model.frame_axis import declared_shape
from bluesky_filestore.model.frame_map import Source
from bluesky_filestore.model.paths import is_absolute, join_resource, semantics_of, with_trailing_separator
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.protocols import Handler, HandlerClass

from .base import PointHandler, told_of_handler
from .lazily import as_lazy, as_read
from .registry import find_handler

__all__ = ["OpenHandlers"]

_MOST_OPEN = 64
"""How many handlers, each with perhaps a file open, are kept: systems allow a process 256 files at the least."""
_FIRST_PAUSE = 0.005

_Result = TypeVar("_Result")


class OpenHandlers:
    """Makes handlers, keeps them open and reads with them.

    Parameters
    ----------
    handlers : Mapping of str to handler class
        By spec.
    root_map : RootMap
        Where files are now.
    lazy : bool
        Whether dask arrays are wanted.
    patience : float
        How long, in seconds, a file that can't be read is tried again.
    """

    def __init__(
        self, handlers: Mapping[str, HandlerClass], root_map: RootMap, *, lazy: bool = False, patience: float = 0.0
    ) -> None:
        self._classes, self._root_map = handlers, root_map
        self._lazy, self._patience = lazy, patience
        self._open: OrderedDict[tuple[str, str], Handler] = OrderedDict()
        self._checked: set[tuple[str, str]] = set()

    def read_datum(
        self, resource: Mapping[str, Any], datum_kwargs: Mapping[str, Any], data_key: Mapping[str, Any]
    ) -> Any:
        """What a Datum of a Resource stands for, for an event whose descriptor has this data key.

        Raises
        ------
        HandlerNotFoundError
            If nobody reads the spec.
        PathError
            If the Resource's path cannot be one of this machine.
        OSError
            As the handler raises it, after `patience`.
        """
        key = (resource["uid"], "")
        handler = self._open.get(key)
        where = f"of {resource['resource_path']!r} below {resource.get('root') or ''!r}"
        if handler is None:
            handler_class = find_handler(resource["spec"], self._classes)
            path, kwargs = path_of_resource(resource, self._root_map), resource.get("resource_kwargs", {})
            with told_of_handler(resource["spec"], f"resource_kwargs {dict(kwargs)} {where}"):
                handler = self._keep(key, self._patiently(lambda: handler_class(path, **kwargs)))
        if isinstance(handler, PointHandler) and key not in self._checked:
            self._patiently(lambda: handler.expect(declared_shape(data_key)))
            self._checked.add(key)
        self._open.move_to_end(key)
        with told_of_handler(resource["spec"], f"datum {dict(datum_kwargs)} {where}"):
            return self._read(handler, datum_kwargs)

    def read_index(self, source: Source, data_key: Mapping[str, Any], name: str, index: int, width: int = 1) -> Any:
        """The array of an index, or several, of a StreamResource; `name` is that of its data key.

        Raises
        ------
        UnknownSpecError, PathError, OSError
            As for a Datum.
        """
        key = (source.uid, name)
        handler = self._open.get(key)
        if handler is None:
            path = str(self._root_map.find_here(source.path))
            handler = self._keep(key, SourceArrays(source, path, data_key))
        self._open.move_to_end(key)
        return self._read(handler, {"index": index} if width == 1 else {"index": index, "width": width})

    def close(self) -> None:
        """Close them all."""
        while self._open:
            _close(self._open.popitem()[1])

    def _keep(self, key: tuple[str, str], handler: Handler) -> Handler:
        self._open[key] = handler
        if len(self._open) > _MOST_OPEN:
            _close(self._open.popitem(last=False)[1])
        return handler

    def _read(self, handler: Handler, datum_kwargs: Mapping[str, Any]) -> Any:
        if self._lazy:
            return self._patiently(lambda: as_lazy(handler, datum_kwargs))
        return self._patiently(lambda: as_read(handler(**datum_kwargs)))

    def _patiently(self, attempt: Callable[[], _Result]) -> _Result:
        """Try again while it raises an OSError: files of a run that goes on may not be there yet."""
        until, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except OSError:
                left = until - time.monotonic()
                if left <= 0:
                    raise
            time.sleep(min(pause, left))
            pause *= 2


def path_of_resource(resource: Mapping[str, Any], root_map: RootMap) -> str:
    """The path of a Resource here, for its handler.

    A ``resource_path`` without a root that is no path of a file (a beamline's own spec may have any words there) is
    handed on as it is.

    Raises
    ------
    PathError
        If it is a path that this machine cannot have.
    """
    root, below = resource.get("root") or "", resource["resource_path"]
    if not root and not is_absolute(below):
        return str(below)
    path = root_map.find_here(join_resource(root, below, resource.get("path_semantics") or "posix"))
    if str(below).endswith(("/", "\\")):
        # Some handlers put a file's name right behind it.
        return with_trailing_separator(path, semantics_of(path))
    return str(path)


def _close(handler: Handler) -> None:
    close = getattr(handler, "close", None)
    if close is not None:
        close()

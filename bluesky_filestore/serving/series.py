"""The adapters for series of one-frame files as everybody registers them: one asset a frame."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from tiled.adapters.sequence import FileSequenceAdapter

from bluesky_filestore.errors import AddressError
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import frames_of

from .assets import path_of, registered_of, uris_of
from .found import found_adapter
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["SeriesAdapters"]


class SeriesAdapters:
    """Makes the adapters of data sources of one of the mimetypes ``multipart/related``.

    Parameters
    ----------
    mimetype : str
        Which.
    roots : Roots
        Where files may lie, beside what Tiled allows.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

    file_indices_for_slice = getattr(FileSequenceAdapter, "file_indices_for_slice", None)
    """Tells Tiled which assets a request needs."""
    supports_lazy_assets = file_indices_for_slice is not None
    """Tells Tiled that it may look up only these; one that does not ask so looks up all."""

    def __init__(self, mimetype: str, roots: Roots = ANYWHERE, *, allow_changed: bool = False) -> None:
        self._mimetype, self._roots, self._allow_changed = mimetype, roots, allow_changed

    def from_catalog(
        self,
        data_source: "DataSource[ArrayStructure]",
        node: Any,
        /,
        data_uris: Sequence[str | None] | None = None,
        **parameters: Any,
    ) -> FramesAdapter:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say which files its rows are.
        """
        with answered():
            paths = _Paths(uris_of(data_source) if data_uris is None else data_uris)
            registered = registered_of(data_source, paths, parameters, allow_changed=self._allow_changed)
            frames = frames_of(replace(registered, mimetype=self._mimetype), roots=self._roots)
        return FramesAdapter(frames, data_source.structure, metadata=node.metadata_, specs=node.specs)

    def from_uris(self, *data_uris: str) -> FramesAdapter:
        """The adapter of what the files hold, as the validator of bluesky-tiled-plugins asks for it.

        Raises
        ------
        HTTPException
            If the first file cannot be read.
        """
        return found_adapter(self._mimetype, data_uris, {}, roots=self._roots)


class _Paths(Sequence[str]):
    """The paths of URIs, each made when its frame is read: of many files few are."""

    def __init__(self, uris: Sequence[str | None]) -> None:
        self._uris = uris

    def __len__(self) -> int:
        return len(self._uris)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "_Paths": ...

    def __getitem__(self, place: int | slice) -> "str | _Paths":
        if isinstance(place, slice):
            return _Paths(self._uris[place])
        uri = self._uris[place]
        if uri is None:
            raise AddressError(f"the file of frame {place} is not registered.")
        return path_of(uri)

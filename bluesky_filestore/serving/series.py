"""The adapters for frames that the data source says the places of: rows anywhere, or one file each."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tiled.adapters.sequence import FileSequenceAdapter

from bluesky_filestore.errors import AddressError
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import OpenFrames, Registered, frames_of
from bluesky_filestore.files.series import LazyPaths
from bluesky_filestore.model.asset_paths import listed_assets

from .assets import path_of, registered_of
from .found import found_adapter
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["FrameAdapters", "SeriesAdapters"]


class FrameAdapters:
    """Makes the adapters of data sources of one mimetype.

    Parameters
    ----------
    mimetype : str
        Which.
    roots : Roots
        Where files may lie, beside what Tiled allows.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

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
            If the data source does not say which frames its rows are.
        """
        with answered():
            uris = data_uris or [asset.data_uri for asset in listed_assets(data_source.assets)]
            paths = LazyPaths(range(len(uris)), partial(_path_at, uris))
            registered = replace(
                registered_of(data_source, paths, parameters, allow_changed=self._allow_changed),
                mimetype=self._mimetype,
            )
            frames = self._open(registered)
        return FramesAdapter(
            frames, data_source.structure, metadata=node.metadata_, specs=node.specs, limits=self._roots.limits
        )

    def from_uris(self, *data_uris: str, **parameters: Any) -> FramesAdapter:
        """The adapter of what the files hold, as the validator of bluesky-tiled-plugins asks for it.

        Raises
        ------
        HTTPException
            If the frames are not there.
        """
        return found_adapter(self._mimetype, data_uris, parameters, roots=self._roots)

    def _open(self, registered: Registered) -> OpenFrames:
        return frames_of(registered, roots=self._roots)


class SeriesAdapters(FrameAdapters):
    """Makes those of one of the mimetypes ``multipart/related``, as everybody registers them: one asset a frame."""

    file_indices_for_slice = getattr(FileSequenceAdapter, "file_indices_for_slice", None)
    """Tells Tiled which assets a request needs."""
    supports_lazy_assets = file_indices_for_slice is not None
    """Tells Tiled that it may look up only these; one that does not ask so looks up all."""


def _path_at(uris: Sequence[str | None], frame: int) -> str:
    uri = uris[frame]
    if uri is None:
        raise AddressError(f"the file of frame {frame} is not registered.")
    return path_of(uri)

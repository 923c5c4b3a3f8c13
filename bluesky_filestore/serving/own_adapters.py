"""The adapter for the mimetypes of our own: rows anywhere in HDF5 files, rows that are files of a series."""

from typing import TYPE_CHECKING, Any

from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.files.registered import frames_of

from .assets import paths_of, registered_of
from .found import found_adapter
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.data_source import DataSource

__all__ = ["OwnAdapters"]


class OwnAdapters:
    """Makes the adapters of data sources of one of the mimetypes of `bluesky_filestore.model.addressing`.

    Parameters
    ----------
    mimetype : str
        Which.
    roots : Roots
        Where files may lie, beside what Tiled allows.
    files : HDF5Files, optional
        The pool that HDF5 files are opened through; by default the one of this process.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

    def __init__(
        self, mimetype: str, roots: Roots = ANYWHERE, files: HDF5Files | None = None, *, allow_changed: bool = False
    ) -> None:
        self._mimetype, self._roots, self._allow_changed = mimetype, roots, allow_changed
        self._files = files

    def from_catalog(self, data_source: "DataSource[ArrayStructure]", node: Any, /, **parameters: Any) -> FramesAdapter:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If the data source does not say which frames its rows are.
        """
        with answered():
            registered = registered_of(
                data_source, paths_of(data_source), parameters, allow_changed=self._allow_changed
            )
            frames = frames_of(registered, files=self._files, roots=self._roots)
        return FramesAdapter(frames, data_source.structure, metadata=node.metadata_, specs=node.specs)

    def from_uris(self, *data_uris: str, **parameters: Any) -> FramesAdapter:
        """The adapter of what the files hold, as the validator of bluesky-tiled-plugins asks for it.

        Raises
        ------
        HTTPException
            If the frames are not there.
        """
        return found_adapter(self._mimetype, data_uris, parameters, files=self._files, roots=self._roots)

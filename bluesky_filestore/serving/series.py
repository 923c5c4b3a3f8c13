"""The adapters for series of one-frame files as everybody registers them: one asset a frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tiled.adapters.sequence import FileSequenceAdapter

from bluesky_filestore.errors import AddressError
from bluesky_filestore.reading.files import ANYWHERE, Roots
from bluesky_filestore.reading.hdf5 import shared_files
from bluesky_filestore.reading.series import FrameFiles, file_reader, frame_shape_of

from .assets import path_of, uris_of
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
    """

    supports_lazy_assets = True
    """Tells Tiled that it may look up only the assets that a request needs."""
    file_indices_for_slice = FileSequenceAdapter.file_indices_for_slice
    """Tells Tiled which these are."""

    def __init__(self, mimetype: str, roots: Roots = ANYWHERE) -> None:
        self._read_file = file_reader(mimetype, "", hdf5=shared_files(), roots=roots)

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
        structure = data_source.structure
        with answered():
            uris = uris_of(data_source) if data_uris is None else data_uris

            def path_of_frame(frame: int) -> str:
                uri = uris[frame]
                if uri is None:
                    raise AddressError(f"the file of frame {frame} is not registered.")
                return path_of(uri)

            shape = tuple(structure.shape)
            frames = FrameFiles(
                path_of_frame,
                len(uris),
                _frame_shape(shape, len(uris), data_source.properties),
                structure.data_type.to_numpy_dtype(),
                self._read_file,
            )
        return FramesAdapter(lambda: frames, structure, metadata=node.metadata_, specs=node.specs)


def _frame_shape(shape: tuple[int, ...], count: int, properties: dict[str, Any] | None) -> tuple[int, ...]:
    """The shape of a file's frame: what the data source says, or what is left of the array's."""
    chunks = (properties or {}).get("chunks")
    if chunks:
        return tuple(sum(sizes) for sizes in chunks[1:])
    return frame_shape_of(shape, count)

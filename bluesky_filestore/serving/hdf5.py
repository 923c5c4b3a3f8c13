"""The adapter for HDF5 data sources as everybody registers them: files joined along the first axis, and a slice."""

from typing import TYPE_CHECKING, Any

from tiled.adapters.hdf5 import HDF5Adapter
from tiled.structures.core import StructureFamily

from bluesky_filestore.errors import AddressError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.hdf5_joined import JoinedDatasets
from bluesky_filestore.files.hdf5_layout import NoFramesError
from bluesky_filestore.files.hdf5_links import check_links
from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.files.hdf5_superblock import is_written_with_swmr
from bluesky_filestore.files.readable import ANYWHERE, Roots, parser_errors
from bluesky_filestore.files.registered import Registered, frames_of, joined_datasets
from bluesky_filestore.model.specs import HDF5

from .assets import path_of, paths_of, registered_of
from .found import found_structure
from .frames_adapter import FramesAdapter, answered

if TYPE_CHECKING:
    from tiled.structures.data_source import DataSource

__all__ = ["HDF5Adapters"]


class HDF5Adapters:
    """Makes the adapters of data sources of the mimetype ``application/x-hdf5``.

    Whole files, and what is not an array of numbers, are left to Tiled's own adapter.

    Parameters
    ----------
    roots : Roots
        Where files may lie, beside what Tiled allows.
    allow_changed : bool
        Whether files are read that are not those that were registered.
    """

    def __init__(self, roots: Roots = ANYWHERE, *, allow_changed: bool = False) -> None:
        self._roots, self._allow_changed = roots, allow_changed

    def from_catalog(self, data_source: "DataSource[Any]", node: Any, /, **parameters: Any) -> Any:
        """The adapter of a data source, as Tiled asks for it.

        Raises
        ------
        HTTPException
            If a file cannot be read.
        """
        with answered():
            paths = tuple(paths_of(data_source))
            joined = self._joined(paths, data_source, parameters)
            if joined is not None:
                said = {"metadata": dict(node.metadata_), "specs": node.specs}
                return _JoinedAdapter(joined, data_source, parameters=parameters, roots=self._roots, **said)
            for path in paths:
                check_links(path, self._roots)
            if parameters.get("swmr", True):
                # In one process a file is open with SWMR or without: as it is opened for the frames.
                parameters["swmr"] = any(map(is_written_with_swmr, paths))
        return HDF5Adapter.from_catalog(data_source, node, **parameters)

    def from_uris(self, *data_uris: str, **parameters: Any) -> Any:
        """The adapter of what the files hold, as the validator of bluesky-tiled-plugins asks for it.

        That is Tiled's own, in chunks for reading.

        Raises
        ------
        HTTPException
            If a file cannot be read.
        """
        with answered():
            paths = tuple(map(path_of, data_uris))
            for path in paths:
                check_links(path, self._roots)
            if not isinstance(parameters.get("dataset", ""), str):
                parameters["dataset"] = "/".join(parameters["dataset"])
            if parameters.get("swmr", True):
                parameters["swmr"] = any(map(is_written_with_swmr, paths))
            with parser_errors(paths[0]):
                stock = HDF5Adapter.from_uris(*data_uris, **parameters)
            if stock.structure_family != StructureFamily.array or 0 in stock.structure().shape:
                return stock
            shape, dtype = tuple(stock.structure().shape), stock.structure().data_type.to_numpy_dtype()
            registered = Registered(HDF5, parameters, {}, paths, shape, dtype)
            frames = frames_of(registered, roots=self._roots)
        return FramesAdapter(
            frames, found_structure(shape, dtype), metadata=stock.metadata(), limits=self._roots.limits
        )

    def _joined(
        self, paths: tuple[str, ...], data_source: "DataSource[Any]", parameters: dict[str, Any]
    ) -> JoinedDatasets | None:
        """What is asked for in our terms; None if it is nothing that we serve."""
        if data_source.structure_family != StructureFamily.array:
            return None
        registered = registered_of(data_source, paths, parameters, allow_changed=self._allow_changed)
        try:
            joined = joined_datasets(registered, shared_files(), self._roots)
            # Where only the file has none, it is another than was registered.
            is_empty = 0 in joined.dataset.layout(0).shape and 0 in joined.shape
            return None if is_empty else joined
        except (NoFramesError, AddressError):
            return None


class _JoinedAdapter(FramesAdapter):
    """Frames of files joined, with the attributes of the dataset among the metadata."""

    def __init__(
        self,
        joined: JoinedDatasets,
        data_source: "DataSource[Any]",
        *,
        metadata: Any,
        specs: Any,
        parameters: dict[str, Any],
        roots: Roots,
    ) -> None:
        super().__init__(joined.frames, data_source.structure, metadata=metadata, specs=specs, limits=roots.limits)
        self._name = joined.dataset.name
        self._path = path_of(next(asset.data_uri for asset in data_source.assets))
        self._options = {"roots": roots, **{name: parameters[name] for name in ("locking",) if name in parameters}}

    def metadata(self) -> Any:
        """The node's metadata and the attributes of the dataset in the first file."""
        with answered(), parser_errors(self._path), open_hdf5(self._path, **self._options) as file:
            attributes = dict(getattr(file.get(self._name), "attrs", {}))
        said = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
        return {**super().metadata(), **said}

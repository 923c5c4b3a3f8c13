"""Where the links of a whole HDF5 file lead."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import FileStoreError

from .hdf5_layout import other_files
from .hdf5_opening import open_hdf5
from .readable import Roots, told

if TYPE_CHECKING:
    import h5py

__all__ = ["check_links"]


def check_links(path: str, roots: Roots) -> None:
    """Refuse a file that has data from outside the roots.

    Raises
    ------
    ForbiddenFileError
        If an external link, a virtual dataset or external storage leads outside.
    UnreadableFileError
        If the file cannot be read.
    """
    real = roots.admit(path)
    with told(path), open_hdf5(real) as file:
        if roots.directories is None:
            return

        def problem(name: str, link: Any) -> FileStoreError | None:
            # HDF5 lets no error through; what is returned ends the visit.
            try:
                for other in _led_to(file, real, name, link):
                    roots.admit(other)
            except FileStoreError as error:
                return error
            return None

        found = file.visititems_links(problem)
    if found is not None:
        raise found


def _led_to(file: "h5py.File", path: str, name: str, link: Any) -> Iterator[str]:
    """The files that a link leads to, or the dataset behind it."""
    import h5py

    if isinstance(link, h5py.ExternalLink):
        yield str(Path(path).parent / link.filename)
    elif isinstance(link, h5py.HardLink):
        found = file[name]
        if isinstance(found, h5py.Dataset):
            yield from other_files(found, path)

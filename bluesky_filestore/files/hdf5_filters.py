"""The HDF5 filters that a dataset needs and this process does not have."""

from typing import TYPE_CHECKING

from bluesky_filestore.errors import UnreadableFileError

if TYPE_CHECKING:
    import h5py

__all__ = ["has_filter", "missing_filter_error", "missing_filters"]


def missing_filter_error(missing: str, path: str, dataset: str) -> UnreadableFileError:
    """The error that names filters which are not there, and the remedy."""
    return UnreadableFileError(
        f"dataset {dataset!r} of file {path} is compressed by HDF5 filter {missing}, which is not "
        f"installed here; expected one of h5py's or hdf5plugin's, or its plugin in HDF5_PLUGIN_PATH."
    )


def has_filter(number: int) -> bool:
    """Whether this process has an HDF5 filter, by its registered number."""
    import h5py
    import hdf5plugin  # noqa: F401 - importing it registers its filters

    return bool(h5py.h5z.filter_avail(number))


def missing_filters(dataset: "h5py.Dataset | None") -> str:
    """The numbers of the filters that a dataset needs and that are not there, with the names its writer gave them."""
    if not dataset:
        return ""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number) for number in range(settings.get_nfilters())]
    missing = [(code, name) for code, _, _, name in filters if not has_filter(code)]
    return ", ".join(f"{code} ({name.decode(errors='replace')})" if name else f"{code}" for code, name in missing)

"""The filters of an HDF5 dataset: which this process does not have, and to how many bytes a chunk unpacks.

A chunk that unpacks to another number of bytes than its shape says was written for frames of another shape, or cut
short. HDF5 takes what it gets, and what was in the memory before for what it does not get, without a word.
"""

import bz2
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from bluesky_filestore.errors import UnreadableFileError

if TYPE_CHECKING:
    import h5py

__all__ = ["DEFLATE", "FLETCHER", "SHUFFLE", "Filter", "filters_of", "has_filter", "missing_filter_error"]
__all__ += ["missing_filters", "unpacked_size"]

DEFLATE, SHUFFLE, FLETCHER = 1, 2, 3
Filter: TypeAlias = tuple[int, Sequence[int]]
"""Its registered number, and what it was set up with."""


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


def filters_of(dataset: "h5py.Dataset") -> list[Filter]:
    """The filters of a dataset, in the order in which they are applied when it is written."""
    settings = dataset.id.get_create_plist()
    return [(each[0], each[2]) for each in map(settings.get_filter, range(settings.get_nfilters()))]


def unpacked_size(filters: Sequence[Filter], mask: int, payload: bytes) -> int | None:
    """To how many bytes a chunk unpacks; None if that cannot be told, or it cannot be unpacked.

    Parameters
    ----------
    filters : sequence of Filter
        Those of the dataset.
    mask : int
        Which of them the chunk was written without, a bit for each.
    payload : bytes
        The chunk as it is in the file.
    """
    size, packed = len(payload), False
    for number in reversed(range(len(filters))):
        code, settings = filters[number]
        if mask >> number & 1 or code == SHUFFLE:
            continue
        if code == FLETCHER:
            size, payload = size - 4, payload[:-4]
        elif packed or code not in _SIZES:
            return None
        else:
            try:
                size, packed = _SIZES[code](payload, settings), True
            except (LookupError, OSError, ValueError, zlib.error):
                return None
    return size


def _of_deflate(payload: bytes, _: Sequence[int]) -> int:
    return len(zlib.decompressobj().decompress(payload))


def _of_bzip2(payload: bytes, _: Sequence[int]) -> int:
    return len(bz2.BZ2Decompressor().decompress(payload))


def _of_lzf(payload: bytes, _: Sequence[int]) -> int:
    size = at = 0
    while at < len(payload):
        control = payload[at]
        length = control >> 5
        if not length:
            size, at = size + control + 1, at + control + 2
            continue
        at += 2
        if length == 7:
            length, at = length + payload[at - 1], at + 1
        size += length + 2
    return size


def _of_bitshuffle(payload: bytes, settings: Sequence[int]) -> int:
    return _of_lz4(payload, settings) if len(settings) > 4 and settings[4] else len(payload)


def _of_lz4(payload: bytes, _: Sequence[int]) -> int:
    return int.from_bytes(payload[:8], "big")


def _of_blosc(payload: bytes, _: Sequence[int]) -> int:
    return int.from_bytes(payload[4:8], "little")


def _of_szip(payload: bytes, _: Sequence[int]) -> int:
    return int.from_bytes(payload[:4], "little")


def _of_zstd(payload: bytes, _: Sequence[int]) -> int:
    # RFC 8878, 3.1.1.1: not every frame says its size.
    has_one_segment, kind = payload[4] >> 5 & 1, payload[4] >> 6
    length = (has_one_segment, 2, 4, 8)[kind]
    if not length:
        raise ValueError("the size is not in the frame's header")
    at = 6 - has_one_segment + (0, 1, 2, 4)[payload[4] & 3]
    return int.from_bytes(payload[at : at + length], "little") + (256 if kind == 1 else 0)


def _of_scale_offset(payload: bytes, settings: Sequence[int]) -> int:
    # Some bits each, after a header of 21 bytes; it unpacks to as many elements as it was set up with, come what may.
    count, element, bits = settings[2], settings[4], int.from_bytes(payload[:4], "little")
    return count * element if len(payload) - 21 - count * bits // 8 in (0, 1) else len(payload)


_SIZES: Mapping[int, Callable[[bytes, Sequence[int]], int]] = {
    DEFLATE: _of_deflate,
    4: _of_szip,
    6: _of_scale_offset,
    307: _of_bzip2,
    32000: _of_lzf,
    32001: _of_blosc,
    32004: _of_lz4,
    32008: _of_bitshuffle,
    32015: _of_zstd,
}
"""By the filter's registered number; of others HDF5 says itself what is wrong, or nobody does."""


def missing_filters(dataset: "h5py.Dataset | None") -> str:
    """The numbers of the filters that a dataset needs and that are not there, with the names its writer gave them."""
    if not dataset:
        return ""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number) for number in range(settings.get_nfilters())]
    missing = [(code, name) for code, _, _, name in filters if not has_filter(code)]
    return ", ".join(f"{code} ({name.decode(errors='replace')})" if name else f"{code}" for code, name in missing)

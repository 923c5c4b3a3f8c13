"""One TIFF file a frame: read by the place of its pixels where they are plain, else by tifffile."""

import lzma
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import TruncatedFileError
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits

from .readable import bytes_of, read_at

if TYPE_CHECKING:
    import tifffile

__all__ = ["ONE_FILE", "plain_pixels", "read_tiff"]

ONE_FILE: dict[str, Any] = {"is_ome": False, "is_mmstack": False, "is_ndtiff": False}
"""For tifffile: a frame is in its own file, whatever others that names."""

# Names and numbers are those of the TIFF 6.0 specification.
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES, _PLANAR, _SAMPLE_FORMAT = 273, 277, 279, 284, 339
_TILE_WIDTH, _SUB_IFDS = 322, 330
_RELEVANT = {
    *(_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES),
    *(_PLANAR, _SAMPLE_FORMAT, _TILE_WIDTH, _SUB_IFDS),
}
_SHORT, _LONG = 3, 4
# Before it there is the header: no pixels are there.
_FIRST_OFFSET = 8
_KINDS = {1: "u", 2: "i", 3: "f"}
_BITS_OF_KIND = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_YCBCR = 6
# Vendors' formats keep pixels of several pages behind one entry, and say so in tags of their own.
_VENDORS = {34412, 33628, 33629, 50839, 51123, 65200}
_DESCRIPTION = 270
_FORMATS = (b"<", b"{", b"ImageJ=", b"SCANIMAGE", b"state.", b"MATROX", b"NIHImage", b"shape=")
# What tifffile writes of its own files.
_OWN_SHAPE = re.compile(rb'\{"shape": \[([\d, ]+)\]\}')


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Where the pixels of a plain file are."""

    offset: int
    """In bytes."""
    shape: tuple[int, ...]
    """Rows, columns, and the samples of a pixel if there are several."""
    dtype: np.dtype[np.generic]
    """Of a sample, in the file's byte order."""


class _Beginning:
    """A file whose first bytes are read at once: that is mostly all that is wanted before the pixels."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._bytes = os.pread(descriptor, 4096, 0)

    def at(self, offset: int, size: int) -> bytes:
        """The bytes from an offset on, fewer where the file ends."""
        if offset + size <= len(self._bytes):
            return self._bytes[offset : offset + size]
        # The memory is taken before anything is read, and a damaged header may speak of any size.
        length = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, max(0, min(size, length - offset)), offset)


def read_tiff(
    descriptor: int, path: str, into: NDArray[np.generic] | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.generic]:
    """The frame of an open file.

    Parameters
    ----------
    descriptor : int
        The file, open for reading.
    path : str
        Its name, for messages.
    into : array, optional
        Contiguous; where shape and dtype are those of plain pixels, it is filled and is the answer.
    limits : Limits
        How large the frame may be.

    Raises
    ------
    LimitError
        If it is larger.
    TruncatedFileError
        If pixels are missing, or were never written: their place is 0 then, and libraries give zeros.
    OSError, ValueError
        What tifffile raises, for files it cannot read.
    """
    pixels = plain_pixels(descriptor)
    if pixels is None:
        return _by_tifffile(descriptor, path, limits)
    if pixels.offset < _FIRST_OFFSET:
        raise _unwritten(path)
    size = math.prod(pixels.shape) * pixels.dtype.itemsize
    limits.check("unpacked_bytes", size, f"file {path} holds", "bytes of pixels")
    fits = into is not None and into.shape == pixels.shape and into.dtype == pixels.dtype
    values = into if into is not None and fits else _space_for(pixels, descriptor, path)
    read_at(descriptor, bytes_of(values), pixels.offset, path)
    return values


def _space_for(pixels: _Pixels, descriptor: int, path: str) -> NDArray[np.generic]:
    """An array for pixels, if the file can have them: a damaged header may speak of any size."""
    length, size = os.fstat(descriptor).st_size, math.prod(pixels.shape) * pixels.dtype.itemsize
    if length < pixels.offset + size:
        raise TruncatedFileError(
            f"file {path} ends after {length} bytes; expected {pixels.offset + size}: it was cut short."
        )
    return np.empty(pixels.shape, pixels.dtype)


def _by_tifffile(descriptor: int, path: str, limits: Limits) -> NDArray[np.generic]:
    import tifffile

    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        try:
            with tifffile.TiffFile(file, name=path, **ONE_FILE) as opened:
                if _has_gaps(opened):
                    raise _unwritten(path)
                size = sum(math.prod(series.shape) * series.dtype.itemsize for series in opened.series[:1])
                limits.check("unpacked_bytes", size, f"file {path} unpacks to", "bytes")
                _check_packed(opened, file)
                values: NDArray[np.generic] = opened.asarray()
        except (tifffile.TiffFileError, struct.error) as error:
            raise ValueError(f"it is no TIFF file that can be read ({error})") from error
        except MemoryError as error:
            raise ValueError(f"its header speaks of more pixels than fit into memory ({error})") from error
        except (zlib.error, lzma.LZMAError, RuntimeError) as error:
            # RuntimeError is what the codecs of imagecodecs raise.
            raise ValueError(f"its pixels cannot be unpacked ({error})") from error
    return values


def _has_gaps(file: "tifffile.TiffFile") -> bool:
    """Whether tifffile would give zeros for pages, strips or tiles of what it reads, as they have no place."""
    for page in file.series[0].pages if file.series else ():
        if page is None:
            return True
        # Fewer than the page's shape needs: tifffile leaves the rest at zero.
        if min(len(page.dataoffsets), len(page.databytecounts)) < math.prod((page.keyframe or page).chunked):
            return True
        places = zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(offset < _FIRST_OFFSET or not size for offset, size in places):
            return True
    return False


def _check_packed(file: "tifffile.TiffFile", stream: BinaryIO) -> None:
    """See that what is packed has the size that it should have: libraries make room for whatever comes out of it.

    Raises
    ------
    ValueError
        If it has not.
    """
    pages: Iterable[Any] = file.series[0].pages if file.series else ()
    length = stream.seek(0, os.SEEK_END)
    for page in pages:
        keyframe = page.keyframe or page
        if max(keyframe.nbytes, math.prod(keyframe.chunks) * keyframe.dtype.itemsize) > _most_of(length):
            raise ValueError(f"its header speaks of {keyframe.nbytes} bytes; expected fewer in a file of {length}")
        packed = keyframe.compression
        if packed == 1:
            continue
        size = math.prod(keyframe.chunks) * keyframe.dtype.itemsize
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            # Nothing becomes much more by being packed.
            if count > 2 * size + _MOST_OVERHEAD:
                raise ValueError(f"a piece of {size} bytes is packed in {count}; expected fewer")
            if packed in _UNPACKERS and count * _HIGHEST_RATIO > _MOST_UNSEEN:
                stream.seek(offset)
                if len(_UNPACKERS[packed](stream.read(count), size + 1)) > size:
                    raise ValueError(f"a piece of {size} bytes unpacks to more")


def _most_of(length: int) -> int:
    """To how many bytes a file may unpack: memory is taken for all that its header speaks of."""
    return max(_MOST_UNSEEN, length * _HIGHEST_RATIO)


def _inflated(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj().decompress(packed, most)


def _unpacked_lzma(packed: bytes, most: int) -> bytes:
    return lzma.LZMADecompressor().decompress(packed, most)


# By the number of the compression; those whose result may be a thousand times and more as long.
_UNPACKERS = {8: _inflated, 32946: _inflated, 34925: _unpacked_lzma}
_MOST_OVERHEAD, _HIGHEST_RATIO, _MOST_UNSEEN = 4096, 1032, 2**28


def _unwritten(path: str) -> TruncatedFileError:
    return TruncatedFileError(
        f"file {path} has no data for all of its pixels: a strip or tile has no place in it, so it was never written, "
        f"or the file was cut short; expected pixels, since zeros are none."
    )


def plain_pixels(descriptor: int) -> _Pixels | None:
    """Where the pixels are, if the file has one page of them one behind the other; else None."""
    beginning = _Beginning(descriptor)
    header = beginning.at(0, 8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(header[:4])
    if order is None or len(header) < 8:
        return None
    (directory,) = struct.unpack(order + "I", header[4:])
    # Area detector's files have some 20 entries; with the first read of 1 kB the directory is nearly always whole.
    block = beginning.at(directory, 1024)
    if len(block) < 2:
        return None
    (entries,) = struct.unpack_from(order + "H", block)
    size = 2 + 12 * entries + 4
    if len(block) < size:
        block = beginning.at(directory, size)
        if len(block) < size:
            return None
    if any(block[size - 4 : size]):
        return None
    tags: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, count, value in struct.iter_unpack(order + "HHI4s", block[2 : size - 4]):
        if tag in _VENDORS:
            return None
        if tag in _RELEVANT or tag == _DESCRIPTION:
            tags[tag] = (kind, count, value)
    description = tags.pop(_DESCRIPTION, None)
    values = _values(beginning, tags, order)
    pixels = None if values is None else _contiguous(values, order)
    if pixels is None or description is None or _describes(beginning, description, order, pixels.shape):
        return pixels
    return None


def _describes(beginning: _Beginning, entry: tuple[int, int, bytes], order: str, shape: tuple[int, ...]) -> bool:
    """Whether a description leaves it at these pixels: of some formats tifffile takes several pages from it."""
    _, count, value = entry
    text = value[:count] if count <= 4 else beginning.at(struct.unpack(order + "I", value)[0], count)
    said = _OWN_SHAPE.fullmatch(text.strip(b"\0 "))
    if said is not None:
        return tuple(int(size) for size in said[1].split(b",")) == shape
    return not text.lstrip().startswith(_FORMATS)


def _values(
    beginning: _Beginning, tags: dict[int, tuple[int, int, bytes]], order: str
) -> dict[int, tuple[int, ...]] | None:
    """The values of tags of whole numbers."""
    values = {}
    for tag, (kind, count, value) in tags.items():
        if kind not in (_SHORT, _LONG):
            return None
        size = (2 if kind == _SHORT else 4) * count
        raw = value[:size] if size <= 4 else beginning.at(struct.unpack(order + "I", value)[0], size)
        if len(raw) < size:
            return None
        values[tag] = struct.unpack(f"{order}{count}{'H' if kind == _SHORT else 'I'}", raw)
    return values


def _contiguous(tags: dict[int, tuple[int, ...]], order: str) -> _Pixels | None:
    samples = tags.get(_SAMPLES, (1,))[0]
    kind = _KINDS.get(_only(tags.get(_SAMPLE_FORMAT, (1,))), "")
    bits = _only(tags.get(_BITS, (1,)))
    plain = (
        not tags.keys() & {_TILE_WIDTH, _SUB_IFDS}
        and {_WIDTH, _LENGTH, _STRIP_OFFSETS, _STRIP_BYTES} <= tags.keys()
        and tags.get(_COMPRESSION, (1,)) == (1,)
        and tags.get(_FILL_ORDER, (1,)) == (1,)
        and tags.get(_PHOTOMETRIC, (1,)) != (_YCBCR,)
        and (samples == 1 or tags.get(_PLANAR, (1,)) == (1,))
        and bits in _BITS_OF_KIND.get(kind, ())
    )
    if not plain:
        return None
    shape = (tags[_LENGTH][0], tags[_WIDTH][0], *((samples,) if samples > 1 else ()))
    dtype = np.dtype(f"{order}{kind}{bits // 8}")
    offsets, sizes = tags[_STRIP_OFFSETS], tags[_STRIP_BYTES]
    row = shape[1] * samples * dtype.itemsize
    joined = all(at + size == after for at, size, after in zip(offsets, sizes, offsets[1:], strict=False))
    # One strip is whole whatever its count of bytes says: some writers say 0.
    if len(offsets) > 1 and not (joined and sum(sizes) == shape[0] * row):
        return None
    return _Pixels(offsets[0], shape, dtype)


def _only(values: Iterable[int]) -> int:
    """The one value that all samples share; 0 if they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else 0

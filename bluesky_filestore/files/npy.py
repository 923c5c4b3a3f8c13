"""One NPY file a frame: its header is believed as far as the file is long."""

import math
import os
import re
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.errors import TruncatedFileError, UnreadableFileError
from bluesky_filestore.model.limits import DEFAULT_LIMITS, Limits

from .readable import bytes_of, read_at

__all__ = ["read_npy"]

# As numpy writes it. Read so it needs no parser of Python, which of several threads at a time may fail one (3.11).
_PLAIN = re.compile(
    rb"\{'descr': '([<>|][biufc]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \}\s*"
)


def read_npy(
    descriptor: int, path: str, into: NDArray[np.generic] | None = None, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.generic]:
    """The array of an open file.

    Parameters
    ----------
    descriptor : int
        The file, open for reading.
    path : str
        Its name, for messages.
    into : array, optional
        Not used.
    limits : Limits
        How large it may be.

    Raises
    ------
    LimitError
        If it is larger.
    TruncatedFileError
        If it is shorter than its header says, of which the memory would be taken.
    UnreadableFileError
        If it holds several arrays, or objects.
    ValueError
        If it is no such file.
    """
    length = os.fstat(descriptor).st_size
    if not length:
        raise TruncatedFileError(f"file {path} was cut short: it is empty.")
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        if file.read(2) == b"PK":
            raise UnreadableFileError(f"file {path} holds several arrays (it is of numpy's npz); expected one, of npy.")
        file.seek(0)
        shape, in_columns, dtype = _header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise UnreadableFileError(f"file {path} holds objects of Python's, which are not loaded; expected numbers.")
    end = begin + math.prod(shape) * dtype.itemsize
    if length < end:
        raise TruncatedFileError(f"file {path} ends after {length} bytes; expected {end}: it was cut short.")
    # It may be a file of holes, which is as long as it says and takes no room on the disk.
    limits.check("unpacked_bytes", end - begin, f"file {path} holds", "bytes")
    values = np.empty(shape, dtype, order="F" if in_columns else "C")
    read_at(descriptor, bytes_of(values.T if in_columns else values), begin, path)
    return values


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether its columns come first, and dtype."""
    # Another version than these two has names of fields in it, which frames have not.
    is_first = np.lib.format.read_magic(file) == (1, 0)
    begin, size = file.tell(), 2 if is_first else 4
    plain = _PLAIN.fullmatch(file.read(int.from_bytes(file.read(size), "little")))
    if plain is not None:
        shape = tuple(int(number) for number in plain[3].split(b",") if number.strip())
        return shape, plain[2] == b"True", np.dtype(plain[1].decode())
    file.seek(begin)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    return shape, in_columns, dtype

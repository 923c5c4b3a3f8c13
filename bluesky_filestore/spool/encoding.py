"""Documents as bytes and back, without loss of what matters: msgpack with a few types of our own.

Whatever a document holds can be encoded, so that nothing has to be turned away while an experiment runs.
"""

import datetime
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

__all__ = ["decode", "encode"]

_BIG_INTEGER, _ARRAY, _TIME, _DATE = 1, 2, 3, 4


def encode(doc: Mapping[str, Any]) -> bytes:
    """A document as bytes.

    Numbers of numpy become Python's, tuples become lists; arrays, bytes, dates, NaN and integers of any size stay what
    they are. What is of no such type is kept as its text.

    Examples
    --------
    >>> decode(encode({"image": np.eye(2, dtype="u1"), "count": 2**70}))
    {'image': array([[1, 0],
           [0, 1]], dtype=uint8), 'count': 1180591620717411303424}
    """
    packed: bytes = _packed(doc)
    return packed


def decode(body: bytes) -> dict[str, Any]:
    """A document from its bytes."""
    try:
        doc: dict[str, Any] = _unpacked(body)
    except TypeError:
        # A tuple was a key somewhere, and is a list now. To look at each key takes its time, and this is rare.
        doc = _unpacked(body, object_pairs_hook=lambda pairs: {_key(key): value for key, value in pairs})
    return doc


def _unpacked(body: bytes, **options: Any) -> Any:
    return msgpack.unpackb(
        body, ext_hook=_from_extension, strict_map_key=False, unicode_errors="surrogatepass", **options
    )


def _key(key: Any) -> Any:
    return tuple(map(_key, key)) if isinstance(key, list) else key


def _packed(value: Any) -> Any:
    return msgpack.packb(value, default=_known_type, unicode_errors="surrogatepass")


def _known_type(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item() if not isinstance(value, np.void | np.datetime64 | np.timedelta64) else str(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.kind in "VmM":
            return value.tolist()
        return msgpack.ExtType(_ARRAY, _packed([value.dtype.str, value.shape, value.tobytes()]))
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INTEGER, str(value).encode())
    if isinstance(value, datetime.datetime):
        return msgpack.ExtType(_TIME, value.isoformat().encode())
    if isinstance(value, datetime.date):
        return msgpack.ExtType(_DATE, value.isoformat().encode())
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _from_extension(code: int, data: bytes) -> Any:
    match code:
        case 1:
            return int(data)
        case 2:
            dtype, shape, values = msgpack.unpackb(data)
            # A copy: what is read from bytes cannot be written to, and whoever gets it may want to.
            return np.frombuffer(values, dtype).reshape(shape).copy()
        case 3:
            return datetime.datetime.fromisoformat(data.decode())
        case 4:
            return datetime.date.fromisoformat(data.decode())
    return msgpack.ExtType(code, data)

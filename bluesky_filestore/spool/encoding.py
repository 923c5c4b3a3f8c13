"""Documents as bytes and back, without loss of what matters: msgpack with a few types of our own.

Whatever a document holds is encoded, so that nothing has to be turned away while an experiment runs. A value of a type
that we cannot keep becomes the nearest that we can, mostly its text, and the bytes say so: `read` tells of it.
"""

import datetime
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from bluesky_filestore.errors import DocumentError

try:
    # Not by msgpack's own names: msgpack_numpy, which bluesky-kafka has patch them, puts another format behind these.
    from msgpack._cmsgpack import Packer, Unpacker, unpackb
except ImportError:
    from msgpack.fallback import Packer, Unpacker, unpackb

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Unpacker", "decode", "encode", "of_msgpack_numpy", "read", "text_of", "unpackb"]

_BIG_INTEGER, _ARRAY, _TIME, _DATE, _CHANGED, _MASKED = 1, 2, 3, 4, 5, 6
_DEEPEST = 200
_MOST_SHOWN = 80
# A key of msgpack_numpy's.
_OF_MSGPACK_NUMPY = b"\xc4\x02nd"
_UNITS_OF_PYTHON = ("D", "h", "m", "s", "ms", "us")


class _Numpy:
    """Stands for numpy until it is needed: who only spools has no need to load it before a document does."""

    def __getattr__(self, name: str) -> Any:
        import numpy

        globals()["np"] = numpy
        return getattr(numpy, name)


globals()["np"] = _Numpy()


def encode(doc: Mapping[str, Any]) -> bytes:
    """A document as bytes; it never fails.

    Numbers of numpy become Python's, tuples become lists; arrays, masked ones too, bytes, dates, NaN and integers of
    any size stay what they are. What is of no such type is kept as its text, or as the number next to it, with a note.

    Examples
    --------
    >>> decode(encode({"image": np.eye(2, dtype="u1"), "count": 2**70}))
    {'image': array([[1, 0],
           [0, 1]], dtype=uint8), 'count': 1180591620717411303424}
    """
    try:
        packed: bytes = _packed(doc)
    except Exception:  # noqa: BLE001 - whatever an object of somebody's raises when it is looked at
        # It is nested too deeply, or in itself, or one of its values cannot even be looked at.
        packed = _packed(_looked_at(doc, _DEEPEST))
    return packed


def decode(body: bytes) -> dict[str, Any]:
    """A document from its bytes; raises as `read` does."""
    return read(body)[0]


def read(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """A document from its bytes, and what became of the values that could not be kept as they were.

    Examples
    --------
    >>> read(encode({"value": np.complex64(2j)}))
    ({'value': '2j'}, ["a value of type complex64 is kept as '2j'"])

    Raises
    ------
    DocumentError
        If the bytes are none of a document.
    """
    changes: list[str] = []
    try:
        doc = _read(body, changes)
    except Exception as error:
        # msgpack, numpy and datetime have their own errors each.
        raise DocumentError(f"{_shown(body)} are no document ({error!r}); expected one of the spool's.") from error
    if not isinstance(doc, dict):
        raise DocumentError(f"{_shown(body)} are a {type(doc).__name__}; expected a document.")
    return doc, changes


def _shown(body: Any) -> str:
    return f"{len(body):,} bytes that begin with {body[:16]!r}" if isinstance(body, bytes) else f"no bytes: {body!r}"


def _read(body: bytes, changes: list[str]) -> Any:

    def from_extension(code: int, data: bytes) -> Any:
        return _from_extension(code, data, changes)

    try:
        # Earlier versions kept values as msgpack_numpy does where that had patched msgpack.
        hook = of_msgpack_numpy if _OF_MSGPACK_NUMPY in body else None
        return _unpacked(body, from_extension, object_hook=hook)
    except TypeError:
        # A tuple was a key somewhere, and is a list now. To look at each key takes its time, and this is rare.
        changes.clear()
        return _unpacked(
            body, from_extension, object_pairs_hook=lambda pairs: {_key(key): value for key, value in pairs}
        )


def _unpacked(body: bytes, ext_hook: Callable[[int, bytes], Any], **hooks: Any) -> Any:
    return unpackb(body, ext_hook=ext_hook, strict_map_key=False, unicode_errors="surrogatepass", **hooks)


def of_msgpack_numpy(found: dict[Any, Any]) -> Any:
    """A value of numpy, or a complex number, as msgpack_numpy packs it; anything else as it is."""
    try:
        match found:
            case {b"complex": True, b"data": str() as number}:
                return complex(number)
            case {b"nd": True, b"type": kind, b"shape": shape, b"data": bytes() as data}:
                fields = [_field(each) for each in kind] if isinstance(kind, list) else kind
                is_of_objects = found.get(b"kind") == b"O"
                return found if is_of_objects else np.frombuffer(data, fields).reshape(shape).copy()
            case {b"nd": False, b"type": kind, b"data": bytes() as data}:
                return np.frombuffer(data, kind)[0]
    except (TypeError, ValueError, IndexError, AttributeError):
        # It only looks like one.
        return found
    return found


def _field(entry: Any) -> tuple[Any, ...]:
    name, kind, *shape = (part.decode() if isinstance(part, bytes) else part for part in entry)
    return (name, [_field(each) for each in kind] if isinstance(kind, list) else kind, *map(tuple, shape))


def _key(key: Any) -> Any:
    if isinstance(key, np.ndarray):
        return _key(key.tolist())
    return tuple(map(_key, key)) if isinstance(key, list) else key


def _packed(value: Any) -> Any:
    return Packer(default=_known_type, unicode_errors="surrogatepass").pack(value)


def _known_type(value: Any) -> Any:
    """What is packed for a value that msgpack does not know: once, so it must be of a type that it does know."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        return _scalar(value)
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INTEGER, hex(value).encode())
    if isinstance(value, datetime.datetime):
        return msgpack.ExtType(_TIME, value.isoformat().encode())
    if isinstance(value, datetime.date):
        return msgpack.ExtType(_DATE, value.isoformat().encode())
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return _changed(value, text_of(value))


def _scalar(value: "np.generic[Any]") -> Any:
    if isinstance(value, np.void | np.datetime64 | np.timedelta64):
        return _changed(value, str(value))
    item = value.item()
    if isinstance(item, bool | int | float | str | bytes) and not isinstance(item, np.generic):
        return item
    if isinstance(value, np.floating):
        # More digits than Python has: a number that is rounded is of more use than a text.
        return float(value) if float(value) == value else _changed(value, float(value))
    return _changed(value, str(value))


def _array(value: "np.ndarray[Any, Any]") -> Any:
    if isinstance(value, np.ma.MaskedArray):
        if value is np.ma.masked:
            return _changed(value, None)
        parts = [np.asarray(value.filled()), np.ma.getmaskarray(value)]
        return msgpack.ExtType(_MASKED, _packed(parts)) if parts[0].dtype.kind in "biufcUS" else _list(value)
    if value.dtype.kind in "fc" and value.dtype.itemsize > (8 if value.dtype.kind == "f" else 16):
        narrow = value.astype("f8" if value.dtype.kind == "f" else "c16")
        is_exact = bool(np.array_equal(narrow.astype(value.dtype), value, equal_nan=True))
        return _array(narrow) if is_exact else _changed(value, narrow)
    if value.dtype.hasobject or value.dtype.kind in "VmM":
        return _list(value)
    return msgpack.ExtType(_ARRAY, _packed([value.dtype.str, value.shape, value.tobytes()]))


def _list(value: "np.ndarray[Any, Any]") -> Any:
    """An array of what has no bytes of its own, as a list."""
    if value.dtype.hasobject:
        return value.tolist()
    if value.dtype.kind == "M" and np.datetime_data(value.dtype)[0] in _UNITS_OF_PYTHON:
        return (
            value.astype(object).tolist() if np.isfinite(value).all() else _changed(value, value.astype(str).tolist())
        )
    return _changed(value, value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist())


def _changed(value: Any, replacement: Any) -> Any:
    return msgpack.ExtType(_CHANGED, _packed([type(value).__name__, replacement]))


def text_of(value: Any) -> str:
    """The text of whatever it is, which may have none."""
    try:
        return str.__str__(str(value))
    except Exception as error:  # noqa: BLE001 - it is somebody else's
        return f"<{type(value).__name__} that has no text: {type(error).__name__}>"


def _looked_at(value: Any, depth: int) -> Any:
    """The same value in types that can surely be packed, each piece by itself."""
    try:
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            value = value.tolist()
        if isinstance(value, Mapping | list | tuple | set | frozenset) and not depth:
            return _changed(value, text_of(value))
        if isinstance(value, Mapping):
            return {_looked_at_key(key): _looked_at(entry, depth - 1) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_looked_at(entry, depth - 1) for entry in value]
        return unpackb(_packed(value), unicode_errors="surrogatepass")
    except Exception:  # noqa: BLE001 - whatever it is, it must not cost the rest of the document
        return _changed(value, text_of(value))


def _looked_at_key(key: Any) -> Any:
    if isinstance(key, str | bytes | bool | int | float | None):
        return key
    return text_of(key)


def _from_extension(code: int, data: bytes, changes: list[str]) -> Any:
    def from_extension(inner: int, of_inner: bytes) -> Any:
        return _from_extension(inner, of_inner, changes)

    match code:
        case 1:
            return int(data, 0)
        case 2:
            dtype, shape, values = unpackb(data)
            # A copy: what is read from bytes cannot be written to, and whoever gets it may want to.
            # Of no bytes there is no element, whatever the shape says.
            return np.frombuffer(values, dtype).reshape(shape).copy() if values else np.empty(0, dtype).reshape(shape)
        case 3:
            return datetime.datetime.fromisoformat(data.decode())
        case 4:
            return datetime.date.fromisoformat(data.decode())
        case 5:
            kind, replacement = _unpacked(data, from_extension)
            changes.append(f"a value of type {kind} is kept as {repr(replacement)[:_MOST_SHOWN]}")
            return replacement
        case 6:
            values, mask = _unpacked(data, from_extension)
            return np.ma.masked_array(values, mask)
    return msgpack.ExtType(code, data)

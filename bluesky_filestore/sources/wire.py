"""Documents out of the bytes that others send or keep, whoever wrote them: nothing in them is carried out.

0MQ messages of bluesky are pickles by default, and a pickle may call anything when it is loaded. Here one may only make
what documents are made of; any other object becomes its value, where it wraps one as enumerations do, or a name.
"""

import datetime
import io
import json
import pickle
import re
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from event_model import DocumentNames

from bluesky_filestore.errors import SourceError
from bluesky_filestore.spool.encoding import of_msgpack_numpy, unpackb

__all__ = ["NAMES", "document_in", "from_msgpack", "named", "numpy_hook", "unpickled"]

NAMES = frozenset(each.name for each in DocumentNames if each.name not in ("bulk_events", "bulk_datum"))
"""The documents there are."""

_MODULES_OF_NUMPY = ("numpy", "numpy.core", "numpy._core", "numpy.ma", "numpy.dtypes")
_OF_NUMPY = re.compile(
    r"_reconstruct|_frombuffer|scalar|ndarray|dtype|_mareconstruct|MaskedArray|bool_?|str_|bytes_|void|u?int\d+|float\d+"
    r"|complex\d+|c?longdouble|(datetime|timedelta)64|\w+DType"
)
_PLAIN: Mapping[str, Any] = {
    **{
        f"builtins.{each.__name__}": each
        for each in (set, frozenset, complex, bytearray, list, dict, tuple, str, int, float, bool, bytes, slice, object)
    },
    **{f"datetime.{name}": getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")},
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "collections.deque": deque,
    "uuid.UUID": uuid.UUID,
    "decimal.Decimal": Decimal,
    "fractions.Fraction": Fraction,
    **{
        f"{module}.{kind}": plain
        for module in ("pathlib", "pathlib._local")
        for kind, plain in (
            ("PosixPath", PurePosixPath),
            ("PurePosixPath", PurePosixPath),
            ("WindowsPath", PureWindowsPath),
            ("PureWindowsPath", PureWindowsPath),
        )
    },
}
_PLAIN_VALUES = (str, int, float, bytes, bool)


class _Unpickler(pickle.Unpickler):
    """Makes what documents are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("_codecs", "encode"), ("copyreg", "_reconstructor"), ("copyreg", "__newobj__")):
            return super().find_class(module, name)
        is_of_numpy = not {module, module.rpartition(".")[0]}.isdisjoint(_MODULES_OF_NUMPY)
        if is_of_numpy and _OF_NUMPY.fullmatch(name):
            return super().find_class(module, name)
        module = {"__builtin__": "builtins"}.get(module, module)
        return _PLAIN.get(f"{module}.{name}") or _stand_in(f"{module}.{name}")


def _stand_in(kind: str) -> type:
    """What is made instead of an object of a type that documents are not made of."""

    def new(cls: type, *values: Any) -> Any:
        if len(values) == 1 and isinstance(values[0], _PLAIN_VALUES):
            return values[0]
        return object.__new__(cls)

    members = {
        "__new__": new,
        "__init__": lambda self, *values: None,
        "__setstate__": lambda self, state: None,
        "__repr__": lambda self: f"<{kind}>",
        # Of lists, sets and dictionaries that were subclassed.
        "append": lambda self, value: None,
        "extend": lambda self, values: None,
        "__setitem__": lambda self, key, value: None,
    }
    return type(kind.rpartition(".")[2], (), members)


def unpickled(body: bytes) -> Any:
    """What a pickle holds, without anything being called that is not needed for a document."""
    return _Unpickler(io.BytesIO(body)).load()


def numpy_hook(found: dict[Any, Any]) -> Any:
    """A value of numpy that msgpack_numpy packed; anything else as it is.

    msgpack_numpy itself loads arrays of objects with pickle, which may call anything.
    """
    is_of_objects = b"nd" in found and found.get(b"kind") == b"O"
    return unpickled(found[b"data"]) if is_of_objects else of_msgpack_numpy(found)


def from_msgpack(body: bytes) -> Any:
    """What a message of msgpack holds, with the values of numpy that msgpack_numpy knows."""
    return unpackb(body, object_hook=numpy_hook, strict_map_key=False, unicode_errors="surrogatepass")


def document_in(body: bytes) -> Any:
    """What bytes hold that are a pickle, JSON or msgpack: they tell by how they begin.

    Raises
    ------
    SourceError
        If they are none of these.
    """
    read: Callable[[bytes], Any] = from_msgpack
    # A pickle begins with its protocol; a map of msgpack that begins so would be an empty one.
    if body[:1] == b"\x80" and body[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        read = unpickled
    elif body[:1] in (b"{", b"["):
        read = json.loads
    try:
        return read(body)
    except Exception as error:
        raise SourceError(
            f"{len(body):,} bytes that begin with {body[:16]!r} are no document ({error!r}); expected a pickle, JSON "
            f"or msgpack."
        ) from error


def named(item: Any) -> tuple[str, dict[str, Any]]:
    """A document and what it is, of ``[name, doc]`` or ``{"name": name, "doc": doc}``.

    Raises
    ------
    SourceError
        If it is neither.
    """
    match item:
        case [str() as name, dict() as doc] | {"name": str() as name, "doc": dict() as doc} if name in NAMES:
            return name, doc
    raise SourceError(
        f'{repr(item)[:80]} is no document of bluesky; expected ["name", {{...}}] or {{"name": ..., "doc": {{...}}}} '
        f"with one of the names {', '.join(sorted(NAMES))}."
    )

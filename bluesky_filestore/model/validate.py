"""Whether a document is of its schema.

event-model's validators take 0.2 ms for an event of 20 keys. What is evidently of its schema is not shown to them: a
few type checks imply all that the schemas of the frequent documents ask for.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from event_model import schema_validators

__all__ = ["schema_fault"]

_MOST_WORDS = 300
_VALIDATORS = MappingProxyType({name.value: validator for name, validator in schema_validators.items()})
_EVENT_ENTRIES = frozenset({"descriptor", "seq_num", "uid", "data", "filled", "time", "timestamps"})
_DATUM_ENTRIES = frozenset({"datum_id", "datum_kwargs", "resource"})


def schema_fault(name: str, doc: Any) -> str:
    """What is wrong with a document by event-model's schema of today; empty if nothing is.

    Parameters
    ----------
    name : str
        The name the document came under.
    doc : Any
        What came.

    Returns
    -------
    str
        The place in the document and the words of the schema's validator. Forms that earlier schemas had, and that
        are read as today's, are no fault.

    Examples
    --------
    >>> schema_fault("datum", {"datum_id": "a/0", "resource": "a", "datum_kwargs": {}})
    ''
    >>> schema_fault("datum", {"datum_id": 0, "resource": "a", "datum_kwargs": {}})
    "datum_id: 0 is not of type 'string'"
    """
    if not isinstance(doc, Mapping):
        return f"it is a {type(doc).__name__}; expected a mapping"
    evidently = _EVIDENTLY.get(name)
    if (evidently is not None and evidently(doc)) or _is_older(name, doc):
        return ""
    if name not in _VALIDATORS:
        return f"there is no document {name!r}"
    try:
        return _first_fault(name, doc)
    except Exception as error:  # noqa: BLE001 - a validator raises at keys that are no text, among others
        return f"it cannot be checked ({error!r})"[:_MOST_WORDS]


def _first_fault(name: str, doc: Mapping[str, Any]) -> str:
    for error in _VALIDATORS[name].iter_errors(doc):
        place = [str(part) for part in error.absolute_path]
        if name == "descriptor" and place[-1:] == ["external"] and error.instance is None:
            continue
        words = f"{'.'.join(place)}: {error.message}" if place else error.message
        return words if len(words) <= _MOST_WORDS else f"{words[:_MOST_WORDS]}..."
    return ""


def _is_older(name: str, doc: Mapping[str, Any]) -> bool:
    """Whether it is of a form that has no schema any more."""
    # StreamResources from before event-model 1.20 were like Resources; bulk forms are unpacked and checked one by one.
    return (name == "stream_resource" and "mimetype" not in doc and "spec" in doc) or name.startswith("bulk_")


def _is_event(doc: Mapping[str, Any]) -> bool:
    return (
        type(doc) is dict
        and _EVENT_ENTRIES.issuperset(doc)
        and type(doc.get("uid")) is str
        and type(doc.get("descriptor")) is str
        and type(doc.get("seq_num")) is int
        and type(doc.get("time")) is float
        and type(doc.get("data")) is dict
        and type(doc.get("timestamps")) is dict
        and _is_filled(doc.get("filled", {}))
    )


def _is_filled(value: Any) -> bool:
    return type(value) is dict and all(type(entry) is bool or type(entry) is str for entry in value.values())


def _is_datum(doc: Mapping[str, Any]) -> bool:
    return (
        type(doc) is dict
        and _DATUM_ENTRIES.issuperset(doc)
        and type(doc.get("datum_id")) is str
        and type(doc.get("resource")) is str
        and type(doc.get("datum_kwargs")) is dict
    )


def _is_stream_datum(doc: Mapping[str, Any]) -> bool:
    return (
        type(doc) is dict
        and type(doc.get("uid")) is str
        and type(doc.get("stream_resource")) is str
        and type(doc.get("descriptor")) is str
        and _is_range(doc.get("indices"))
        and _is_range(doc.get("seq_nums"))
    )


def _is_range(value: Any) -> bool:
    return type(value) is dict and type(value.get("start")) is int and type(value.get("stop")) is int


_EVIDENTLY: Mapping[str, Callable[[Mapping[str, Any]], bool]] = MappingProxyType(
    {"event": _is_event, "datum": _is_datum, "stream_datum": _is_stream_datum}
)

"""Whether the documents of a run are those of another place."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .normalize import unpacked

__all__ = ["differences", "singles"]

_SHOWN = 60
_MISSING = object()


def differences(source: list[tuple[str, Any]], target: list[tuple[str, Any]]) -> list[str]:
    """What is otherwise in the documents of a run than in the source, or is not there, in words.

    Where a resource or datum comes is no difference, nor one that no event refers to.
    """
    words = []
    here, there = _by_uid(source), _by_uid(target)
    used = {
        value for name, doc in source if name == "event" for value in doc["data"].values() if isinstance(value, str)
    }
    for known, (name, doc) in here.items():
        if known in there:
            words += [f"{name} {known}: {each}" for each in _unlike(doc, there[known][1], "")]
        elif name not in ("datum", "resource") or known in used:
            words.append(f"{name} {known} is not in the catalog")
    words += [f"{name} {known} is in the catalog alone" for known, (name, _) in there.items() if known not in here]
    order = [[known for known, (name, _) in each.items() if name == "event"] for each in (here, there)]
    if sorted(order[0]) == sorted(order[1]) and order[0] != order[1]:
        words.append("events come in another order in the catalog")
    return words


def _unlike(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            yield from _unlike(
                one.get(key, _MISSING), other.get(key, _MISSING), f"{where}.{key}" if where else str(key)
            )
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _unlike(*pair, f"{where}[{number}]")
    elif not (one == other or (one != one and other != other)):
        # What is not even itself is NaN.
        yield f"{where} is {_shown(other)}; expected {_shown(one)}"


def _shown(value: Any) -> str:
    return "not there" if value is _MISSING else repr(value)[:_SHOWN]


def _by_uid(pairs: list[tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {doc["datum_id"] if name == "datum" else doc["uid"]: (name, doc) for name, doc in pairs}


def singles(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Documents one by one, without pages and numpy's types: as `differences` compares them."""
    for name, doc in pairs:
        for single_name, single in unpacked(name, doc):
            yield single_name, _listed(single)


def _listed(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _listed(item) for key, item in value.items()}
        case list() | tuple():
            return [_listed(item) for item in value]
        case np.ndarray() | np.generic():
            return value.tolist()
    return value

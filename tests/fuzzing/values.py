"""Values of documents and registrations, changed: other types, odd numbers and texts, what is missing or too much."""

import datetime
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31, 2**32 - 1, 2**63 - 1, 2**63, -(2**63), 2**70, 10**30, 0.5, -0.0, 1e308, 5.0)
_ODD_NUMBERS = (math.nan, math.inf, -math.inf)
_TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "/",
    "//",
    "a/b",
    "%d",
    "%s",
    "%800000000d",
    "%(x)s",
    "{}",
    "{:09999999d}",
)
_MORE_TEXTS = (
    "\0",
    "a\0b",
    "\x1b[2J",
    "\ud800",
    "é\u202e",
    "x" * 100_000,
    "1:3",
    "::0",
    "[0",
    "<u2",
    "O",
    "nan",
    "file://",
)
_KEYS = ("uid", "run_start", "time", "data", "shape", "rows", "dtype", "chunks", "extra", "", "a.b", "$x", "\n")


def _odd(rng: random.Random, is_json: bool) -> Any:
    kind = rng.randrange(8 if is_json else 12)
    match kind:
        case 0:
            return rng.choice(_NUMBERS)
        case 1:
            return rng.choice(_ODD_NUMBERS)
        case 2 | 3:
            return rng.choice(_TEXTS + _MORE_TEXTS)
        case 4:
            return rng.choice((None, True, False))
        case 5:
            return rng.choice(([], [[]], {}, {"": {}}, [None], [0, 1], ["a"], [[0, 0, 10**12, 1]], [1, "a", None, {}]))
        case 6:
            return _deep(rng.choice((3, 100, 300)), rng.random() < 0.5)
        case 7:
            return [rng.choice(_NUMBERS)] * rng.choice((1, 10, 10_000))
        case 8:
            return rng.choice((np.array([]), np.eye(2), np.array("x"), np.array([object()]), np.float32(1), np.int8(3)))
        case 9:
            return rng.choice((b"\xff", b"", datetime.datetime(2026, 1, 1), datetime.date(1, 1, 1)))
        case 10:
            return rng.choice((1j, {1, 2}, (1, 2), range(3), object()))
        case _:
            return np.ma.masked_array([1, 2], [True, False])


def _deep(depth: int, is_list: bool) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if is_list else {"a": value}
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a value."""
    yield path
    if len(path) > 20:
        return
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _places(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value[:20]):
            yield from _places(entry, (*path, place))


def changed(rng: random.Random, value: Any, is_json: bool = False, times: int | None = None) -> Any:
    """A value in which one to three others were changed; what it was is left as it is."""
    for _ in range(times or rng.choice((1, 1, 2, 3))):
        places = [path for path in _places(value) if path]
        if not places:
            return _odd(rng, is_json)
        value = _put(rng, value, rng.choice(places), places, is_json)
    return value


def _put(rng: random.Random, value: Any, path: tuple[Any, ...], places: list[tuple[Any, ...]], is_json: bool) -> Any:
    first, rest = path[0], path[1:]
    copy = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        inside = [other[1:] for other in places if other[:1] == (first,) and len(other) > 1]
        copy[first] = _put(rng, copy[first], rest, inside, is_json)
        return copy
    here = copy[first]
    match rng.randrange(8):
        case 0 | 1 | 2:
            copy[first] = _odd(rng, is_json)
        case 3:
            del copy[first]
        case 4 if isinstance(copy, dict):
            copy[rng.choice(_KEYS)] = rng.choice((here, _odd(rng, is_json)))
        case 4:
            copy.insert(first, rng.choice((here, _odd(rng, is_json))))
        case 5 if isinstance(here, bool | int | float):
            copy[first] = rng.choice((here + 1, here - 1, -here, here * 2**40, str(here), float(here), [here]))
        case 5 if isinstance(here, str):
            copy[first] = rng.choice((here + "\n", here[:-1], here * 2, f"../{here}", f"%{here}", [here], here.upper()))
        case 5 if isinstance(here, list):
            copy[first] = rng.choice((here[1:], here[::-1], here * 2, dict(enumerate(here)), [here], tuple(here)))
        case 6:
            # Another's value.
            other: Any = value
            for key in rng.choice(places):
                other = other[key]
            copy[first] = other
        case _ if isinstance(copy, dict):
            copy[f"{first}{rng.choice(('', 'x', ' '))}"] = copy.pop(first)
        case _:
            rng.shuffle(copy)
    return copy

"""How much is given of what documents, files and requests of other people ask for."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bluesky_filestore.errors import LimitError, OptionError

__all__ = ["DEFAULT_LIMITS", "Limits", "check_width", "how_to_set"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a catalog server gives at most; more is refused in words that name the limit.

    Given to `bluesky_filestore.serve_catalog`; in the ``config.yml`` of a Tiled server as a mapping, under the ``args``
    of our tree. Where files are read without a server these defaults hold.

    Examples
    --------
    >>> Limits(response_bytes=1_000_000).path_segments
    100
    """

    response_bytes: int = 300_000_000
    """The bytes of one answer; what is larger is asked for in slices. What Tiled answers itself has its own limit of
    300 MB besides (``TILED_RESPONSE_BYTESIZE_LIMIT`` in the environment)."""
    response_seconds: float = 60.0
    """How long reading may take until an answer begins; then it is 503. Only of `serve_catalog`."""
    path_segments: int = 100
    """The segments of the path of a request. Only of `serve_catalog`."""
    frames: int = 10**12
    """The frames that an array's registration claims."""
    spans: int = 1_000_000
    """The row spans that an array's registration is made of."""
    template_width: int = 9_999
    """The width of a field in the template of a file's name; more than 9,999 are never taken."""
    unpacked_bytes: int = 2**32
    """The bytes that a file of one frame, or a packed piece of a larger one, says that it unpacks to."""
    virtual_sources: int = 100_000
    """The parts of a virtual dataset of HDF5, and the numbered files that one of them stands for."""
    virtual_depth: int = 8
    """How many virtual datasets may lead to one another, and how many external links."""
    virtual_parts: int = 5_000
    """The parts of virtual datasets that others are made of, in one reading."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if isinstance(field.default, float) else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise OptionError(f"the limit {field.name} is {value!r}; expected a number above 0.")

    @classmethod
    def of(cls, values: "Limits | Mapping[str, Any] | None") -> "Limits":
        """Limits from numbers by their names, as they stand in a configuration.

        Raises
        ------
        OptionError
            If there is no limit of a name, or it is no number above 0.
        """
        if isinstance(values, Limits) or values is None:
            return values or cls()
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(map(str, values.keys() - set(names)))
        if unknown:
            raise OptionError(f"there is no limit {', '.join(unknown)}; expected some of {', '.join(names)}.")
        return cls(**values)

    @classmethod
    def parsed(cls, words: Iterable[str]) -> "Limits":
        """Limits from words such as ``"frames=1000000"``; raises as `of` does.

        Examples
        --------
        >>> Limits.parsed(["frames=1e6", "response_seconds=2.5"]).frames
        1000000
        """
        values: dict[str, float] = {}
        for name, _, number in (word.partition("=") for word in words):
            try:
                found = float(number.replace("_", ""))
            except ValueError:
                raise OptionError(f"the limit {name} is {number!r}; expected name=number.") from None
            values[name] = int(found) if found.is_integer() else found
        return cls.of(values)

    def check(self, name: str, found: float, what: str, unit: str) -> None:
        """Refuse what is beyond a limit.

        Parameters
        ----------
        name : str
            Of the limit.
        found : int or float
            How much is asked for.
        what, unit : str
            What asks for it, and what is counted, as in ``"file a.tif unpacks to"`` and ``"bytes"``.

        Raises
        ------
        LimitError
            If that is too much.
        """
        most = getattr(self, name)
        if found > most:
            raise LimitError(f"{what} {found:,} {unit}; expected {most:,} at most: {how_to_set(name)}.")


def how_to_set(name: str) -> str:
    """What sets a limit, in words."""
    return f"the limit is set where it is served, by serve_catalog(limits=Limits({name}=...)) or serve --limit {name}=N"


DEFAULT_LIMITS = Limits()
"""Where nobody said others."""
_NUMBER = re.compile(r"%[^%a-zA-Z]*")


def check_width(template: Any, limits: Limits) -> None:
    """Refuse a C-style template with a field, or a part of one, that is too wide; before memory is taken for it."""
    for field in _NUMBER.findall(template.replace("%%", "")) if isinstance(template, str) else ():
        for digits in re.findall(r"\d+", field):
            # Of very many digits Python makes no number.
            found = int(digits[:20])
            limits.check("template_width", found, f"a field of template {template[:100]!r} has", "characters")

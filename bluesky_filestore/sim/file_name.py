"""Where a file plugin writes: directories made on demand, and the name a template gives."""

import os
import re
from pathlib import Path

__all__ = ["create_directory", "expand_template", "on_disk", "with_separator"]

_CONVERSION = re.compile(r"%(?:%|[-+ #0-9.]*[a-zA-Z])")


def with_separator(path: str) -> str:
    """The path as the IOC shows it: with a separator at the end, unless it is empty.

    Examples
    --------
    >>> with_separator("/data")
    '/data/'
    """
    return path if not path or path.endswith("/") else path + "/"


def create_directory(path: Path, depth: int) -> None:
    """Make what is missing of a directory, as far as ``CreateDirectory`` allows.

    Parameters
    ----------
    path : Path
        The directory that is wanted.
    depth : int
        0: make nothing; -n: make at most the last n levels; n: the first n levels must be there.

    Raises
    ------
    FileNotFoundError
        If more is missing than may be made; nothing is made then.
    OSError
        If the system refuses to make it.
    """
    levels = [*reversed(path.parents), path][1:]
    existing = sum(1 for level in levels if level.is_dir())
    first = depth if depth > 0 else len(levels) + depth
    if depth == 0 or existing < min(max(first, 0), len(levels)):
        raise FileNotFoundError(f"{path} is missing more levels than CreateDirectory {depth} may make")
    path.mkdir(parents=True, exist_ok=True)


def expand_template(template: str, path: str, name: str, number: int) -> str:
    """The full file name that a C format makes of path, name and number.

    Values that the template has no conversion for are left out, as C's ``snprintf`` does.

    Raises
    ------
    ValueError
        If the template does not take path, name and number in this order.

    Examples
    --------
    >>> expand_template("%s%s_%6.6d.h5", "/data/", "abc", 0)
    '/data/abc_000000.h5'
    """
    count = sum(1 for conversion in _CONVERSION.findall(template) if conversion != "%%")
    try:
        return template % (path, name, number)[:count]
    except (TypeError, ValueError) as error:
        message = f"FileTemplate {template!r} does not take path, name and number ('%s%s_%6.6d.h5'): {error}"
        raise ValueError(message) from error


def on_disk(text: str) -> Path:
    """The file that a record's text names: Channel Access carries bytes, shown as Latin-1."""
    return Path(os.fsdecode(text.encode("latin-1")))

"""Root, semantic part, posix or windows, URI and back.

A file has a *root*, where a disk happens to be mounted, and a *semantic part* below it, which keeps its meaning when
the disk moves. The machine that writes and the machine that reads may see the same disk under different names and
even with different separators, so no function here asks the operating system: the flavour of a path is always said,
or taken from an absolute path that can have only one.
"""

import os
import re
from datetime import datetime
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import quote, unquote, urlsplit

from bluesky_filestore.errors import PathError, TemplateError

__all__ = [
    "FlavouredPath",
    "PathSemantics",
    "absolute_root",
    "check_semantics",
    "fill_in",
    "formatted",
    "from_uri",
    "has_one_number",
    "is_absolute",
    "join_resource",
    "pure_path",
    "relative_part",
    "semantics_of",
    "to_uri",
    "under_root",
    "with_trailing_separator",
]

PathSemantics: TypeAlias = Literal["posix", "windows"]
FlavouredPath: TypeAlias = PurePosixPath | PureWindowsPath

_FLAVOURS: dict[str, type[PurePosixPath] | type[PureWindowsPath]] = {
    "posix": PurePosixPath,
    "windows": PureWindowsPath,
}
_NUMBER_FIELD = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[di]")
# Wider than any path is long: the memory for it is taken before anything is known.
_LONGEST = 4096
_WIDE_FIELD = re.compile(r"%[^%a-zA-Z]*?(?:\d{5,}|\d*\.\d{5,})")
_DRIVE_IN_URI = re.compile(r"/[A-Za-z]:(/|$)")
# What RFC 3986 lets stand in a path segment, less ";" (Python's urlparse cuts the path there).
_SAFE_IN_URI = "/:@!$&'()*+,=~"
_THIS_MACHINE = ("", "localhost")


def check_semantics(value: str | None) -> PathSemantics:
    """Return `value` if it is a flavour we know; ``None`` means this machine's own.

    Raises
    ------
    PathError
        For any other value.
    """
    if value is None:
        return "windows" if os.name == "nt" else "posix"
    if value not in _FLAVOURS:
        raise PathError(f"path_semantics is {value!r}; expected 'posix' or 'windows', the flavour of the write path.")
    return cast(PathSemantics, value)


def pure_path(path: str | PurePath, semantics: PathSemantics) -> FlavouredPath:
    """The path in the flavour `semantics`, whatever system this runs on.

    Examples
    --------
    >>> pure_path("C:/data/2026", "windows")
    PureWindowsPath('C:/data/2026')
    >>> pure_path("//data", "posix")
    PurePosixPath('/data')
    """
    text = str(path)
    if "\0" in text:
        raise PathError(f"path {text!r} holds a NUL character, which no file system takes; remove it.")
    if semantics == "posix" and text.startswith("//"):
        # Two leading slashes are kept by pathlib (POSIX leaves them to the system); for a root they would never match.
        text = "/" + text.lstrip("/")
    return _FLAVOURS[check_semantics(semantics)](text)


def semantics_of(path: str | PurePath) -> PathSemantics:
    r"""The only flavour in which `path` is absolute.

    Raises
    ------
    PathError
        If the path is absolute in neither.

    Examples
    --------
    >>> semantics_of("/data/2026"), semantics_of("C:\\data"), semantics_of(r"\\server\share\data")
    ('posix', 'windows', 'windows')
    """
    if PureWindowsPath(path).is_absolute() and not (isinstance(path, PurePosixPath) or str(path).startswith("/")):
        return "windows"
    if PurePosixPath(path).is_absolute() and not isinstance(path, PureWindowsPath):
        return "posix"
    raise PathError(
        f"path {str(path)!r} is not absolute; expected one that begins with '/', a drive such as 'C:\\' "
        f"or a share such as '\\\\server\\share'."
    )


def is_absolute(path: str | PurePath) -> bool:
    """Whether a path is absolute in one of the flavours."""
    try:
        semantics_of(path)
    except PathError:
        return False
    return True


def absolute_root(root: str | PurePath | None) -> FlavouredPath:
    """The root as a path of its own flavour; ``None`` is the whole file system, ``/``.

    Raises
    ------
    PathError
        If it is not absolute: a root is where a disk is mounted.
    """
    if root is None:
        return PurePosixPath("/")
    try:
        return pure_path(root, semantics_of(root))
    except PathError as error:
        raise PathError(f"The root part of the path must be absolute, not root={str(root)!r}: {error}") from error


def under_root(path: str | PurePath, root: str | PurePath, semantics: PathSemantics | None = None) -> FlavouredPath:
    """The path, put under the root if it is relative, and checked to be under it if it is absolute.

    The root counts as being under itself.

    Parameters
    ----------
    path : str or PurePath
        Absolute, or relative to `root`.
    root : str or PurePath
        Absolute.
    semantics : {'posix', 'windows'}, optional
        The flavour to read `path` in; by default that of the root.

    Raises
    ------
    PathError
        If the path is absolute and elsewhere, or climbs with ``..``.

    Examples
    --------
    >>> under_root("2026/11", "/data")
    PurePosixPath('/data/2026/11')
    >>> under_root(".", "/data")
    PurePosixPath('/data')
    """
    base = absolute_root(root)
    flavour = semantics or semantics_of(base)
    asked = pure_path(path, flavour)
    if ".." in asked.parts:
        raise PathError(f"path {str(path)!r} contains '..'; expected a path that stays under root {str(base)!r}.")
    if asked.is_absolute() or asked.drive or asked.root:
        if flavour == semantics_of(base) and asked.is_relative_to(base):
            return asked
        raise PathError(
            f"path {str(path)!r} is not under root {str(base)!r}; give a path below the root, a relative one, "
            f"or a root that holds the path."
        )
    return pure_path(base / asked.as_posix(), semantics_of(base))


def relative_part(path: str | PurePath, root: str | PurePath) -> str:
    """The semantic part of an absolute path: what remains when the root is taken off.

    Examples
    --------
    >>> relative_part("/data/2026/11", "/data")
    '2026/11'
    """
    base = absolute_root(root)
    return str(under_root(path, base).relative_to(base))


def join_resource(root: str | PurePath, resource_path: str, semantics: PathSemantics | None = None) -> FlavouredPath:
    """Put together what a Resource document takes apart.

    Older documents have an empty root and an absolute `resource_path`, or a `resource_path` that begins with a slash
    although it is meant below the root; databroker joins both, and so do we.

    Raises
    ------
    PathError
        If the two make no absolute path.
    """
    if not str(root):
        return absolute_root(resource_path)
    base = absolute_root(root)
    flavour = semantics or semantics_of(base)
    # Documents of stock ophyd with a windows IOC say 'windows' of posix paths: an absolute root knows better.
    below = pure_path(resource_path, flavour if flavour == "windows" else semantics_of(base))
    if below.is_absolute() and pure_path(below, semantics_of(base)).is_relative_to(base):
        return pure_path(below, semantics_of(base))
    return pure_path(base / below.relative_to(below.anchor).as_posix(), semantics_of(base))


def with_trailing_separator(path: str | PurePath, semantics: PathSemantics) -> str:
    r"""The path as text that ends in one separator, as areaDetector reports its directories.

    Examples
    --------
    >>> with_trailing_separator("/data/2026/", "posix"), with_trailing_separator("C:/", "windows")
    ('/data/2026/', 'C:\\')
    """
    separator = "\\" if semantics == "windows" else "/"
    return str(pure_path(path, semantics)).rstrip(separator) + separator


def fill_in(template: str | PurePath | None, when: datetime) -> str:
    """The template with strftime's fields taken from `when`.

    Raises
    ------
    TemplateError
        If there is no template, or it leaves nothing.

    Examples
    --------
    >>> fill_in("/data/%Y/%m", datetime(2026, 11, 22))
    '/data/2026/11'
    """
    if template is None or not str(template).strip():
        raise TemplateError(
            f"the path template is {template!r}; expected a path such as '/data/%Y/%m/%d', "
            "in which strftime's fields are filled in."
        )
    filled = when.strftime(str(template))
    if not filled.strip():
        raise TemplateError(f"the path template {str(template)!r} leaves an empty path; expected a directory.")
    return filled


def has_one_number(template: str) -> bool:
    """Whether a C-style template has one field for a whole number, and none that is wider than a path can be.

    Examples
    --------
    >>> has_one_number("a_%06d.tiff"), has_one_number("100%%_%s"), has_one_number("%d_%d")
    (True, False, False)
    """
    plain = template.replace("%%", "")
    return not _is_wide(plain) and len(_NUMBER_FIELD.findall(plain)) == 1


def formatted(template: str, *values: Any) -> str:
    """A C-style template with its fields filled in.

    Raises
    ------
    TypeError, ValueError
        If that cannot be done, or a field is wider than a path can be.

    Examples
    --------
    >>> formatted("%s_%06d.tiff", "a", 1)
    'a_000001.tiff'
    """
    if _is_wide(template):
        raise ValueError("it, or a field of it, is wider than a path can be long")
    return template % values


def _is_wide(template: str) -> bool:
    # Its length first: what looks for fields takes long for a text of a megabyte.
    return len(template) > _LONGEST or _WIDE_FIELD.search(template) is not None


def to_uri(path: str | PurePath, semantics: PathSemantics | None = None) -> str:
    r"""The ``file:`` URI of an absolute path, quoted after RFC 8089 and RFC 3986.

    A trailing separator is kept: it says that a directory is meant.

    Raises
    ------
    PathError
        If the path is not absolute.

    Examples
    --------
    >>> to_uri("/data/run #1/50%.h5")
    'file://localhost/data/run%20%231/50%25.h5'
    >>> to_uri(r"C:\data\a.h5"), to_uri(r"\\server\share\a.h5")
    ('file://localhost/C:/data/a.h5', 'file://server/share/a.h5')
    """
    flavour = semantics or semantics_of(path)
    pure = pure_path(path, flavour)
    if not pure.is_absolute():
        raise PathError(f"path {str(path)!r} is not absolute; a URI needs the whole path, expected e.g. '/data/a.h5'.")
    ends_in_separator = str(path).endswith("/") or (flavour == "windows" and str(path).endswith("\\"))
    text = pure.as_posix().rstrip("/") + ("/" if ends_in_separator or pure == type(pure)(pure.anchor) else "")
    if text.startswith("//"):
        return "file:" + quote(text, safe=_SAFE_IN_URI, errors="surrogateescape")
    quoted = quote(text, safe=_SAFE_IN_URI, errors="surrogateescape")
    return "file://localhost" + ("" if quoted.startswith("/") else "/") + quoted


def from_uri(uri: str, semantics: PathSemantics | None = None) -> FlavouredPath:
    r"""The path that a ``file:`` URI names.

    Raises
    ------
    PathError
        If the URI is of another scheme, or names no absolute path.

    Examples
    --------
    >>> from_uri("file://localhost/data/run%20%231/50%25.h5")
    PurePosixPath('/data/run #1/50%.h5')
    >>> from_uri("file://localhost/C:/data/a.h5"), from_uri("file://server/share/a.h5")
    (PureWindowsPath('C:/data/a.h5'), PureWindowsPath('//server/share/a.h5'))
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise PathError(f"URI {uri!r} is not a file's; expected one such as 'file://localhost/data/a.h5'.")
    if parts.query or parts.fragment or "?" in uri or "#" in uri:
        raise PathError(f"URI {uri!r} has a '?' or '#' in it; expected them quoted as '%3F' and '%23' in a file's URI.")
    text = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in _THIS_MACHINE:
        if semantics == "posix":
            raise PathError(f"URI {uri!r} names the machine {parts.netloc!r}; a posix path can only be on 'localhost'.")
        return PureWindowsPath(f"//{parts.netloc}{text}")
    is_windows = semantics == "windows" or (semantics is None and _DRIVE_IN_URI.match(text) is not None)
    path = pure_path(text.lstrip("/") if is_windows else text, "windows" if is_windows else "posix")
    if not path.is_absolute():
        raise PathError(f"URI {uri!r} names no absolute path; expected e.g. 'file://localhost/data/a.h5'.")
    return path

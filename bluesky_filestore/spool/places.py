"""Where spools are."""

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.errors import OptionError, SpoolError

from .database import FILE_NAME

__all__ = [
    *("HELD_NAME", "all_spools", "existing_spool", "home", "is_private", "kept_instead", "private_directory"),
    *("spool_for", "spool_in"),
]

_IN_MEMORY = "/dev/shm"  # noqa: S108 - a directory of its own is made in it, which only this user may read
_PRIVATE = "catalog-writer"
_ROOM_BYTES = 16_000_000
HELD_NAME = "writer.lock"
"""What a writer holds locked in a directory of its own, for as long as it is there."""


def spool_for(uri: str) -> Path:
    """The spool directory of a catalog: one of its own, in the user's directory for such things.

    However its address is written it is the same, but that one which is there for the very words is gone on with.
    """
    as_written = _directory(uri)
    return as_written if (as_written / FILE_NAME).exists() else _directory(comparable_address(uri))


def _directory(uri: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", uri.partition("://")[2]).strip("-")[:40]
    return home() / f"{readable}-{_digest(uri)}"


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def spool_in(directory: str | Path) -> Path:
    """The spool directory that somebody named: absolute, for a program may change its own, and ``~`` is the user's.

    Raises
    ------
    OptionError
        If it is no path.
    """
    if not isinstance(directory, str | Path) or directory == "":
        raise OptionError(f"spool={directory!r} names no directory; expected a path, or None to have no spool.")
    try:
        return Path(directory).expanduser().absolute()
    except RuntimeError as error:
        raise OptionError(f"spool={str(directory)!r} names no directory: {error} Expected a path.") from error


def all_spools() -> list[Path]:
    """The spool directories that this user's programs made without being told where, or kept documents in instead."""
    spools = home()
    found = sorted(path.parent for path in spools.glob(f"*/{FILE_NAME}")) if spools.is_dir() else []
    return [*found, *kept_instead(spools)]


def kept_instead(place: Path) -> list[Path]:
    """Where writers keep documents, or kept them when they were killed, that could not use a spool.

    Parameters
    ----------
    place : Path
        The directory that was to be their spool, or the one that it was to be in.
    """
    meant = _digest(os.path.realpath(place))
    found: list[Path] = []
    for parent in dict.fromkeys((_IN_MEMORY, gettempdir())):
        # Names alone: there may be thousands, and a page looks again and again.
        with suppress(OSError), os.scandir(parent) as entries:
            names = (entry.name for entry in entries if entry.name.startswith(f"{_PRIVATE}-"))
            found += [Path(parent, name) for name in sorted(names) if meant in name.split("-")[2:4]]
    # Others may make directories beside ours, by whatever name.
    return [path for path in found if _is_ours(path) and (path / FILE_NAME).is_file()]


def is_private(spool: Path) -> bool:
    """Whether it is a directory as `private_directory` makes it: kept for as long as something in it waits.

    A user may have called one of his own so, which is kept with all that is in it.
    """
    return spool.name.startswith(f"{_PRIVATE}-") and _is_ours(spool) and (spool / HELD_NAME).is_file()


def _is_ours(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def existing_spool(directory: Path) -> Path:
    """The spool in a directory, absolute.

    Raises
    ------
    SpoolError
        If there is none: who only looks at one must not make one.
    """
    if not (directory / FILE_NAME).is_file():
        raise SpoolError(
            f"there is no spool in {directory}; expected a directory with a {FILE_NAME} in it, such as a writer makes."
        )
    return directory.resolve()


def home() -> Path:
    """The directory that holds the spools that this user's programs make without being told where."""
    from platformdirs import user_state_path

    return user_state_path("bluesky-filestore") / "spool"


def private_directory(instead_of: Path | None = None) -> Path:
    """A new directory for documents that are kept for the life of a process only.

    Parameters
    ----------
    instead_of : Path, optional
        The spool directory that cannot be used. Should the process be killed, `kept_instead` finds what it has kept.

    Raises
    ------
    SpoolError
        If none can be made.
    """
    meant = () if instead_of is None else (os.path.realpath(instead_of.parent), os.path.realpath(instead_of))
    prefix = "-".join([_PRIVATE, *map(_digest, meant), ""])
    # Files in memory, where there are such: nobody asked for these documents to be on a disk, or it does not take them.
    for parent in sorted((_IN_MEMORY, gettempdir()), key=_is_short_of_room):
        try:
            return Path(mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            reason = error.strerror
    raise SpoolError(
        f"no directory can be made for documents on their way in {parent} ({reason}); expected to be able to. Set "
        f"TMPDIR to a directory that can be written to."
    )


def _is_short_of_room(parent: str) -> bool:
    """Whether a spool would soon find no room: what containers have for files in memory is small, and others use it."""
    try:
        found = os.statvfs(parent)
    except OSError:
        return True
    # A file system without a limit has no blocks.
    return found.f_blocks > 0 and found.f_bavail * found.f_frsize < _ROOM_BYTES

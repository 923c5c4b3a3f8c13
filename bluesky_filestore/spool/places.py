"""Where spools are."""

import hashlib
import re
from pathlib import Path

from platformdirs import user_state_path

from bluesky_filestore.errors import SpoolError

from .database import FILE_NAME

__all__ = ["all_spools", "existing_spool", "spool_for"]


def spool_for(uri: str) -> Path:
    """The spool directory of a catalog: one of its own, in the user's directory for such things."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", uri.partition("://")[2]).strip("-")[:40]
    return _home() / f"{readable}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def all_spools() -> list[Path]:
    """The spool directories that this user's programs made without being told where."""
    home = _home()
    return sorted(path.parent for path in home.glob(f"*/{FILE_NAME}")) if home.is_dir() else []


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


def _home() -> Path:
    return user_state_path("bluesky-filestore") / "spool"

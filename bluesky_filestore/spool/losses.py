"""What a writer knows to be lost of what it took, and documents that the database takes on no account.

Such a document is left out, or put in without its big entries if it begins or ends a run: those after it must not wait
behind it. Its run has a sentence of it among its notes.
"""

import sqlite3

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.logs import get_logger

from .encoding import decode, encode

__all__ = ["Losses", "is_refusal", "what_is_small", "why_refused"]

_logger = get_logger(__name__)
_MOST_REMEMBERED = 100
_SMALL_BYTES = 100_000


class Losses:
    """The sentences that say what is lost: each is in the log, in `all`, and raised once to who asks for all."""

    def __init__(self) -> None:
        self.count = 0
        """How many were added."""
        self._known: list[str] = []
        self._unsaid: list[str] = []

    def add(self, words: str) -> None:
        """Something is lost."""
        _logger.error("%s", words)
        self.count += 1
        for sentences in (self._known, self._unsaid):
            sentences.append(words)
            del sentences[:-_MOST_REMEMBERED]

    def all(self) -> tuple[str, ...]:
        """What is lost, the last hundred."""
        return tuple(self._known)

    def raise_last(self, count: int) -> None:
        """Raise a `SpoolError` of the last ones, if there are more than `count`."""
        if self.count > count:
            raise SpoolError(" ".join(self._known[count - self.count :]))

    def raise_unsaid(self) -> None:
        """Raise a `SpoolError` of those that were not raised so far, if there are such."""
        unsaid, self._unsaid = self._unsaid, []
        if unsaid:
            raise SpoolError(" ".join(unsaid))


def is_refusal(error: Exception) -> bool:
    """Whether an error is about what was to be put in, and would come again however the database and its disk are."""
    # What is no error of the database at all was met when looking at the document.
    return isinstance(error, sqlite3.DataError) or not isinstance(
        error, sqlite3.Error | SpoolError | OSError | MemoryError
    )


def why_refused(error: Exception, connection: sqlite3.Connection) -> str:
    """Why a database does not take a document, in words."""
    if isinstance(error, sqlite3.DataError):
        most = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        return f"{error}, expected {most:,} bytes at most: what is that big belongs into a file"
    return repr(error)


def what_is_small(body: bytes) -> tuple[bytes, str]:
    """A document without its big entries, encoded, and how these are called."""
    doc = decode(body)
    small = {entry: value for entry, value in doc.items() if len(encode({entry: value})) <= _SMALL_BYTES}
    return encode(small), ", ".join(repr(entry) for entry in doc if entry not in small)

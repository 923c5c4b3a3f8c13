"""Documents taken apart by code that believes in their schema: what is not of it is said in our words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bluesky_filestore.errors import DocumentError, FileStoreError

__all__ = ["schema_errors"]

# What Python raises where an entry is missing, of another type, or beyond all bounds.
_RAISED = (ArithmeticError, AttributeError, IndexError, RecursionError, TypeError, ValueError)


@contextmanager
def schema_errors(name: str, doc: Any, of: str = "") -> Iterator[None]:
    """Raise `DocumentError` where a document has not what its schema says.

    Parameters
    ----------
    name : str
        The name the document came under.
    doc : Any
        What came.
    of : str
        What it belongs to, in words.

    Examples
    --------
    >>> with schema_errors("stop", {"uid": "a"}, " of run 'b'"):
    ...     {"uid": "a"}["run_start"]
    Traceback (most recent call last):
    ...
    bluesky_filestore.errors.DocumentError: stop 'a' of run 'b' has no (or refers to an unknown) 'run_start'
    """
    try:
        yield
    except FileStoreError:
        raise
    except KeyError as error:
        raise DocumentError(f"{_named(name, doc)}{of} has no (or refers to an unknown) {error}") from error
    except _RAISED as error:
        raise DocumentError(f"{_named(name, doc)}{of} is not of its schema: {error}") from error


def _named(name: str, doc: Any) -> str:
    uid = doc.get("uid", doc.get("datum_id")) if isinstance(doc, Mapping) else None
    return f"{name} {uid!r}"

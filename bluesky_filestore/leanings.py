"""What is done where another package is not inside as this one takes it to be: go on without, and say so once.

The page "Leaning on others" in the documentation lists what is leaned on, and what happens without.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["going_without", "log_once"]

_logged: set[str] = set()


def log_once(logger: logging.Logger, words: str, error: BaseException | None = None) -> None:
    """Warn, with the traceback of an error; the same words come once a process."""
    if words not in _logged:
        _logged.add(words)
        logger.warning("%s%s", words, "" if error is None else f" ({type(error).__name__}: {error})", exc_info=error)


@contextmanager
def going_without(logger: logging.Logger, internal: str, instead: str) -> Iterator[None]:
    """Go on after the with-block if something that it takes from another package is gone, or is another thing now.

    Parameters
    ----------
    logger : logging.Logger
        Of the module.
    internal : str
        What is leaned on.
    instead : str
        What is so without it.
    """
    try:
        yield
    except (ImportError, AttributeError, LookupError, TypeError, ValueError) as error:
        log_once(logger, f"{internal} is not as expected here; so {instead}.", error)

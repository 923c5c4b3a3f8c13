"""What the server logs, in files beside its catalog: the terminal is the user's."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bluesky_filestore.logs import make_visible
from bluesky_filestore.private import make_private_file

__all__ = ["log_to_files", "without_refusals"]

_FILES = {"uvicorn.access": "access.log", "uvicorn.error": "server.log", "tiled": "server.log"}


_QUERY = re.compile(r"\?\S*")
# What uvicorn says is an error of each websocket that was refused with an answer, as ours are.
_REFUSED = "ASGI callable returned without completing handshake."


def without_refusals() -> None:
    """Have uvicorn log none of the websockets that were refused."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return record.msg != _REFUSED


def _without_query(record: logging.LogRecord) -> bool:
    """Leave out of what is logged what follows "?": a key may be there."""
    if isinstance(record.args, tuple) and record.args:
        record.args = tuple(_QUERY.sub("", word) if isinstance(word, str) else word for word in record.args)
    else:
        record.msg = _QUERY.sub("", str(record.msg))
    return make_visible(record)


@contextmanager
def log_to_files(directory: Path) -> Iterator[None]:
    """Have uvicorn and Tiled log to files in a directory, which only this user may read, within the with-block."""
    # Tiled gives this one logger a handler of its own, which writes to the terminal.
    app_logger = logging.getLogger("tiled.server.app")
    for own in [own for own in app_logger.handlers if type(own) is logging.StreamHandler]:
        app_logger.removeHandler(own)
    handlers: list[tuple[logging.Logger, logging.Handler]] = []
    for name, file_name in _FILES.items():
        make_private_file(directory / file_name)
        handler = logging.FileHandler(directory / file_name)
        handler.addFilter(_without_query)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        handlers.append((logger, handler))
    try:
        yield
    finally:
        for logger, added in handlers:
            logger.removeHandler(added)
            added.close()
            logger.propagate = not logger.handlers

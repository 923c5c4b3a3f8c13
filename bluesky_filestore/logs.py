"""Loggers of this package's modules, whatever the handlers are that a user gives to logging."""

import logging
import traceback
from pathlib import PurePath

from bluesky_filestore.visible import visible, visible_line, without_secrets

__all__ = ["get_logger", "make_visible"]


def get_logger(name: str) -> logging.Logger:
    """The logger of a module: what it says of others is one line that no terminal obeys, without passwords."""
    logger = logging.getLogger(name)
    logger.addFilter(make_visible)
    return logger


def make_visible(record: logging.LogRecord) -> bool:
    """Have a record say nothing that is obeyed, and no password: a filter, for loggers and handlers."""
    if isinstance(record.args, tuple) and record.args:
        record.args = tuple(map(_shown, record.args))
    elif not record.args:
        record.msg = _shown(record.msg)
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        # A formatter takes it from here.
        record.exc_text = visible(without_secrets("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")))
    return True


def _shown(argument: object) -> object:
    if isinstance(argument, str | BaseException | PurePath):
        return visible_line(without_secrets(str(argument)))
    return argument

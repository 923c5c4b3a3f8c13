"""The records that say where a file goes, put and checked in the order in which the IOC heeds them."""

import re
from typing import Any

from bluesky_filestore.errors import DirectoryMissingError, StageError, TemplateError
from bluesky_filestore.model.paths import PathSemantics, pure_path

from .waiting import PathSetting, TimedSetting, optional, poll_until, pv_name, says

__all__ = ["check_opened_file", "file_name", "fill_in_template", "fill_template", "literals", "put_name", "put_path"]

_CONVERSION = re.compile(r"%(?!%)[-+ #0-9.]*[a-zA-Z]")
_LONGEST_NEWS = 2.0
"""Seconds until a record has changed that the IOC posts together with one that has changed already."""


def literals(template: str) -> list[str]:
    """What stands between the places of a template.

    Examples
    --------
    >>> literals("%s%s_%3.3d%%.h5")
    ['', '', '_', '%.h5']
    """
    return [piece.replace("\0", "%") for piece in _CONVERSION.split(template.replace("%%", "\0"))]


def file_name(plugin: Any, directory: str, name: str, number: int) -> str:
    """What the plugin makes of ``FileTemplate``, which like C's printf takes as many values as it has places.

    Raises
    ------
    TemplateError
        If the template can't be filled in with a directory, a name and a number.
    """
    return fill_in_template(plugin, plugin.file_template.get(), directory, name, number)


def fill_in_template(plugin: Any, template: str, directory: str, name: str, number: int) -> str:
    """The same of a template that ``FileTemplate`` will be; see `file_name`."""
    values = (directory, name, number)
    try:
        return fill_template(template, values)
    except (TypeError, ValueError) as error:
        raise TemplateError(
            f"{pv_name(plugin.file_template)} is {template!r}, which can't be filled in with {values}; expected one "
            f"such as '%s%s_%6.6d.h5'."
        ) from error


def fill_template(template: str, values: tuple[Any, ...]) -> str:
    """What C's printf makes of a template: it takes as many values as there are places."""
    return str(template % values[: len(literals(template)) - 1])


def put_path(plugin: Any, path: str, flavour: PathSemantics, timeout: float) -> None:
    """Put ``FilePath``, and see that it is there in the eyes of the IOC.

    Raises
    ------
    StageTimeoutError
        If the path does not read back.
    DirectoryMissingError
        If the IOC does not find the directory, or can't make it.
    """
    # The IOC appends the separator.
    wanted = str(pure_path(path, flavour))
    PathSetting(plugin.file_path, plugin, timeout).set(wanted).wait()
    exists = optional(plugin, "file_path_exists")
    if exists is None or poll_until(lambda: bool(exists.get()), min(_LONGEST_NEWS, timeout)):
        return
    create_directory = optional(plugin, "create_directory")
    depth = "missing" if create_directory is None else create_directory.get()
    raise DirectoryMissingError(
        f"Path {wanted} does not exist on IOC: {pv_name(exists)} is {exists.get()!r}; CreateDirectory is {depth}, "
        f"where -n lets the IOC make n levels.{says(plugin)} Make the directory where the IOC runs, or set "
        f"stage_sigs['create_directory'] to as many levels as are missing."
    )


def put_name(plugin: Any, name: str, number: int, timeout: float) -> int:
    """Put ``FileName`` and ``FileNumber``; returns the number that the next file gets."""
    TimedSetting(plugin.file_name, plugin, timeout).set(name).wait()
    TimedSetting(plugin.file_number, plugin, timeout).set(number).wait()
    return int(plugin.file_number.get())


def check_opened_file(plugin: Any, documented: str, flavour: PathSemantics, timeout: float) -> None:
    """Compare the file that the plugin has opened with the one that the documents will name.

    Raises
    ------
    StageError
        If they differ.
    """
    full_name = optional(plugin, "full_file_name")
    if full_name is None:
        return
    wanted = pure_path(documented, flavour)
    if poll_until(lambda: pure_path(full_name.get(), flavour) == wanted, min(_LONGEST_NEWS, timeout)):
        return
    raise StageError(
        f"{pv_name(full_name)} is {full_name.get()!r}, but the documents would say {documented!r}; expected both to be "
        f"the same. Look whether another client sets the plugin's path, name or template."
    )

"""The records that say where a file goes: put and checked in the order in which the IOC heeds them, with a free number.

No run overwrites another's file. `_HANDED_OUT` is the memory of this process: the file patterns that were given to a
plugin, with the highest number and the plugin. It counts where the directory is out of sight, and while another plugin
is staged with the same pattern, as its file may not be there yet. Staging happens in the plan's thread only.
"""

import os
import re
import weakref
from pathlib import Path
from typing import Any

from ophyd.device import Staged

from bluesky_filestore.errors import DirectoryMissingError, FileExistsAlreadyError, StageError, TemplateError
from bluesky_filestore.model.paths import PathSemantics, formatted, pure_path

from .waiting import PathSetting, TimedSetting, optional, poll_until, pv_name, says

__all__ = ["check_opened_file", "file_name", "fill_template", "free_number", "put_name", "put_path"]

_CONVERSION = re.compile(r"%(?!%)[-+ #0-9.]*[a-zA-Z]")
_LONGEST_NEWS = 5.0
"""Seconds until a record has changed that the IOC posts together with one that has changed already."""
_HANDED_OUT: "dict[str, tuple[int, weakref.ref[Any]]]" = {}


def _literals(template: str) -> list[str]:
    """What stands between the places of a template.

    Examples
    --------
    >>> _literals("%s%s_%3.3d%%.h5")
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
    return _fill_in_template(plugin, plugin.file_template.get(), directory, name, number)


def _fill_in_template(plugin: Any, template: str, directory: str, name: str, number: int) -> str:
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
    return str(formatted(template, *values[: len(_literals(template)) - 1]))


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


def _name_pattern(template: str, name: str, flavour: PathSemantics) -> re.Pattern[str]:
    """What the names of files match that the template makes of the name, the number as the group."""
    first, *others = _literals(template)
    pattern = re.escape(first)
    for place, literal in enumerate(others):
        pattern += ("", re.escape(name), r" *(\d+)")[min(place, 2)] + re.escape(literal)
    below = pattern.rsplit("/", 1)[-1] if flavour == "posix" else re.split(r"/|\\\\", pattern)[-1]
    return re.compile(below, re.IGNORECASE if flavour == "windows" else 0)


def _highest_there(directory: str, pattern: re.Pattern[str]) -> int | None:
    """The highest number of a file that is there; 0 for one without a number, None if there is none.

    Raises
    ------
    OSError
        If the directory can't be looked into.
    """
    found = (pattern.fullmatch(entry.name) for entry in os.scandir(directory))
    return max((int((match.groups() or ("0",))[0]) for match in found if match), default=None)


def _highest_known(
    plugin: Any, template: str, name: str, read: str, write: str, flavour: PathSemantics
) -> tuple[int | None, str]:
    """The highest number that is taken, and who says so; None if nobody knows of one."""
    pattern = _name_pattern(template, name, flavour)
    directory = str(Path(_fill_in_template(plugin, template, read, name, 0)).parent)
    known: list[tuple[int, str]] = []
    try:
        there = _highest_there(directory, pattern)
        in_sight = True
    except OSError:
        there, in_sight = None, False
    if there is not None:
        known.append((there, f"it is in {directory}"))
    last = optional(plugin, "full_file_name")
    if last is not None and not in_sight:
        shown = pure_path(str(last.get()), flavour)
        match = pattern.fullmatch(shown.name)
        if match and shown.parent == pure_path(_fill_in_template(plugin, template, write, name, 0), flavour).parent:
            known.append((int((match.groups() or ("0",))[0]), f"{pv_name(last)} is {str(shown)!r}"))
    given = _HANDED_OUT.get(_fill_in_template(plugin, template, write, name, 0))
    if given is not None:
        other = given[1]()
        elsewhere = other is not None and other is not plugin and other._staged != Staged.no
        if not in_sight or elsewhere:
            known.append((given[0], f"{getattr(other, 'name', 'a file plugin')} got it in this session"))
    return max(known, default=(None, ""))


def _taken(plugin: Any, file: str, who: str, reason: str) -> FileExistsAlreadyError:
    return FileExistsAlreadyError(
        f"File {file} of another run is there already ({who}), and {plugin.name} would overwrite it: {reason}. "
        f"Expected a new name at each stage; let make_filename() or the path provider give one, or move the file."
    )


def free_number(
    plugin: Any,
    template: str,
    name: str,
    read: str,
    write: str,
    *,
    flavour: PathSemantics,
    series: bool,
    is_new: bool = False,
) -> int:
    """The number for ``FileNumber`` with which the next file is a new one.

    Parameters
    ----------
    plugin : Device
        The file plugin.
    template, name : str
        What ``FileTemplate`` and ``FileName`` will be.
    read, write : str
        The directory as its readers and as the IOC see it, with a separator at the end.
    flavour : {'posix', 'windows'}
        The IOC's.
    series : bool
        Whether each frame is a file. Readers count the files of a series from 0, so it can't begin at another number.
    is_new : bool, optional
        Whether the name is a unique one that was just made: then nobody needs to look into the directory.

    Raises
    ------
    FileExistsAlreadyError
        If the file is there already and no number makes another name.
    StageError
        If the files of a series would all have one name.
    """
    places = len(_literals(template)) - 1
    if series and places < 3:
        raise StageError(
            f"FileTemplate of {plugin.name} is {template!r}, which has no place for a number, so that each frame would "
            f"overwrite the one before; expected one such as '%s%s_%6.6d.tiff'."
        )
    if is_new and places > 1:
        return 0
    highest, who = _highest_known(plugin, template, name, read, write, flavour)
    key = _fill_in_template(plugin, template, write, name, 0)
    if highest is not None and (series or places < 3):
        reason = "a series begins at number 0" if series else f"FileTemplate {template!r} has no place for a number"
        raise _taken(plugin, _fill_in_template(plugin, template, read, name, highest), who, reason)
    number = 0 if highest is None else highest + 1
    _HANDED_OUT[key] = (number, weakref.ref(plugin))
    return number

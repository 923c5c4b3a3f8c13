"""Which number the next file may have, so that no run overwrites another's file.

`_HANDED_OUT` is the memory of this process: the file patterns that were given to a plugin, with the highest number and
the plugin. It counts where the directory is out of sight, and while another plugin is staged with the same pattern, as
its file may not be there yet. Staging happens in the plan's thread only.
"""

import os
import re
import weakref
from pathlib import Path
from typing import Any

from ophyd.device import Staged

from bluesky_filestore.errors import FileExistsAlreadyError, StageError
from bluesky_filestore.model.paths import PathSemantics, pure_path

from .file_records import fill_in_template, literals
from .waiting import optional, pv_name

__all__ = ["free_number"]

_HANDED_OUT: "dict[str, tuple[int, weakref.ref[Any]]]" = {}


def _name_pattern(template: str, name: str, flavour: PathSemantics) -> re.Pattern[str]:
    """What the names of files match that the template makes of the name, the number as the group."""
    first, *others = literals(template)
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
    directory = str(Path(fill_in_template(plugin, template, read, name, 0)).parent)
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
        if match and shown.parent == pure_path(fill_in_template(plugin, template, write, name, 0), flavour).parent:
            known.append((int((match.groups() or ("0",))[0]), f"{pv_name(last)} is {str(shown)!r}"))
    given = _HANDED_OUT.get(fill_in_template(plugin, template, write, name, 0))
    if given is not None:
        other = given[1]()
        elsewhere = other is not None and other is not plugin and other._staged != Staged.no
        if not in_sight or elsewhere:
            known.append((given[0], f"{getattr(other, 'name', 'a file plugin')} got it in this session"))
    return max(known, default=(None, ""))


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
    places = len(literals(template)) - 1
    if series and places < 3:
        raise StageError(
            f"FileTemplate of {plugin.name} is {template!r}, which has no place for a number, so that each frame would "
            f"overwrite the one before; expected one such as '%s%s_%6.6d.tiff'."
        )
    if is_new and places > 1:
        return 0
    highest, who = _highest_known(plugin, template, name, read, write, flavour)
    key = fill_in_template(plugin, template, write, name, 0)
    if highest is not None and (series or places < 3):
        taken = fill_in_template(plugin, template, read, name, highest)
        reason = "a series begins at number 0" if series else f"FileTemplate {template!r} has no place for a number"
        raise FileExistsAlreadyError(
            f"File {taken} of another run is there already ({who}), and {plugin.name} would overwrite it: {reason}. "
            f"Expected a new name at each stage; let make_filename() or the path provider give one, or move the file."
        )
    number = 0 if highest is None else highest + 1
    _HANDED_OUT[key] = (number, weakref.ref(plugin))
    return number

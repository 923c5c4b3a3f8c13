"""Where the files will go: whether the path means what it should, the directory is there, and there is room."""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ophyd.areadetector import filestore_mixins as stock

from bluesky_filestore.mixins import FileStorePluginBase
from bluesky_filestore.mixins.causes import bytes_of_frame
from bluesky_filestore.mixins.file_records import fill_template
from bluesky_filestore.mixins.waiting import optional, pv_name
from bluesky_filestore.model.asset_paths import NOT_IN_URIS
from bluesky_filestore.model.paths import (
    PathSemantics,
    check_semantics,
    fill_in,
    is_absolute,
    pure_path,
    semantics_of,
    with_trailing_separator,
)

from .finding import Verdict, fine, open_question, wrong
from .subject import Subject

__all__ = ["check_directory", "check_disk_space", "check_name_length", "check_path_flavour"]

_UNIQUE_NAME = "01234567-89ab-cdef-0123"
"""As long as the names that the mixins give to files."""
_EPICS_STRING = 39
"""Characters of a record that is a string and no array."""
_ENOUGH_POINTS = 100


@dataclass(frozen=True, slots=True)
class _Directories:
    """Where the files of a stage at this moment would go."""

    write: str
    """The directory as the IOC sees it."""
    write_flavour: PathSemantics
    """Its flavour."""
    read: str
    """The directory as its readers see it."""


def _present_directories(plugin: Any) -> _Directories:
    """From the templates, without asking hooks or path providers, which may count or make directories.

    Raises
    ------
    PathError, TemplateError, ValueError
        If the templates do not fit the root.
    """
    now = datetime.now()
    write = fill_in(plugin.write_path_template, now)
    has_own = plugin._read_path_template is not None
    flavour = check_semantics(plugin.path_semantics) if has_own or not is_absolute(write) else semantics_of(write)
    return _Directories(write, flavour, fill_in(plugin.read_path_template, now))


def _who_decides(plugin: Any) -> str:
    """Who else than the templates says where the files go."""
    if getattr(plugin, "_path_provider", None) is not None:
        return "the path provider"
    hook = getattr(type(plugin), "make_filename", None)
    known = (FileStorePluginBase.make_filename, stock.FileStorePluginBase.make_filename)
    return "" if hook in known else f"{type(plugin).__name__}.make_filename()"


def _known_directories(plugin: Any) -> _Directories | None:
    """None where `check_path_flavour` has said already that there is nothing to know."""
    try:
        return None if _who_decides(plugin) else _present_directories(plugin)
    except ValueError:
        return None


def check_path_flavour(subject: Subject) -> Verdict:
    """The write path is absolute in its flavour, and the IOC is of the same."""
    plugin = subject.plugin
    if who := _who_decides(plugin):
        return open_question(f"{who} says at each stage where the files go", "Run with --probe (probe=True) to see")
    try:
        where = _present_directories(plugin)
    except ValueError as error:
        return wrong(str(error).rstrip("."), "Correct root, write_path_template or read_path_template")
    if not pure_path(where.write, where.write_flavour).is_absolute():
        words = f"the IOC is to write to {where.write!r}, which is not absolute as a {where.write_flavour} path"
        return wrong(words, "Correct path_semantics or write_path_template")
    shown = str(plugin.file_path.get())
    if is_absolute(shown) and semantics_of(shown) != where.write_flavour:
        words = f"{pv_name(plugin.file_path)} is {shown!r}, but path_semantics says {where.write_flavour!r}"
        return wrong(words, "Set path_semantics to the IOC's flavour, and write_path_template to such a path")
    odd = "".join(sorted(NOT_IN_URIS & set(where.read)))
    if odd:
        words = f"readers look in {where.read}, and no catalog can open a file with one of {odd!r} in its path"
        return wrong(words, "Choose a directory without")
    return fine(f"{where.write_flavour}; the IOC writes to {where.write}, readers look in {where.read}")


def _nearest(path: Path) -> tuple[Path, int]:
    """The nearest directory that is there, and how many levels are missing below it."""
    missing = 0
    while not path.is_dir() and path != path.parent:
        path, missing = path.parent, missing + 1
    return path, missing


def _in_reach(plugin: Any, where: _Directories) -> bool:
    return semantics_of(where.read) == check_semantics(None) and Path(plugin.reg_root).is_dir()


def check_directory(subject: Subject) -> Verdict | None:
    """The directory is there, or the IOC may make what is missing of it."""
    plugin = subject.plugin
    where = _known_directories(plugin)
    if where is None:
        return None
    if not _in_reach(plugin, where):
        words = f"this machine does not see the root {plugin.reg_root}"
        return open_question(words, "Look again from a machine that shall read the files, or correct root")
    there, missing = _nearest(Path(where.read))
    if not os.access(there, os.R_OK | os.X_OK):
        return wrong(f"{there} may not be read by this user", "Ask for the permission, or correct read_path_template")
    if not missing:
        return fine(f"{where.read} is there")
    words = f"of {where.read} the last {missing} level{'s are' if missing > 1 else ' is'} missing"
    if pure_path(where.read, semantics_of(where.read)) != pure_path(where.write, where.write_flavour):
        return open_question(f"{words} here; the IOC sees the disk as {where.write}", "See that both are the same disk")
    depth = 0 if subject.signal("create_directory") is None else int(subject.value("create_directory"))
    present = len(there.parts) - 1
    if -depth >= missing or 0 < depth <= present:
        return fine(f"{words}; the IOC may make them (CreateDirectory {depth})")
    advice = f"Make {there / Path(where.read).relative_to(there).parts[0]} and what is below it"
    if subject.signal("create_directory") is not None:
        advice += f", or set stage_sigs['create_directory'] to {-missing}"
    return wrong(f"{words}, and the IOC will not make them (CreateDirectory {depth})", advice)


def _longest(signal: Any) -> int | None:
    """How many characters a record can hold; None if nobody tells."""
    channel = getattr(signal, "_write_pv", None) or getattr(signal, "_read_pv", None)
    elements = getattr(channel, "nelm", None)
    if not isinstance(elements, int) or elements < 1:
        return None
    return elements - 1 if elements > 1 else _EPICS_STRING


def check_name_length(subject: Subject) -> Verdict | None:
    """Path and name fit into their records, which cut off what is too long."""
    where = _known_directories(subject.plugin)
    if where is None:
        return None
    path = with_trailing_separator(where.write, where.write_flavour)
    template = str(subject.value("file_template"))
    try:
        full = fill_template(template, (path, _UNIQUE_NAME, 0))
    except (TypeError, ValueError) as error:
        return wrong(f"FileTemplate {template!r} can't be filled in ({error})", "Set it to one such as '%s%s_%6.6d.h5'")
    lengths = {"file_path": len(path), "file_name": len(_UNIQUE_NAME), "full_file_name": len(full)}
    limits = {name: _longest(optional(subject.plugin, name)) for name in lengths}
    for name, limit in limits.items():
        if limit is not None and lengths[name] > limit:
            words = f"{pv_name(getattr(subject.plugin, name))} holds {limit} characters, and {lengths[name]} are needed"
            return wrong(words, "Choose a shorter directory, or a make_filename() with shorter names")
    if all(limit is None for limit in limits.values()):
        return open_question("the records do not tell how long they are")
    return fine(f"{len(full)} characters, and the records hold them")


def check_disk_space(subject: Subject) -> Verdict | None:
    """There is room for some more points, where the disk can be seen from here."""
    plugin = subject.plugin
    where = _known_directories(plugin)
    if where is None or not _in_reach(plugin, where):
        return None
    there, _ = _nearest(Path(where.read))
    free = shutil.disk_usage(there).free
    frame = bytes_of_frame(plugin)
    words = f"{free / 1e9:.1f} GB free at {there}"
    if not frame:
        return fine(words) if free > 1e9 else wrong(words, "Make room")
    point = frame * int(plugin.get_frames_per_point())
    words += f", enough for {free // max(point, 1)} points like the last one, uncompressed"
    return fine(words) if free >= _ENOUGH_POINTS * point else wrong(words, "Make room")

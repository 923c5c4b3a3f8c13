"""What files say of themselves, and what handlers answer for them, who are anybody's code and may never answer.

Each look has a thread of its own, which is waited for so long. Whoever has not answered by then is not asked again
until he has: `_asked` holds those threads by spec and path. One thread at a time may look.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.formats import inspect_files
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.model.addressing import HandledPart
from bluesky_filestore.model.file_facts import FileFacts, Unseen, why_unseen
from bluesky_filestore.model.frame_axis import why_not_served
from bluesky_filestore.model.frame_map import Source

__all__ = ["has_handler", "inspect"]

_PATIENCE = 30.0
"""Seconds."""
_MOST_READ = 1 << 20
"""Bytes of an answer of which each is looked at; of larger ones, the first that is new."""
_asked: dict[tuple[str, str], threading.Thread] = {}


def has_handler(spec: str) -> bool:
    """Whether this process has a handler for a spec."""
    # Not before it is needed: handlers load what reads their files.
    from . import handler_registry

    return spec in handler_registry


def inspect(source: Source, files: Sequence[PurePath], *, roots: Roots = ANYWHERE) -> list[FileFacts | Unseen]:
    """Look at files of one source, with its handler where it has one.

    Parameters
    ----------
    source : Source
        Says what the files are. One that is handled has ``resource_kwargs`` and a list ``datum_kwargs`` among its
        parameters.
    files : sequence of PurePath
        The files to look at, as for `inspect_files`; of a handled source the path that the handler is made with.
    roots : Roots
        Where they may lie.

    Returns
    -------
    list of FileFacts or Unseen
        One for each file; of a handled source one for each of the ``datum_kwargs``.
    """
    if source.is_handled:
        return _look_at_answers(source, Path(files[0]), roots)
    return inspect_files(source, files, roots=roots)


def _look_at_answers(source: Source, path: Path, roots: Roots) -> list[FileFacts | Unseen]:
    count = len(source.parameters["datum_kwargs"])
    if not path.parent.is_dir():
        return [Unseen("out of reach", f"directory {path.parent} is not there")] * count
    seen: list[FileFacts | Unseen] = []
    key = (source.spec, str(path))
    thread = _asked.get(key)
    if thread is None or not thread.is_alive():
        thread = threading.Thread(target=_look, args=(source, path, roots, seen), name="handler", daemon=True)
        _asked[key] = thread
        thread.start()
        thread.join(_PATIENCE)
    if thread.is_alive():
        silent = f"the handler of spec {source.spec!r} has not answered for {path} within {_PATIENCE:g} s"
        return [Unseen("busy", silent)] * count
    del _asked[key]
    return seen + seen[-1:] * (count - len(seen))


def _look(source: Source, path: Path, roots: Roots, seen: list[FileFacts | Unseen]) -> None:
    """Add what is seen, up to the first that cannot be."""
    try:
        _look_at_each(source, path, roots, seen)
    except UnreadableFileError as error:
        unseen = why_unseen(error)
        seen.append(replace(unseen, reason=unseen.reason.rstrip(".")))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        seen.append(Unseen("broken", f"the handler of spec {source.spec!r} cannot be asked about {path}: {error!r}"))


def _look_at_each(source: Source, path: Path, roots: Roots, seen: list[FileFacts | Unseen]) -> None:
    from . import handler_registry
    from .handled_frames import HandledFrames

    resource_kwargs: Mapping[str, Any] = source.parameters["resource_kwargs"]
    datum_kwargs: Sequence[Mapping[str, Any]] = source.parameters["datum_kwargs"]
    part = HandledPart(0, resource_kwargs, datum_kwargs, source.parameters["directory"])
    handler_class = handler_registry[source.spec]
    frames = HandledFrames(handler_class, source.spec, (str(path),), (part,), (), np.dtype("u1"), roots)
    for asked, answer in zip(datum_kwargs, frames.formats(_MOST_READ), strict=False):
        unserved = why_not_served(answer.shape or (1,), answer.dtype)
        words = f"what the handler of spec {source.spec!r} answers for {dict(asked)} of {path} is no array: {unserved}"
        seen.append(Unseen("broken", words) if unserved else FileFacts(answer.shape, answer.dtype.str))

"""Files of runs, each written when its run is delivered, by a thread of their own.

`RunFiles.add` is called by the plan's thread, and only puts the run into `_waiting`, a queue: all else is done by the
thread, which begins with the first run. It takes one run at a time, and looks into the spool until the run has come to
its end in a catalog: delivered, or parked, since what there is of it can be shown all the same. The documents are
read from the spool. Whatever goes wrong is said, and the next run is taken. `close` has it give up runs that have not
come to their end, which can be written later, and waits for the one that is being written, but not for a dead disk.
"""

import atexit
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from queue import Queue
from string import Formatter
from typing import Any

from bluesky_filestore.errors import FileStoreError, OptionError, TemplateError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.entries import ENDED
from bluesky_filestore.spool.spooled_run import SpooledRun, find_run, run_documents

__all__ = ["RunFiles", "filled_in"]

_logger = get_logger(__name__)
_FIRST_LOOK, _LONGEST_LOOK = 0.1, 5.0
_LAST_SECONDS = 60.0
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


class RunFiles:
    """Writes the files of runs.

    Parameters
    ----------
    template : str or Path
        Where: a path with entries of the start document, e.g. ``{uid}``.
    say : callable
        Is given a sentence about each file that cannot be written.

    Raises
    ------
    OptionError
        If all runs would be written into one file, or none could be.
    """

    def __init__(self, template: str | Path, say: Callable[[str], None]) -> None:
        self._template, self._say = _checked(template), say
        self._waiting: Queue[tuple[str, Path] | None] = Queue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, uid: str, directory: Path) -> None:
        """Have the file of a run written, whose documents are in a spool."""
        self._waiting.put((uid, directory))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="run files", daemon=True)
            self._thread.start()
            # A script may end without closing its writer.
            atexit.register(self.close)

    def close(self) -> None:
        """Write those of which the runs are delivered, and end."""
        self._closing.set()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)
            if self._thread.is_alive():
                self._say(
                    f"a run's file is still being written after {_LAST_SECONDS:.0f} s; if it does not appear, "
                    f"`bluesky-filestore nexus UID` writes it"
                )
            atexit.unregister(self.close)

    def _work(self) -> None:
        while (run := self._waiting.get()) is not None:
            uid, directory = run
            try:
                self._write(uid, self._delivered(uid, directory))
            except Exception as error:
                if not isinstance(error, FileStoreError | OSError):
                    _logger.exception("The file of run %s could not be written.", uid)
                self._say(
                    f"the file of run {uid} is not written ({error}); nothing of the run is lost, and "
                    f"`bluesky-filestore nexus {uid}` writes it"
                )

    def _delivered(self, uid: str, directory: Path) -> SpooledRun:
        """A run, when it has come to its end in a catalog."""
        pause = _FIRST_LOOK
        while True:
            is_last = self._closing.is_set()
            (run,) = find_run([directory], uid)
            if any(entry.state in ENDED for _, entry in run.deliveries):
                return run
            if is_last:
                raise TemplateError("it is not delivered yet")
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_LOOK)

    def _write(self, uid: str, run: SpooledRun) -> None:
        from .run_file import export_nexus

        documents = list(run_documents(run))
        path = filled_in(self._template, next(doc for name, doc in documents if name == "start"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _logger.info("Run %s is in %s.", uid, export_nexus(documents, path).path)


def filled_in(template: str, start: Mapping[str, Any]) -> Path:
    """The path of a run's file: what its start document says never leads to another directory.

    Raises
    ------
    TemplateError
        If the start document lacks an entry, or it is of another kind.

    Examples
    --------
    >>> str(filled_in("/data/{sample}_{scan_id:05d}.nxs", {"sample": "../Fe O", "scan_id": 7}))
    '/data/.._Fe_O_00007.nxs'
    """
    parts = []
    for text, name, spec, _ in Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if name not in start:
            raise TemplateError(f"its start document has no {name!r}; expected one for {template!r}")
        is_date = name == "time" and "%" in (spec or "")
        try:
            filled = format(datetime.fromtimestamp(start[name]) if is_date else start[name], spec or "")
        except (TypeError, ValueError, OverflowError) as error:
            raise TemplateError(f"its {name!r} is {start[name]!r}, which does not fit {template!r}: {error}") from error
        # Dates may have directories; what a plan was given may not.
        parts.append(filled if is_date else _NOT_IN_NAMES.sub("_", filled))
    return Path("".join(parts))


def _checked(template: str | Path) -> str:
    try:
        names = [name for _, name, _, _ in Formatter().parse(str(template)) if name is not None]
    except ValueError as error:
        raise OptionError(f"run_file={str(template)!r} cannot be filled in: {error}.") from error
    if not names or not all(name.isidentifier() for name in names):
        raise OptionError(
            f"run_file={str(template)!r} would not be another file for each run; expected a path with names of "
            f"entries of the start document, e.g. '/data/{{time:%Y}}/{{scan_id}}_{{uid:.8}}.nxs'."
        )
    return str(Path(template).expanduser().absolute())

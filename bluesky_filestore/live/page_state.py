"""What the page shows of runs, spools and catalogs; all of it is asked for by threads, none by the server's loop."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bluesky_filestore.catalogs.tiled.listing import list_runs
from bluesky_filestore.errors import FileStoreError, OptionError, RunNotFoundError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.status import look_at
from bluesky_filestore.visible import shown_address

from .following import follow
from .following_documents import latest_run
from .metrics import spool_names
from .page_run import RunView, text_of

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["Watched"]

_logger = get_logger(__name__)
_MOST_VIEWS, _MOST_PARKED = 4, 20
_FRESH_SECONDS, _TRY_AGAIN_SECONDS, _QUESTIONS = 0.5, 5.0, 3

Verify: TypeAlias = Callable[[str], Sequence[tuple[str, str]]]
"""Compares a run with its files: what was found, each with ``"ok"``, ``"problem"`` or ``"?"``."""


class Watched:
    """Runs, spools and catalogs that somebody looks at; its methods are for any thread.

    Parameters
    ----------
    spools : callable
        The spool directories.
    connect : callable, optional
        A client of the catalog whose runs are listed; asked for when somebody looks, and again if it fails.
    verify : callable, optional
        Compares a run with its files.
    root_map : Mapping of str to str, optional
        Where directories are now that documents name.
    """

    def __init__(
        self,
        spools: Callable[[], Sequence[Path]],
        connect: "Callable[[], Container] | None" = None,
        verify: Verify | None = None,
        root_map: Mapping[str, str] | None = None,
    ) -> None:
        self.spools = spools
        """The spool directories."""
        self.verify = verify
        """Compares a run with its files, if that can be asked for."""
        self._connect, self._root_map = connect, root_map
        self._client: Container | None = None
        self._next_try, self._why = 0.0, ""
        self._views: dict[str, RunView] = {}
        self._lock, self._of_client, self._of_verify = threading.Lock(), threading.Lock(), threading.Lock()
        # What was answered to each question, when, and which are being asked: by threads, for an answer may take long.
        self._answers: dict[str, Any] = {}
        self._asked: dict[str, float] = {}
        self._asking: set[str] = set()
        self._threads = ThreadPoolExecutor(_QUESTIONS, "page-asks")

    def latest(self) -> str:
        """The uid of the run that began last, in any spool, else in the catalog; empty as long as none is known."""
        found: str = self._known("latest", self._latest, "")
        if not found and self._answers.get("latest") is not None and (listed := self.heads()):
            found = next((each["uid"] for each in listed["runs"]), "")
        return found

    def _latest(self) -> str:
        found = latest_run(self.spools())
        return "" if found is None else found.uid

    def view(self, uid: str) -> RunView:
        """A run, followed from now on for as long as somebody looks at it."""
        with self._lock:
            for other in [each for each, view in self._views.items() if view.is_forgotten]:
                self._views.pop(other).close()
            if uid not in self._views or self._views[uid].is_closed:
                while len(self._views) >= _MOST_VIEWS:
                    self._views.pop(min(self._views, key=lambda each: self._views[each].looked)).close()
                self._views[uid] = RunView(uid, lambda: self._follower(uid), lambda: self._progress(uid))
            return self._views[uid]

    def _follower(self, uid: str) -> Any:
        for directory in self.spools():
            with suppress(FileStoreError):
                return follow(directory, uid, root_map=self._root_map)
        client = self._catalog()
        if client is None:
            raise RunNotFoundError(
                f"run {uid!r} is in no spool here, and there is no catalog: {self._why or 'name one'}."
            )
        return follow(client, uid, root_map=self._root_map)

    def _progress(self, uid: str) -> list[dict[str, Any]]:
        """How much of a run each catalog has."""
        found = []
        for directory in self.spools():
            with suppress(FileStoreError), closing(Ledger(directory)) as ledger:
                found += [
                    {"catalog": shown_address(uri), "state": state, "why": text_of(why), "has": has, "of": total}
                    for uri, state, why, has, total in ledger.progress(uid)
                ]
        return found

    def delivery(self) -> list[dict[str, Any]] | None:
        """How each spool is doing, and the catalogs that it delivers to; None as long as that is not known."""
        found: list[dict[str, Any]] | None = self._known("delivery", self._delivery, None)
        return found

    def _delivery(self) -> list[dict[str, Any]]:
        return [{"name": text_of(name), **_spool(directory)} for directory, name in spool_names(self.spools()).items()]

    def runs(self, offset: int, limit: int) -> dict[str, Any]:
        """Some of the runs of the catalog, the latest first; how many there are, and why none can be listed."""
        client = self._catalog()
        if client is None:
            return {"runs": [], "count": 0, "why": self._why}
        try:
            found, count = list_runs(client, offset, limit)
        except FileStoreError as error:
            return {"runs": [], "count": 0, "why": text_of(str(error))}
        return {"runs": [_listed(each) for each in found], "count": count, "why": ""}

    def heads(self) -> dict[str, Any] | None:
        """The first of the runs as `runs` has them, which change whenever the list does; None if not known yet."""
        found: dict[str, Any] | None = self._known("heads", lambda: self.runs(0, 8), None)
        return found

    def verified(self, uid: str) -> list[list[str]]:
        """What is found when a run is compared with its files; one run at a time."""
        if self.verify is None:
            raise OptionError("runs are not verified here; expected `bluesky-filestore verify` or `watch`.")
        with self._of_verify:
            return [[mark, text_of(words)] for mark, words in self.verify(uid)]

    def close(self) -> None:
        """Follow nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for view in self._views.values():
                view.close()
            self._views.clear()
        if self._client is not None:
            self._client.context.close()

    def _catalog(self) -> Any:
        """The client; None, and why, if there is none now."""
        with self._of_client:
            if self._client is None and self._connect is not None and time.monotonic() >= self._next_try:
                try:
                    self._client, self._why = self._connect(), ""
                except FileStoreError as error:
                    self._why, self._next_try = text_of(str(error)), time.monotonic() + _TRY_AGAIN_SECONDS
            return self._client

    def _known(self, name: str, ask: Callable[[], Any], before: Any) -> Any:
        """What was answered last, by whatever; it is asked for anew, by a thread, if that was a while ago."""
        with self._lock:
            if name not in self._asking and time.monotonic() - self._asked.get(name, -inf) >= _FRESH_SECONDS:
                self._asking.add(name)
                self._threads.submit(self._ask, name, ask)
            return self._answers.get(name, before)

    def _ask(self, name: str, ask: Callable[[], Any]) -> None:
        try:
            self._answers[name] = ask()
        except FileStoreError as error:
            _logger.debug("What is shown of %s is not new: %s", name, error)
        except Exception:
            _logger.exception("What is shown of %s is not new.", name)
        finally:
            with self._lock:
                self._asking.discard(name)
                self._asked[name] = time.monotonic()


def _spool(directory: Path) -> dict[str, Any]:
    try:
        status = look_at(directory)
    except FileStoreError as error:
        return {"error": text_of(str(error)), "catalogs": [], "strays": 0, "damaged": 0}
    catalogs = [
        {
            "address": shown_address(each.catalog) or "no catalog is known yet",
            "error": text_of(each.error),
            "runs": dict(each.runs),
            "waiting": each.waiting,
            "lag": each.lag and round(each.lag, 1),
            "oldest": each.oldest and round(each.oldest, 1),
            "delivers": each.uploader is not None,
            "parked": [[uid, text_of(why)] for uid, why in list(each.parked.items())[:_MOST_PARKED]],
        }
        for each in status.catalogs
    ]
    return {"error": "", "catalogs": catalogs, "strays": status.strays, "damaged": len(status.damaged)}


def _listed(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the list shows it; what its metadata hold may be anything."""
    start, stop = _mapping(run.get("start")), _mapping(run.get("stop"))
    lacks = {kind: of for kind, of in _mapping(run.get("filestore")).items() if of}
    began, ended = start.get("time"), stop.get("time")
    status = text_of(stop.get("exit_status")) or ("cut short" if run.get("has_ended") else "open")
    return {
        "uid": text_of(run["key"]),
        "scan": text_of(start.get("scan_id")),
        "plan": text_of(start.get("plan_name")),
        "sample": text_of(start.get("sample")),
        "time": began if isinstance(began, int | float) else None,
        "seconds": ended - began if isinstance(began, int | float) and isinstance(ended, int | float) else None,
        "events": sum(each for each in _mapping(stop.get("num_events")).values() if isinstance(each, int)),
        "status": status,
        "frames": "lacking" if lacks else "found" if run.get("has_said") and status != "open" else "",
        "why": text_of("; ".join(_lack(kind, of) for kind, of in lacks.items())),
    }


def _lack(kind: str, of: Any) -> str:
    keys = [f"{stream}/{key}" for stream, keys in _mapping(of).items() for key in _mapping(keys)]
    return f"{kind}: {', '.join(keys)}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

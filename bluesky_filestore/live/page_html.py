"""What a notebook shows of a writer, and of a run."""

import base64
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any

from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.status import WriterStatus, described_runs
from bluesky_filestore.visible import visible_line, without_secrets

if TYPE_CHECKING:
    from tiled.client.container import Container

    from bluesky_filestore.spool_writer import SpoolWriter

    from .following_event import FollowedEvent

__all__ = ["load_ipython_extension", "run_html", "writer_html"]

_logger = get_logger(__name__)
_READ_SECONDS, _ANSWER_SECONDS, _PATIENCE_SECONDS = 0.5, 1.5, 0.1
_THUMBNAIL, _MOST_SAID = 160, 3


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext bluesky_filestore``: runs of a Tiled catalog are shown with a picture.

    They are those of bluesky-tiled-plugins, which has the clients.
    """
    shown = shell.display_formatter.formatters["text/html"]
    shown.for_type_by_name("bluesky_tiled_plugins.clients.bluesky_run", "BlueskyRun", run_html)


def writer_html(writer: "SpoolWriter") -> str:
    """What `status` says, with the last frame of the latest run; it never raises, and takes two seconds at most.

    No catalog is asked. What others wrote is text in it, and nothing that a browser carries out.
    """
    return _shown(writer, lambda: _table(_writer_rows(writer.status())), lambda: _picture(writer))


def run_html(run: "Container") -> str:
    """What a run of a catalog is, with its last frame; it never raises, and takes two seconds at most.

    What others wrote is text in it, and nothing that a browser carries out.
    """
    return _shown(run, lambda: _table(_run_rows(run.metadata)), lambda: _picture(run, _events_before_last(run)))


def _shown(thing: Any, *parts: Callable[[], str]) -> str:
    answers: list[str] = []

    def answer() -> None:
        try:
            for part in parts:
                answers.append(part())
        except Exception as error:  # noqa: BLE001 - a notebook would show its traceback instead of the thing
            _logger.debug("What a notebook shows of %r is not all: %r", thing, error)

    # In a thread, for a disk or a server that does not answer must not hold up the notebook.
    thread = threading.Thread(target=answer, name="notebook", daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    shown = "".join(answers) or _row("it does not say how it is doing")
    return f"<div><code>{_text(repr(thing))}</code>{shown}</div>"


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _writer_rows(status: WriterStatus) -> Iterator[str]:
    yield _row("documents", f"{status.documents:,} received, {status.waiting:,} not delivered yet")
    yield _row("kept in", str(status.spool or "memory"))
    if status.spool_error:
        yield _row("spool", status.spool_error)
    for each in status.catalogs:
        yield _row(each.catalog or "no catalog", described_runs(each.runs) or "no runs")
        if each.error:
            yield _row("takes no documents", each.error)
        for uid, why in list(each.parked.items())[:_MOST_SAID]:
            yield _row(f"parked {uid[:8]}", why)
    if status.open_runs:
        yield _row("going on", ", ".join(uid[:8] for uid in status.open_runs[:_MOST_SAID]))
    for problem in status.problems[-_MOST_SAID:]:
        yield _row("problem", problem)


def _run_rows(metadata: Mapping[str, Any]) -> Iterator[str]:
    start, stop = metadata["start"], metadata.get("stop") or {}
    yield _row("scan", *(str(start[name]) for name in ("scan_id", "plan_name") if name in start))
    for name in ("sample_name", "detectors", "motors"):
        if value := start.get(name):
            yield _row(
                name.removesuffix("_name"), ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            )
    with suppress(TypeError, ValueError, OverflowError):
        yield _row("began", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start.get("time"))))
    yield _row("ended", str(stop.get("exit_status") or "no stop document yet"))
    for stream, count in (stop.get("num_events") or {}).items():
        yield _row(f"stream {stream}", f"{count:,} events")
    if reason := stop.get("reason"):
        yield _row("reason", str(reason))
    for note in (metadata.get("notes") or ())[:_MOST_SAID]:
        yield _row("note", str(note))


def _events_before_last(run: "Container") -> int:
    counts: Mapping[str, int] = (run.metadata.get("stop") or {}).get("num_events") or {}
    return max(0, sum(counts.values()) - 1)


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(visible_line(without_secrets(text)).encode("utf-8", "replace").decode())


def _picture(run: Any, after: int = 0) -> str:
    """The last frame of a run, or of the one that began last, as far as it is read in time; empty if it has none."""
    # Whoever only writes loads none of it.
    from .following import follow
    from .page_frames import Look, draw

    last: tuple[str, FollowedEvent] | None = None
    until = time.monotonic() + _READ_SECONDS
    with follow(run, after=after, patience=_PATIENCE_SECONDS) as follower:
        while (event := follower.poll()) is not None and time.monotonic() < until:
            for key in event.frames:
                last = key, event
        if last is None:
            return ""
        key, shown = last
        png = draw(shown.frames[key], Look(size=_THUMBNAIL)).png
    data = base64.b64encode(png).decode()
    style = f"max-width:{_THUMBNAIL}px;image-rendering:pixelated"
    said = _text(f"{key}, event {shown.seq_num}")
    return f'<figure><img style="{style}" src="data:image/png;base64,{data}" alt=""><br>{said}</figure>'

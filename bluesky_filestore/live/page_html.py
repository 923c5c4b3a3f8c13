"""How a writer is doing, as a notebook shows it."""

import base64
import threading
import time
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.status import WriterStatus, described_runs
from bluesky_filestore.visible import visible_line, without_secrets

if TYPE_CHECKING:
    from bluesky_filestore.spool_writer import SpoolWriter

    from .following_event import FollowedEvent

__all__ = ["writer_html"]

_logger = get_logger(__name__)
_READ_SECONDS, _ANSWER_SECONDS, _PATIENCE_SECONDS = 0.5, 1.5, 0.1
_THUMBNAIL, _MOST_SAID = 160, 3


def writer_html(writer: "SpoolWriter") -> str:
    """What `status` says, with the last frame of the latest run; it never raises, and takes two seconds at most.

    No catalog is asked. What others wrote is text in it, and nothing that a browser carries out.
    """
    answers: list[str] = []

    def answer() -> None:
        try:
            answers.append(_table(writer.status()))
            answers.append(_picture(writer))
        except Exception as error:  # noqa: BLE001 - a notebook would show its traceback instead of the writer
            _logger.debug("What a notebook shows of %r is not all: %r", writer, error)

    # In a thread, for a disk that does not answer must not hold up the notebook.
    thread = threading.Thread(target=answer, name="notebook", daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    shown = "".join(answers) or _row("it does not say how it is doing")
    return f"<div><code>{_text(repr(writer))}</code>{shown}</div>"


def _table(status: WriterStatus) -> str:
    return f"<table>{''.join(_rows(status))}</table>"


def _rows(status: WriterStatus) -> Iterator[str]:
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


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(visible_line(without_secrets(text)).encode("utf-8", "replace").decode())


def _picture(writer: "SpoolWriter") -> str:
    """The last frame of the run that began last, as far as it is read in time; empty if it has none."""
    # Whoever only writes loads none of it.
    from .following import follow
    from .page_frames import Look, draw

    last: tuple[str, FollowedEvent] | None = None
    until = time.monotonic() + _READ_SECONDS
    with follow(writer, patience=_PATIENCE_SECONDS) as follower:
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

"""What the page shows, for a terminal."""

import time
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bluesky_filestore.errors import FileStoreError

from .page_frames import Look, pixels
from .page_run import RunView, StreamView
from .page_state import Watched

__all__ = ["shown"]

_BARS = "▁▂▃▄▅▆▇█"
_MOST_READINGS, _MOST_RUNS, _CURVE = 8, 8, 40


def shown(watched: Watched, size: ConsoleDimensions) -> RenderableType:
    """The latest run with its last frame and readings, spools, and the last runs.

    Parameters
    ----------
    watched : Watched
        What is shown.
    size : ConsoleDimensions
        Of the terminal.
    """
    uid = watched.latest()
    parts: list[RenderableType] = []
    if uid:
        view = watched.view(uid)
        view.looked = time.monotonic()
        parts += _run(view, size)
    else:
        parts.append(Text("no run yet", "bold"))
    parts += [Text(), *_spools(watched.delivery() or ())]
    runs = watched.heads()
    if runs is not None and (runs["runs"] or runs["why"]):
        parts += [Text(), _runs(runs)]
    return Group(*parts)


def _run(view: RunView, size: ConsoleDimensions) -> Iterator[RenderableType]:
    header = view.header()
    named = [f"scan {header['scan']}" if header["scan"] else "", header["plan"], header["sample"], header["uid"][:8]]
    state = "going on" if not header["over"] else header["status"]
    title = Text.assemble((" · ".join(filter(None, named)), "bold"), "  ", (state, _style(header)))
    yield title
    if header["error"]:
        yield Text(header["error"], "red")
    name = "primary" if "primary" in view.streams else next(iter(view.streams), "")
    stream = view.streams.get(name, StreamView())
    picture = _picture(view, name, stream, size)
    has = min((each["has"] / max(1, each["of"]) for each in header["catalogs"]), default=None)
    asked = "-" if header["asked"] is None else f"{header['asked']:,}"
    captured = f"{stream.captured:,}" if stream.keys else "-"
    catalog = "-" if has is None else f"{has:.0%}"
    yield Text(f"asked {asked}   captured {captured}   documented {stream.count:,}   in the catalog {catalog}", "dim")
    if picture is not None:
        yield picture
    yield _readings(stream, header["x"])


def _style(header: Mapping[str, Any]) -> str:
    if header["error"] or (header["over"] and header["status"] != "success"):
        return "red"
    return "green" if header["over"] else "yellow"


def _picture(view: RunView, name: str, stream: StreamView, size: ConsoleDimensions) -> RenderableType | None:
    """The last frame, two pixels a character."""
    if not (stream.keys and stream.count):
        return None
    try:
        frame = view.frame(name, stream.keys[0], stream.count - 1)
        colours = pixels(frame, Look(size=max(8, min(size.width - 2, size.height - 4, 64))))
    except FileStoreError as error:
        return Text(str(error), "yellow")
    if len(colours) % 2:
        colours = colours[:-1]
    text = Text()
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        for over, under in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({','.join(map(str, over))}) on rgb({','.join(map(str, under))})")
        text.append("\n")
    text.append(f"{stream.keys[0]}, event {stream.count:,}", "dim")
    return text


def _readings(stream: StreamView, x: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for key in sorted(stream.columns, key=lambda each: each != x)[:_MOST_READINGS]:
        values = stream.columns[key]
        last = "-" if not values or isnan(values[-1]) else f"{values[-1]:.6g}"
        table.add_row(Text(key, "dim"), Text(last), Text(_curve(values), "cyan"))
    return table


def _curve(values: Sequence[float]) -> str:
    """The course of numbers.

    Examples
    --------
    >>> _curve([1.0, 2.0, float("nan"), 3.0])
    '▁▅ █'
    """
    if not values:
        return ""
    chosen = [
        values[index] for index in np.unique(np.linspace(0, len(values) - 1, min(_CURVE, len(values))).astype(int))
    ]
    known = [each for each in chosen if not isnan(each)]
    if not known:
        return ""
    least, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if isnan(each) else _BARS[round((each - least) / span * (len(_BARS) - 1))] for each in chosen)


def _spools(spools: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    for spool in spools:
        yield Text(spool["name"], "bold")
        if spool["error"]:
            yield Text(f"  {spool['error']}", "red")
        for each in spool["catalogs"]:
            runs = ", ".join(f"{count:,} {state}" for state, count in each["runs"].items()) or "no runs"
            waits = f", {each['waiting']:,} documents wait" if each["waiting"] else ""
            lag = f" for {each['lag']:.0f} s" if each["lag"] else ""
            delivers = "" if each["delivers"] else ", nobody delivers"
            yield Text(f"  {each['address']}: {runs}{waits}{lag}{delivers}", "yellow" if each["waiting"] else "")
            if each["error"]:
                yield Text(f"  {each['error']}", "red")


def _runs(runs: Mapping[str, Any]) -> RenderableType:
    if runs["why"]:
        return Text(runs["why"], "dim")
    table = Table.grid(padding=(0, 2))
    for each in runs["runs"][:_MOST_RUNS]:
        began = time.strftime("%m-%d %H:%M", time.localtime(each["time"])) if each["time"] else ""
        fine = each["status"] == "success" and each["frames"] != "lacking"
        words = f"{each['status']}{', frames lack' if each['frames'] == 'lacking' else ''}"
        colour = "green" if fine else "yellow" if each["status"] == "open" else "red"
        name = Text(each["scan"] or "-"), Text(each["plan"]), Text(each["uid"][:8], "dim")
        table.add_row(*name, Text(began, "dim"), Text(f"{each['events']:,}"), Text(words, colour))
    return table

"""Rows that are what a handler answers, for our adapter, which asks it again whenever they are read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.model.addressing import HANDLED, HandledPart, HandledRows
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Rows, Source

from .columns import plain
from .placement import Inspector, Placement, Refusal
from .structure import answer_structure

__all__ = ["place_answers"]


def place_answers(
    rows: Rows,
    sources: Mapping[str, Source],
    data_key: Mapping[str, Any],
    inspect: Inspector,
    before: Placement | None,
    *,
    ours: bool,
) -> Placement | Refusal:
    """Express rows as what a handler is asked for each.

    Shape and dtype are those of its first answer; the rows end before the first answer that has others.

    Raises
    ------
    DocumentError
        If shape or dtype cannot be made out, or the handler's arguments cannot be kept as they are.
    """
    first = sources[rows.spans[0].source]
    if not ours:
        return Refusal(
            f"spec {first.spec!r} is read by a handler alone, and the server has no adapter that asks handlers; "
            f"expected 'bluesky_filestore.serving.adapters:handled' for {HANDLED} in its configuration"
        )
    if before is not None and not before.unverified:
        event, count, unverified = before.event, before.count, ""
    else:
        sample = _looked_at(rows, sources, range(1), inspect)[0]
        if isinstance(sample, Unseen) and sample.kind != "out of reach":
            return Refusal(sample.reason, settled=False)
        unverified = sample.reason if isinstance(sample, Unseen) else ""
        event = answer_structure(data_key, first, None if isinstance(sample, Unseen) else sample)
        count = rows.count if unverified else 1
    problem = ""
    for answer in _looked_at(rows, sources, range(count, rows.count), inspect):
        problem = _difference(answer, FileFacts(event.shape, event.dtype), count)
        if problem:
            break
        count += 1
    parts, files = _parts(rows, sources, count)
    return Placement(
        HANDLED,
        event,
        count,
        HandledRows(first.spec, parts).to_parameters(),
        files,
        unverified=unverified,
        missing=(problem or rows.problem) if count < rows.expected else "",
        settled=not problem,
    )


def _looked_at(
    rows: Rows, sources: Mapping[str, Source], wanted: range, inspect: Inspector
) -> list[FileFacts | Unseen]:
    """What the handlers answer for some of the rows."""
    seen: list[FileFacts | Unseen] = []
    for source, datum_kwargs in _asked(rows, sources, wanted):
        asked = replace(source, parameters={**source.parameters, "datum_kwargs": datum_kwargs})
        seen += inspect(asked, [source.path])
    return seen


def _asked(
    rows: Rows, sources: Mapping[str, Source], wanted: range
) -> Iterable[tuple[Source, list[Mapping[str, Any]]]]:
    """Consecutive rows of one Resource each: the Resource, and what its handler is asked for each row."""
    for span in rows.spans:
        numbers = range(max(span.start, wanted.start), min(span.stop, wanted.stop))
        if numbers:
            yield sources[span.source], [rows.datum_kwargs[row] for row in numbers]


def _difference(answer: FileFacts | Unseen, expected: FileFacts, row: int) -> str:
    if isinstance(answer, Unseen):
        return answer.reason
    if answer == expected:
        return ""
    return (
        f"its handler answers with {list(answer.shape)} {answer.dtype} for event {row}, "
        f"with {list(expected.shape)} {expected.dtype} for those before"
    )


def _parts(rows: Rows, sources: Mapping[str, Source], count: int) -> tuple[tuple[HandledPart, ...], tuple[str, ...]]:
    """The first rows as parts of the parameters, and the paths of their Resources, each once."""
    numbers: dict[str, int] = {}
    parts = []
    for source, datum_kwargs in _asked(rows, sources, range(count)):
        asset = numbers.setdefault(str(source.path), len(numbers))
        resource_kwargs, *of_datums = _kept(source, [source.parameters["resource_kwargs"], *datum_kwargs])
        parts.append(HandledPart(asset, resource_kwargs, of_datums, source.parameters["directory"]))
    return tuple(parts), tuple(numbers)


def _kept(source: Source, arguments: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Arguments of a handler as JSON holds them."""
    changed: dict[str, str] = {}
    kept: list[Mapping[str, Any]] = plain(arguments, changed)
    if changed:
        where, text = next(iter(changed.items()))
        raise DocumentError(
            f"the handler of spec {source.spec!r} is asked with {where.partition('.')[2]}={text}, for which the "
            f"parameters of a catalog have no type; expected numbers, texts, lists and mappings"
        )
    return kept

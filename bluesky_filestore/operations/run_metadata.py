"""What a run's own metadata hold: its start, what is not stored of it as it was, and sentences about its arrays."""

from collections.abc import Callable, Mapping
from typing import Any

from bluesky_filestore.model.event_record import differences, exact_json

from .arrays import Said
from .operations import CreateRun

__all__ = ["create_run", "sentences", "unstored"]


def unstored(name: str, doc: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
    """What is not stored of a document as it was, as text."""
    more = differences(doc, stored)
    return {name: exact_json(more)} if more else {}


_VERBS = {
    "refused": "is not registered",
    "missing": "ends before the events do",
    "unverified": "was not compared with its files",
    "differences": "is registered as the file says",
    "uncollected": "has more frames in its files than were documented",
}


def sentences(said: Said) -> list[str]:
    """What is said of arrays, a sentence each."""
    return [
        f"'{key}' in stream '{stream}' {_VERBS[kind]}: {_sentence(words)}"
        for kind, streams in said.items()
        for stream, keys in streams.items()
        for key, words in keys.items()
    ]


def _sentence(words: Any) -> str:
    if isinstance(words, Mapping):
        return str(words["reason"])
    return "; ".join(words) if isinstance(words, list) else str(words)


def create_run(start: Mapping[str, Any], stored: Callable[[str, Any], Any]) -> CreateRun:
    """What makes a run's container; how a value is stored is said by the caller."""
    # The two entries that bluesky-tiled-plugins takes for instructions, not for metadata.
    metadata = {key: value for key, value in start.items() if key not in ("tiled_access_tags", "tiled_specs")}
    specs = [spec if isinstance(spec, Mapping) else {"name": spec} for spec in start.get("tiled_specs") or ()]
    tags = start.get("tiled_access_tags")
    return CreateRun(
        start["uid"], {"start": stored("the start", metadata)}, tuple(specs), None if tags is None else tuple(tags)
    )

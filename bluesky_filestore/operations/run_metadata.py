"""What a run's own metadata hold: its start, what is not stored of it as it was, and sentences about its arrays."""

from collections.abc import Callable, Iterable, Mapping
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
    "unreadable": "has frames that are not in its files",
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


def create_run(
    start: Mapping[str, Any], stored: Callable[[str, Any], Any], note: Callable[[str], None] = lambda _: None
) -> CreateRun:
    """What makes a run's container; how a value is stored, and where it is noted what is left out, says the caller."""
    # The two entries that bluesky-tiled-plugins takes for instructions, not for metadata.
    metadata = {key: value for key, value in start.items() if key not in ("tiled_access_tags", "tiled_specs")}
    specs, tags = start.get("tiled_specs"), start.get("tiled_access_tags")
    taken: list[dict[str, Any]] = []
    for spec in _listed(specs):
        entry = {"name": spec} if isinstance(spec, str) else spec
        if len(taken) < _MOST_SPECS and _is_spec(entry):
            taken.append(dict(entry))
        else:
            note(f"Of the start's tiled_specs {str(spec)[:_MOST_SHOWN]!r} is left out: {_OF_SPECS}.")
    kept = None
    if tags is not None:
        kept = tuple(tag for tag in _listed(tags) if isinstance(tag, str))
        if len(kept) < len(list(_listed(tags))):
            # Fewer tags could mean fewer people, or none that has to be: that is the catalog's to say.
            kept = None
            note(f"The start's tiled_access_tags {str(tags)[:_MOST_SHOWN]!r} are left out; expected a list of texts.")
    return CreateRun(start["uid"], {"start": stored("the start", metadata)}, tuple(taken), kept)


_MOST_SPECS, _LONGEST_SPEC, _MOST_SHOWN = 19, 255, 60
_OF_SPECS = "expected up to 19 texts, or mappings of a name and perhaps a version"


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


def _is_spec(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not {"name"} <= set(entry) <= {"name", "version"}:
        return False
    version = entry.get("version")
    texts = [entry["name"], *([] if version is None else [version])]
    return all(isinstance(text, str) and 0 < len(text) <= _LONGEST_SPEC for text in texts)

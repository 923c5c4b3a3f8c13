"""What bluesky's ``TiledWriter`` can be made with, for a ``CatalogWriter`` that takes its place."""

import copy
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

from bluesky_filestore.catalogs.tiled.connecting import client_options
from bluesky_filestore.errors import OptionError
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.specs import add_spec

__all__ = ["OPTIONS", "Patch", "add_specs", "check_patches", "patched", "refuse_others", "sorted_out"]

Patch = Callable[[Any], Any]

OPTIONS: Mapping[str, str] = {
    "normalizer": "documents of every form are understood as they are; to change them use patches=, or subscribe the "
    "writer to a callback of yours",
    "backup_directory": "each document is in the spool before anything is written, and stays there if it cannot be; "
    "say with spool= where, and write it out with 'bluesky-filestore export'",
    "backup_dictionary": "each document is in the spool before anything is written, and stays there if it cannot be; "
    "see spool=",
    "max_array_size": "arrays of events are kept in the event table whatever their size; large ones belong into files",
    "ignore_errors": "nothing that goes wrong in the catalog ends a plan (on_error='warn'); what was wrong with a run "
    "is in its metadata and in status()",
}
"""The options of TiledWriter that a CatalogWriter does not have, and what it has or does instead."""

_DOCUMENTS = (
    *("start", "stop", "descriptor", "event", "event_page"),
    *("resource", "datum", "datum_page", "stream_resource", "stream_datum"),
)
_PAGES = {"event_page": "event", "bulk_events": "event", "datum_page": "datum", "bulk_datum": "datum"}


def refuse_others(options: Mapping[str, Any]) -> None:
    """Say what to use instead of an option of TiledWriter's that is set.

    Raises
    ------
    OptionError
        If one is.
    TypeError
        If one is not TiledWriter's either.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise TypeError(f"CatalogWriter has no option {name!r}.")
        if value is not None and value != []:
            raise OptionError(f"{name} is an option of TiledWriter's and none of CatalogWriter's: {OPTIONS[name]}.")


def check_patches(patches: Mapping[str, Patch] | None) -> dict[str, Patch]:
    """The functions that documents go through, by the documents' names.

    Raises
    ------
    OptionError
        If there is no such document, or one is no function.
    """
    if not isinstance(patches or {}, Mapping):
        raise OptionError(f"patches={patches!r} is no mapping; expected one of documents' names to functions.")
    for name, patch in (patches or {}).items():
        if name not in _DOCUMENTS or not callable(patch):
            raise OptionError(
                f"patches has {patch!r} for {name!r}; expected a function for one of {', '.join(_DOCUMENTS)}."
            )
    return dict(patches or {})


def add_specs(spec_to_mimetype: Mapping[str, str] | None) -> None:
    """Have the Resources of these specs taken for files of these mimetypes.

    Raises
    ------
    OptionError
        As `add_spec` does, and if it is no mapping.
    """
    if not isinstance(spec_to_mimetype or {}, Mapping):
        raise OptionError(f"spec_to_mimetype={spec_to_mimetype!r} is no mapping; expected one of specs to mimetypes.")
    for spec, mimetype in (spec_to_mimetype or {}).items():
        add_spec(spec, mimetype)


def patched(
    patches: Mapping[str, Patch], name: str, doc: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A document, or those of a page, as the functions return it; as it came where a function fails, which is said.

    A function is given a copy: nothing of what others are given changes.
    """
    single = _PAGES.get(name)
    if single in patches and name not in patches:
        for each_name, each in unpacked(name, doc):
            yield from patched(patches, each_name, each, say)
        return
    if name in patches:
        try:
            made = patches[name](copy.deepcopy(doc))
            if not isinstance(made, Mapping):
                raise TypeError(f"it returned {type(made).__name__}; expected the document")
            doc = made
        except Exception as error:  # noqa: BLE001 - anybody's code may raise anything, and must not end a plan
            say(f"the patch of {name} documents failed ({error!r}); the document is kept as it came")
    yield name, doc


def sorted_out(arguments: Mapping[str, Any], writer: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a writer, and those of a client.

    Raises
    ------
    TypeError
        If one is neither's, whether the catalog can be asked now or not.
    """
    parameters = signature(writer).parameters.values()
    ours = {parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY} | OPTIONS.keys()
    known = ours | client_options()
    for name in arguments:
        if name not in known:
            alike = get_close_matches(name, known, 1)
            advice = f"did you mean {alike[0]!r}?" if alike else f"expected some of {', '.join(sorted(known))}."
            raise TypeError(f"CatalogWriter has no option {name!r}, and neither has Tiled's client; {advice}")
    for_ours = {name: value for name, value in arguments.items() if name in ours}
    return for_ours, {name: value for name, value in arguments.items() if name not in ours}

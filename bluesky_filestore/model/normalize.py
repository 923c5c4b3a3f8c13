"""Resource, Datum and older stream documents, read as today's.

Nothing here changes a received document: what has to differ is made anew, what can stay is passed on as it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any

from bluesky_filestore.errors import DocumentError

from .addressing import HANDLED
from .event_record import RECORD_COLUMN
from .frame_map import Source, StreamRange
from .paths import (
    check_semantics,
    from_uri,
    has_one_number,
    join_resource,
    pure_path,
    semantics_of,
    with_trailing_separator,
)
from .schema_errors import schema_errors
from .specs import HDF5, NPY_SERIES, OPAQUE, spec_named

__all__ = [
    "indices_of",
    "positive",
    "range_of",
    "renamed_keys",
    "source_for_handler",
    "source_of_resource",
    "source_of_stream_resource",
    "source_of_unknown",
    "unpacked",
]

# Columns of the event table that are not data.
_RESERVED_KEYS = ("time", "seq_num", "internal", RECORD_COLUMN.removeprefix("ts_"))
_FRAMES_PER_POINT = ("frames_per_point", "frame_per_point", "multiplier")
_READER_PARAMETERS = ("swmr", "locking", "slice")
# A '%' that is itself, or where a text goes.
_PERCENT_OR_TEXT = re.compile(r"%[%s]")
_BRACES = re.compile(r"\{(\d*)(?::(0?\d*)d?)?\}")


def unpacked(name: str, doc: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Single documents from any form of page; others pass unchanged.

    Parameters
    ----------
    name : str
        The name the document came under.
    doc : Mapping
        The document.

    Yields
    ------
    tuple of str and Mapping
        Events and Datums one by one, in the order of the page.

    Raises
    ------
    DocumentError
        If a page is not of its schema; behind those that could be made of it.
    """
    if name not in _PAGES:
        yield name, doc
        return
    single, rows_of = _PAGES[name]
    with schema_errors(name, doc):
        for row in rows_of(doc):
            yield single, row


def renamed_keys(data_keys: Mapping[str, Any]) -> dict[str, str]:
    """The names of data keys that the event table needs for itself, and what they are called there instead.

    Underscores are appended, as bluesky-tiled-plugins does, until the name is free.

    Examples
    --------
    >>> renamed_keys({"time": {}, "x": {}, "ts_x": {}})
    {'time': 'time_', 'ts_x': 'ts_x_'}
    """
    timestamps = {f"ts_{key}" for key in data_keys}
    renamed: dict[str, str] = {}
    for key in data_keys:
        if key in _RESERVED_KEYS or key in timestamps:
            free = f"{key}_"
            while free in data_keys or free in timestamps:
                free += "_"
            renamed[key] = free
    return renamed


def source_of_resource(doc: Mapping[str, Any]) -> Source:
    """Where the frames of a Resource (or of a StreamResource from before event-model 1.20) are.

    The meaning of each spec is that of its public handler.

    Raises
    ------
    UnknownSpecError
        If nobody told us what the spec means.
    PathError, DocumentError
        If the document does not say where the files are.
    """
    spec = spec_named(doc["spec"])
    kwargs = doc.get("resource_kwargs", {})
    semantics = check_semantics(doc.get("path_semantics") or "posix")
    path = join_resource(doc.get("root") or "", doc["resource_path"], semantics)
    said = next((kwargs[name] for name in _FRAMES_PER_POINT if kwargs.get(name) is not None), None)
    frames, template = _count(said, "frame_per_point"), None
    # Numbered files of HDF5 are those of one that has a template, whatever the spec.
    is_series = spec.layout == "series" or (spec.mimetype == HDF5 and bool(kwargs.get("template")))
    if spec.mimetype == NPY_SERIES:
        # ophyd.sim's own convention: the path is the stem of the files.
        template, path = f"{_escaped(path)}_%d.npy", path.parent
        frames = None
    elif is_series and _BRACES.search(kwargs.get("template") or ""):
        # The convention of bluesky-tiled-plugins: put behind the path as it is, which may be the stem of the names.
        is_directory = str(doc["resource_path"]).endswith(("/", "\\"))
        name = _name_template(kwargs["template"], kwargs.get("filename", ""))
        template = with_trailing_separator(path, semantics_of(path)) if is_directory else str(path)
        template = _escaped(template) + (name.lstrip("/") if is_directory else name)
        path = path if is_directory or name.startswith("/") else path.parent
    elif is_series:
        template = _filled(kwargs, with_trailing_separator(path, semantics_of(path)), "resource_kwargs of " + spec.name)
    return Source(
        uid=doc["uid"],
        mimetype=spec.mimetype,
        path=path,
        template=template,
        dataset=kwargs.get("key") or kwargs.get("dataset") or kwargs.get("path") or spec.dataset,
        frames_per_index=(frames or 1) if spec.mimetype != NPY_SERIES else None,
        data_key=doc.get("data_key", ""),
        spec=spec.name,
        parameters={name: kwargs[name] for name in _READER_PARAMETERS if name in kwargs},
    )


def source_for_handler(doc: Mapping[str, Any]) -> Source:
    """Where a Resource is that is read by a handler alone.

    Raises
    ------
    PathError
        If the document does not say where that is.
    """
    below = doc["resource_path"]
    path = join_resource(doc.get("root") or "", below, check_semantics(doc.get("path_semantics") or "posix"))
    is_directory = str(below).endswith(("/", "\\"))
    parameters = {"resource_kwargs": doc.get("resource_kwargs", {}), "directory": is_directory}
    return Source(doc["uid"], HANDLED, path, spec=doc["spec"], parameters=parameters, is_handled=True)


def source_of_unknown(doc: Mapping[str, Any]) -> Source:
    """Where a Resource is whose spec nobody knows.

    Raises
    ------
    PathError
        If the document does not say where that is.
    """
    return replace(source_for_handler(doc), mimetype=OPAQUE, parameters={}, is_handled=False)


def source_of_stream_resource(doc: Mapping[str, Any]) -> Source:
    """Where the frames of a StreamResource are.

    Raises
    ------
    UnknownSpecError, PathError, DocumentError
        As for a Resource.
    """
    if "mimetype" not in doc:
        return source_of_resource(doc)
    parameters = doc.get("parameters", {})
    mimetype, uri = doc["mimetype"], doc["uri"]
    path = from_uri(uri)
    template = None
    if parameters.get("template"):
        # The convention is that the file's name is appended to the URI as it is.
        directory = _escaped(path) + ("/" if uri.endswith("/") and not str(path).endswith("/") else "")
        name = _name_template(parameters["template"], parameters.get("filename", ""))
        template = directory + (name.lstrip("/") if directory.endswith("/") else name)
    elif mimetype.startswith("multipart/related"):
        raise DocumentError(
            f"stream_resource {doc['uid']!r} is a series of files and has no template; "
            f"expected one among its parameters."
        )
    dataset = parameters.get("dataset") or parameters.get("path")
    if mimetype == HDF5 and not dataset:
        raise DocumentError(f"stream_resource {doc['uid']!r} names no dataset in its HDF5 file; expected one.")
    return Source(
        uid=doc["uid"],
        mimetype=mimetype,
        path=path,
        template=template,
        dataset=dataset,
        frames_per_index=_count(parameters.get("multiplier") or parameters.get("frame_per_point"), "multiplier"),
        files_per_index=_count(parameters.get("files_per_datum"), "files_per_datum"),
        data_key=doc.get("data_key", ""),
        spec=parameters.get("spec", ""),
        parameters={name: parameters[name] for name in _READER_PARAMETERS if name in parameters}
        | ({"chunk_shape": tuple(parameters["chunk_shape"])} if parameters.get("chunk_shape") else {}),
    )


def indices_of(datum: Mapping[str, Any]) -> tuple[int, int]:
    """The first index of a Datum in its resource, and how many indices it stands for.

    Raises
    ------
    DocumentError
        If the arguments of the Datum are not those of a handler that we know.
    """
    kwargs = datum.get("datum_kwargs", {})
    match kwargs:
        case {"point_number": int(index), **rest} if not rest and index >= 0:
            return index, 1
        case {"index": int(index), **rest} if not rest and index >= 0:
            return index, 1
        case {"indices": {"start": int(start), "stop": int(stop)}, **rest} if not rest and 0 <= start < stop:
            return start, stop - start
    raise DocumentError(
        f"datum {datum['datum_id']!r} has datum_kwargs {dict(kwargs)!r}; expected a 'point_number' from 0 on alone "
        f"(or, of an XSP3 resource, a 'frame' from 0 on and a 'channel' from 1 on)."
    )


def range_of(doc: Mapping[str, Any]) -> StreamRange:
    """What a StreamDatum says.

    Raises
    ------
    DocumentError
        If its indices and its sequence numbers are not equally many, and not all for one event.
    """
    start, stop = doc["indices"]["start"], doc["indices"]["stop"]
    first, last = doc["seq_nums"]["start"], doc["seq_nums"]["stop"]
    # All indices of one event are its own; whose they are of several, nobody says.
    if not 0 <= start <= stop or (stop - start != last - first and last - first != 1):
        raise DocumentError(
            f"stream_datum {doc['uid']!r} has indices {start} to {stop} for seq_nums {first} to {last}; "
            f"expected as many of the one as of the other, or one seq_num for all."
        )
    width = stop - start if last - first == 1 else 1
    return StreamRange(doc["stream_resource"], start, first, last - first, width)


def _events_of_page(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    filled = page.get("filled", {})
    for row, uid in enumerate(page["uid"]):
        yield {
            "uid": uid,
            "descriptor": page["descriptor"],
            "time": page["time"][row],
            "seq_num": page["seq_num"][row],
            "data": {key: values[row] for key, values in page["data"].items()},
            "timestamps": {key: values[row] for key, values in page["timestamps"].items()},
            "filled": {key: values[row] for key, values in filled.items()},
        }


def _datums_of_page(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row, datum_id in enumerate(page["datum_id"]):
        kwargs = {key: values[row] for key, values in page["datum_kwargs"].items()}
        yield {"datum_id": datum_id, "resource": page["resource"], "datum_kwargs": kwargs}


def _events_of_bulk(bulk: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (event for events in bulk.values() for event in events)


def _datums_of_bulk(bulk: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for datum_id, datum_kwargs in zip(bulk["datum_ids"], bulk["datum_kwarg_list"], strict=True):
        yield {"datum_id": datum_id, "datum_kwargs": datum_kwargs, "resource": bulk["resource"]}


_PAGES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]]] = {
    "event_page": ("event", _events_of_page),
    "datum_page": ("datum", _datums_of_page),
    "bulk_events": ("event", _events_of_bulk),
    "bulk_datum": ("datum", _datums_of_bulk),
}


def positive(value: Any, name: str) -> int:
    """A count that is at least one.

    Raises
    ------
    DocumentError
        If it is not.
    """
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise DocumentError(f"{name} is {value!r}; expected a whole number from 1 on.")
    return int(value)


def _count(value: Any, name: str) -> int | None:
    return None if value is None else positive(value, name)


def _escaped(path: object) -> str:
    return str(path).replace("%", "%%")


def _with_texts(template: str, *texts: str) -> str:
    """A template with its fields of texts filled in, one after the other; those that are left over stay."""
    left = iter(map(_escaped, texts))
    return _PERCENT_OR_TEXT.sub(lambda found: found[0] if found[0] == "%%" else next(left, found[0]), template)


def _filled(kwargs: Mapping[str, Any], directory: str, where: str) -> str:
    """The template of areaDetector, ``"%s%s_%6.6d.tiff"``, with directory and name filled in."""
    template, filename = kwargs.get("template"), kwargs.get("filename", "")
    if not template:
        raise DocumentError(f"{where} have no template of the files' names; expected e.g. '%s%s_%6.6d.tiff'.")
    head = _with_texts(template, directory, filename)
    if "%s" in head.replace("%%", "") or not has_one_number(head):
        raise DocumentError(
            f"{where} have the template {template!r}; expected two '%s' (directory and name) and one number."
        )
    return str(head)


def _name_template(template: str, filename: str) -> str:
    """A template of a file's name in C style, from one in C style or Python's (ophyd-async writes ``{:06d}``)."""
    if match := _BRACES.search(template):
        if len(_BRACES.findall(template)) != 1:
            raise DocumentError(f"template {template!r} has several fields; expected one, for the file's number.")
        head, tail = template[: match.start()], template[match.end() :]
        return f"{_escaped(head)}%{match.group(2) or ''}d{_escaped(tail)}"
    name = _with_texts(template, filename, *repeat("", template.count("%s")))
    if not has_one_number(name):
        raise DocumentError(f"template {template!r} has no field for the file's number; expected e.g. '%06d'.")
    return str(pure_path(name, "posix")) if "//" in name else name

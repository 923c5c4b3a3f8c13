"""Event-model's composers, for one file or one file series.

Every document that the package makes is made here, with event-model's validation on.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import event_model

from .paths import absolute_root, relative_part, semantics_of, to_uri, under_root
from .specs import Spec, spec_named

__all__ = ["compose_resource", "compose_stream_resource"]


def compose_resource(
    *,
    spec: str,
    path: str | PurePath,
    root: str | PurePath,
    resource_kwargs: Mapping[str, Any],
    uid: str | None = None,
) -> event_model.ComposeResourceBundle:
    """Make a Resource, and the composer of its Datums, for frames below `root`.

    Parameters
    ----------
    spec : str
        Any name; one from `bluesky_filestore.model.specs` says whether `path` is a file or the directory of a series.
    path : str or PurePath
        The file or directory as its readers see it: absolute and under `root`, or relative to it.
    root : str or PurePath
        Absolute; its flavour becomes the document's ``path_semantics``.
    resource_kwargs : Mapping
        What the spec's handler takes, e.g. ``{"frame_per_point": 1}``.
    uid : str, optional
        By default a new one.

    Returns
    -------
    event_model.ComposeResourceBundle
        With ``resource_doc`` and ``compose_datum(datum_kwargs)``.

    Raises
    ------
    PathError
        If the root is not absolute or the path is not under it.
    event_model.EventModelValidationError, jsonschema.ValidationError
        If the parts make no valid document.
    """
    base = absolute_root(root)
    return event_model.compose_resource(
        spec=spec,
        root=str(base),
        resource_path=_resource_path(spec, path, base),
        resource_kwargs=dict(resource_kwargs),
        path_semantics=semantics_of(base),
        uid=uid,
        validate=True,
    )


def compose_stream_resource(
    *,
    spec: str,
    path: str | PurePath,
    data_key: str,
    parameters: Mapping[str, Any],
    uid: str | None = None,
) -> event_model.ComposeStreamResourceBundle:
    """Make a StreamResource, and the composer of its StreamDatums.

    Parameters
    ----------
    spec : str
        A name from `bluesky_filestore.model.specs`: it gives the media type and, for HDF5, the dataset.
    path : str or PurePath
        The file, or the directory of a series, as its readers see it; absolute.
    data_key : str
        The key of the stream's descriptor that the frames belong to.
    parameters : Mapping
        What the reader needs, e.g. ``{"chunk_shape": (1, 512, 512)}``; stands over the spec's own.
    uid : str, optional
        By default a new one.

    Returns
    -------
    event_model.ComposeStreamResourceBundle
        With ``stream_resource_doc`` and ``compose_stream_datum(indices)``.

    Raises
    ------
    PathError
        If the path is not absolute.
    UnknownSpecError
        If the spec has no known media type.
    """
    known = spec_named(spec)
    from_spec = {"dataset": known.dataset} if known.dataset else {}
    return event_model.compose_stream_resource(
        mimetype=known.mimetype,
        uri=to_uri(path).rstrip("/") + ("/" if known.layout == "series" else ""),
        data_key=data_key,
        parameters={**from_spec, **parameters},
        uid=uid,
        validate=True,
    )


def _resource_path(spec: str, path: str | PurePath, root: PurePath) -> str:
    part = relative_part(under_root(path, root), root)
    if not _is_series(spec):
        return part
    # The separator at the end tells readers that file names follow; without it some run both together.
    separator = "\\" if semantics_of(root) == "windows" else "/"
    return part + separator


def _is_series(spec: str) -> bool:
    # A beamline's own spec is as good as ours here: only those we know to be series get the separator.
    try:
        known: Spec | None = spec_named(spec)
    except LookupError:
        known = None
    return known is not None and known.layout == "series"

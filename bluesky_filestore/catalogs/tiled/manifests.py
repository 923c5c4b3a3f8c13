"""The manifest of a run in a Tiled catalog: in the metadata of its arrays, each with the files that it is made of.

The metadata of a run are in each listing of the catalog, those of an array are asked for with its stream: there 10,000
files cost nobody who only looks for runs. What no array is made of, such as the files of one that was refused, is in
the run's metadata, if it is little.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from bluesky_filestore.model.manifest import MANIFEST, Manifest

from .connecting import catalog_errors
from .nodes import replace_entries

__all__ = ["MOST_IN_RUN", "NodeName", "read_manifest", "write_manifest"]

NodeName: TypeAlias = tuple[str, str]
"""A stream, and the name of an array in the catalog."""

MOST_IN_RUN = 1000
"""Files in the metadata of a run itself."""


def read_manifest(uid: str, nodes: Iterable[Any]) -> Manifest | None:
    """What a run's own node and its arrays say of files; None if there is nothing.

    Raises
    ------
    ManifestError
        If it cannot be understood.
    """
    parts = [node.metadata[MANIFEST] for node in nodes if MANIFEST in node.metadata]
    if not parts:
        return None
    manifest = Manifest(uid, ())
    for part in parts:
        manifest = manifest.joined(Manifest.from_columns(uid, part))
    return manifest


def write_manifest(
    run: Any, arrays: Mapping[NodeName, Any], manifest: Manifest, array_of: Callable[[str], NodeName | None]
) -> list[str]:
    """Have the catalog keep a manifest; what it has already is not sent again.

    Parameters
    ----------
    run : tiled.client.container.Container
        The run.
    arrays : Mapping
        The nodes of its arrays.
    manifest : Manifest
        What is to be kept.
    array_of : callable
        Which of them a path belongs to; None if it is none's.

    Returns
    -------
    list of str
        The paths for which there is no room.

    Raises
    ------
    CatalogError
        If the catalog does not take it.
    """
    paths: dict[NodeName, list[str]] = {}
    rest: list[str] = []
    for entry in manifest.entries:
        name = array_of(entry.path)
        (rest if name is None else paths.setdefault(name, [])).append(entry.path)
    nodes = [(arrays[name], of_array) for name, of_array in paths.items()]
    if rest and len(rest) <= MOST_IN_RUN:
        nodes.append((run, rest))
    with catalog_errors(str(run.uri), run):
        for node, of_node in nodes:
            said = manifest.of(of_node).to_columns()
            if node.metadata.get(MANIFEST) != said:
                replace_entries(node, {MANIFEST: said})
    return rest if len(rest) > MOST_IN_RUN else []

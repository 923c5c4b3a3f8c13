"""Which files the nodes of a Tiled catalog are registered with, and how they are exchanged for others.

Tiled adds files to a data source and takes single ones away; it has no request that does both. So the files of a node
are taken away from the last one on, and the others added by one request. Between them the node is there, with the rows
and the metadata that it has, and with less files at its end: who reads then gets the frames of the files that are left,
or an error, and never those of others in their places. `exchange_files` says what shall be the case, and may be called
again wherever it was interrupted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from bluesky_filestore.errors import CatalogError, RelocatedRunError, RelocationError, RunNotFoundError
from bluesky_filestore.model.relocations import RELOCATED, Relocation

from .connecting import address_of, catalog_errors
from .nodes import find_run, plain_container, replace_entries

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = [
    "NodeAsset",
    "Nodes",
    "assets_of",
    "catalog_of",
    "check_may_write",
    "check_not_relocated",
    "exchange_files",
    "node_at",
    "nodes_in_files",
    "run_nodes",
    "say_relocated",
    "unsay_relocated",
]

NodeAsset: TypeAlias = dict[str, Any]
"""A file of a node, fit for JSON: ``data_uri``, ``parameter``, ``num``, ``is_directory`` and ``size``."""


Nodes: TypeAlias = Mapping[tuple[str, ...], Any]
"""Nodes of a run, by their path in the catalog."""


def catalog_of(client: "Container") -> tuple["Container", str, str]:
    """The catalog that a client is of, its address, and the uid of the run if it is one of a run alone."""
    node = plain_container(client)
    if "start" not in node.metadata:
        return node, address_of(client), ""
    with catalog_errors(str(client.uri)):
        return node.parent, address_of(node.parent), str(node.metadata["start"]["uid"])


def run_nodes(catalog: "Container", uids: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Runs of a catalog, or all that it holds, with their keys.

    Raises
    ------
    RunNotFoundError
        If there is no such run, or more than one.
    CatalogError
        If the catalog does not answer.
    """
    with catalog_errors(str(catalog.uri)):
        if not uids:
            yield from plain_container(catalog).items()
            return
        for uid in dict.fromkeys(uids):
            key, _ = find_run(catalog, uid)
            yield key, plain_container(catalog)[key]


def nodes_in_files(key: str, node: Any) -> Nodes:
    """The nodes from this one down that are in files of others, with their data sources, by their path in the catalog.

    Raises
    ------
    CatalogError
        If the catalog does not answer.
    """
    depth = len(node.path_parts)
    with catalog_errors(str(node.uri)):
        return {(key, *each.path_parts[depth:]): each for each in _files_below(node)}


def _files_below(node: Any) -> Iterator[Any]:
    sources = node.data_sources() or []
    if any(source.management == "external" for source in sources):
        # What is below it is in its files.
        yield node
    elif node.structure_family == "container":
        for child in getattr(node, "base", node).values():
            yield from _files_below(child)


def node_at(catalog: "Container", path: Sequence[str]) -> Any:
    """A node by its path below the catalog, as it is now.

    Raises
    ------
    RunNotFoundError
        If there is none any more.
    """
    with catalog_errors(str(catalog.uri)):
        try:
            return plain_container(catalog)[tuple(path)]
        except KeyError as error:
            raise RunNotFoundError(
                f"{'/'.join(path)} is not in the catalog at {catalog.uri} any more; expected it to be there."
            ) from error


def assets_of(node: Any) -> list[NodeAsset]:
    """The files of a node, in their order."""
    (source,) = _one_source(node)
    return [_said(asset) for asset in _ordered(source.assets)]


def exchange_files(node: Any, known: Iterable[str], wanted: Sequence[NodeAsset]) -> None:
    """Have a node registered with these files, and with no others.

    Parameters
    ----------
    node : tiled.client.base.BaseClient
        As it is now.
    known : iterable of str
        The URIs of files that may be taken away.
    wanted : sequence of dict
        The files, in their order.

    Raises
    ------
    RelocationError
        If it is registered with files that are not known: somebody else has changed it.
    CatalogError
        If the catalog does not do it.
    """
    (source,) = _one_source(node)
    present = _ordered(source.assets)
    name = "/".join(node.path_parts)
    if foreign := {asset.data_uri for asset in present} - {*known, *(each["data_uri"] for each in wanted)}:
        raise RelocationError(
            f"{name} is registered with {sorted(foreign)[0]}, which it was not when this was begun; expected the files "
            f"of then: somebody else has changed it since, and it is left as it is."
        )
    alike = 0
    while alike < min(len(present), len(wanted)) and _said(present[alike]) == wanted[alike]:
        alike += 1
    with catalog_errors(str(node.uri)):
        for asset in reversed(present[alike:]):
            _remove_asset(node, asset.id)
        if len(wanted) > alike:
            try:
                _put_assets(node, source, wanted[alike:])
            except httpx.HTTPStatusError:
                # What the catalog will not have must not take from it what it had.
                _put_assets(node, source, [_said(asset) for asset in present[alike:]])
                raise


def check_may_write(node: Any) -> None:
    """Write a node's data source as it is: who may not do that should not begin to take files away.

    Raises
    ------
    CatalogError
        If the catalog does not do it.
    """
    (source,) = _one_source(node)
    with catalog_errors(str(node.uri)):
        _put_assets(node, source, ())


def say_relocated(run: Any, relocation: Relocation) -> None:
    """Write among a run's metadata that it went through a relocation, as its last one, unless that stands there.

    Raises
    ------
    CatalogError
        If the catalog does not do it.
    """
    listed = list(run.metadata.get(RELOCATED) or ())
    if relocation.uid not in [each["uid"] for each in listed]:
        with catalog_errors(str(run.uri)):
            replace_entries(run, {RELOCATED: [*listed, relocation.to_json()]})


def unsay_relocated(run: Any, relocation: Relocation) -> None:
    """Have it no more among a run's metadata.

    Raises
    ------
    CatalogError
        If the catalog does not do it.
    """
    listed = list(run.metadata.get(RELOCATED) or ())
    left = [each for each in listed if each["uid"] != relocation.uid]
    if len(left) == len(listed):
        return
    with catalog_errors(str(run.uri)):
        if left:
            replace_entries(run, {RELOCATED: left})
        else:
            run.patch_metadata(metadata_patch=[{"op": "remove", "path": f"/{RELOCATED}"}], drop_revision=True)


def check_not_relocated(run: Any, uri: str) -> None:
    """Refuse to write to a run whose files went elsewhere: what is delivered of it has the paths of before.

    Raises
    ------
    RelocatedRunError
        If they did.
    """
    if run is not None and run.metadata.get(RELOCATED):
        raise RelocatedRunError(
            f"the files of run {run.path_parts[-1]} were relocated in the catalog at {uri} since it was delivered: its "
            f"documents here have the old paths, and what is in the catalog stays as it is. To have it delivered anew, "
            f"undo that first: bluesky-filestore relocate --undo JOURNAL."
        )


def _one_source(node: Any) -> list[Any]:
    with catalog_errors(str(node.uri)):
        sources = node.data_sources() or []
    if len(sources) != 1:
        raise RelocationError(f"{'/'.join(node.path_parts)} has {len(sources)} data sources; expected one.")
    return list(sources)


def _ordered(assets: Iterable[Any]) -> list[Any]:
    # Those that no adapter is given come first, so that they are the last to be taken away.
    return sorted(assets, key=lambda asset: (asset.parameter or "", -1 if asset.num is None else asset.num))


def _said(asset: Any) -> NodeAsset:
    return {name: value for name, value in asdict(asset).items() if name != "id"}


def _remove_asset(node: Any, number: int) -> None:
    address = node.uri.replace("/metadata/", "/asset/", 1)
    response = node.context.http_client.delete(address, params={"id": number})
    if response.status_code == httpx.codes.METHOD_NOT_ALLOWED or (
        response.status_code == httpx.codes.FORBIDDEN and "raw assets" in response.text
    ):
        raise CatalogError(
            f"the catalog at {node.uri} does not take single files from a node ({response.text}); expected a Tiled "
            f"server of version 0.2.20 or later, with expose_raw_assets as it is by default."
        )
    # An earlier try may have removed it, and its answer not have come.
    if response.status_code != httpx.codes.NOT_FOUND:
        response.raise_for_status()


def _put_assets(node: Any, source: Any, wanted: Sequence[Mapping[str, Any]]) -> None:
    from tiled.structures.data_source import Asset

    said = asdict(replace(source, assets=[Asset(**asset) for asset in wanted]))
    node.context.http_client.put(
        node.uri.replace("/metadata/", "/data_source/", 1),
        content=json.dumps({"data_source": said}),
        headers={"Content-Type": "application/json"},
    ).raise_for_status()

"""Did I get my data? A run's documents, its catalog and its files, compared with one another."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from bluesky_filestore.bundles.packs import PackedRun
from bluesky_filestore.catalogs.databroker.broker import client_of, takes_documents
from bluesky_filestore.catalogs.databroker.runs import documents_of_run, run_of
from bluesky_filestore.errors import (
    CatalogUnreachableError,
    DocumentError,
    FileStoreError,
    OptionError,
    RunNotFoundError,
)
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.model.schema_errors import schema_errors
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun, Documents, passed_through
from bluesky_filestore.reading.run_tree import RunTree, trees_of_runs

from .checksums import compare_checksums
from .run_events import StreamEvents, watched
from .run_report import RunFinding, RunReport
from .whole_run import WholeRun, look_in_spools

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["verify_run", "verify_runs"]

_AT_ONCE, _A_BATCH = 4, 50
_WRITTEN_BY_US = "documents"


def verify_run(
    catalog: "Container | str | Documents",
    uid: str = "",
    *,
    root_map: Mapping[str, str] | None = None,
    every_frame: bool = False,
    checksums: bool = False,
) -> RunReport:
    """Compare a run's documents, its catalog and its files with one another; nothing is changed.

    Events are counted, frames are found in their files to the last one, and some of them, the first and the last among
    them, are read in each way that there is: by the documents, by what is registered, and through the server.

    Parameters
    ----------
    catalog : tiled.client.container.Container, databroker.v1.Broker, str, or iterable of tuple of str and Mapping
        A catalog, its address, or a run of it; databroker's as well, whose runs are looked at by their documents; or
        the documents of a run.
    uid : str, optional
        The run's, or its beginning; of a run itself, and of documents, it may be left out.
    root_map : Mapping of str to str, optional
        Where directories are now, as for `open_array`.
    every_frame : bool
        Whether each frame is read, and not some.
    checksums : bool
        Whether all of each file is read, and compared with the manifest of the run (`CatalogWriter` makes one if asked,
        and so does ``bluesky-filestore manifest``).

    Returns
    -------
    RunReport
        It shows itself with one line a check; `RunReport.ok` says whether all is well, `RunReport.exit_code` also
        whether something is wrong, or only could not be looked at.

    Raises
    ------
    RunNotFoundError
        If there is no such run, or more than one.
    DocumentError
        If documents are not those of one run, from its start on.
    CatalogError
        If the catalog does not answer.
    OptionError
        If it is not said which run is meant.
    """
    if isinstance(catalog, str):
        from bluesky_filestore.catalogs.tiled.connecting import connect

        client = connect(catalog)
        try:
            return verify_run(client, uid, root_map=root_map, every_frame=every_frame, checksums=checksums)
        finally:
            client.context.close()
    found = _find(catalog, uid)
    run = _documented(catalog, uid) if found is None else found
    packed = catalog if isinstance(catalog, PackedRun) else None
    return _verified(run, RootMap(root_map), every_frame, checksums, packed=packed)


def verify_runs(
    catalog: "Container",
    uids: Sequence[str],
    *,
    root_map: Mapping[str, str] | None = None,
    every_frame: bool = False,
    checksums: bool = False,
) -> Iterator[tuple[str, RunReport | str]]:
    """The same of many runs of a catalog, several at once.

    Yields
    ------
    tuple of str and RunReport
        What was asked for and the report, in that order; or a sentence why it could not be looked at. Once the catalog
        does not answer, it is not asked for the rest.
    """
    roots, away = RootMap(root_map), list[str]()

    def look(uid: str, tree: RunTree | None, spooled: tuple[RunFinding, ...] | None) -> RunReport | str:
        if away:
            return away[0]
        try:
            return _verified(_find(catalog, uid) if tree is None else tree, roots, every_frame, checksums, spooled)
        except CatalogUnreachableError as error:
            away.append(str(error))
            return away[0]
        except FileStoreError as error:
            return str(error)

    rest = iter(uids)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while batch := list(islice(rest, _A_BATCH)):
            trees: dict[str, RunTree] = {}
            try:
                trees = {} if away else _trees(catalog, batch)
            except CatalogUnreachableError as error:
                away.append(str(error))
            spooled = look_in_spools(trees)
            looking = [pool.submit(look, uid, trees.get(uid), spooled.get(uid)) for uid in batch]
            yield from ((uid, one.result()) for uid, one in zip(batch, looking, strict=True))


def _trees(catalog: Any, uids: Sequence[str]) -> dict[str, RunTree]:
    """Runs by their whole uid, asked for at once; what is not among them is to be looked for."""
    from bluesky_filestore.catalogs.tiled.once import without_retries

    return (
        {} if len(uids) == 1 or takes_documents(client_of(catalog)) else trees_of_runs(without_retries(catalog), uids)
    )


def _documented(documents: Documents, uid: str) -> Documents:
    """The documents of a run, of which it is seen that they are those of the one that is meant."""

    def look(documents: Documents) -> Documents:
        for name, doc in documents:
            if name == "start":
                with schema_errors(name, doc):
                    if not doc["uid"].startswith(uid):
                        words = f"the documents are those of run {doc['uid']!r}; expected those of {uid!r}."
                        raise RunNotFoundError(words)
            yield name, doc

    return passed_through(documents, look)


def _find(catalog: Any, uid: str) -> Any:
    """The node of a run, or the documents of one of databroker's; None if what was given are documents."""
    from bluesky_filestore.catalogs.tiled.nodes import find_run
    from bluesky_filestore.catalogs.tiled.once import without_retries

    given = client_of(catalog)
    if run_of(catalog) is None and not hasattr(given, "metadata"):
        return None
    of_databroker = run_of(catalog)
    if of_databroker is None and takes_documents(given):
        if not uid:
            raise OptionError(f"{given.uri} is no run; expected one, or a catalog and the uid of a run.")
        of_databroker = run_of(_of_broker(given, uid))
    if of_databroker is not None:
        return _documented(documents_of_run(of_databroker), uid)
    node = given
    if uid and "start" not in given.metadata:
        _, node = find_run(without_retries(given), uid)
    node = getattr(node, "base", node)
    if "start" not in node.metadata:
        raise OptionError(f"{node.uri} is no run; expected one, or a catalog and the uid of a run.")
    found = node.metadata["start"]["uid"]
    if not found.startswith(uid):
        raise RunNotFoundError(f"{node.uri} is run {found!r}; expected {uid!r}.")
    return node


def _of_broker(client: Any, uid: str) -> Any:
    from bluesky_filestore.catalogs.tiled.connecting import catalog_errors

    with catalog_errors(str(client.uri), client):
        try:
            return client[uid]
        except (KeyError, ValueError) as error:
            raise RunNotFoundError(f"no run of {client.uri} has uid {uid!r} ({error}); expected just one.") from error


def _verified(
    run: Any,
    root_map: RootMap,
    every_frame: bool,
    checksums: bool,
    spooled: tuple[RunFinding, ...] | None = None,
    packed: PackedRun | None = None,
) -> RunReport:
    """The report on a node, or on documents."""
    streams: dict[str, StreamEvents] = {}
    tree, documented, why = None, None, ""
    if hasattr(run, "metadata"):
        tree = run if isinstance(run, RunTree) else RunTree(run)
        uid = tree.metadata["start"]["uid"]
        try:
            documented = DocumentedRun(watched(documents_of(tree), streams), root_map)
        except DocumentError as error:
            why = str(error)
        else:
            # Of a flight there may be no event in whose absence that shows.
            if _WRITTEN_BY_US not in tree.metadata and not any(map(len, streams.values())):
                why = "its metadata have none"
        if why:
            documented, streams = None, {}
    else:
        documented = DocumentedRun(passed_through(run, partial(watched, streams=streams)), root_map)
        uid = documented.uid
    if spooled is None:
        spooled = look_in_spools([uid])[uid]
    whole = WholeRun(uid, root_map, every_frame, spooled, documented, streams, tree, why)
    findings = tuple(whole.findings())
    if checksums:
        findings += tuple(compare_checksums(uid, root_map, documented, tree, packed))
    return RunReport(findings, uid)

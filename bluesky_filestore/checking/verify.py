"""Did I get my data? A run's documents, its catalog and its files, compared with one another."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import DocumentError, FileStoreError, OptionError, RunNotFoundError
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.model.root_map import RootMap
from bluesky_filestore.reading.document_reader import documents_of
from bluesky_filestore.reading.from_documents import DocumentedRun, Documents
from bluesky_filestore.reading.from_node import registered_of
from bluesky_filestore.reading.run_tree import RunTree

from .checksums import compare_checksums
from .run_arrays import RunArray
from .run_report import RunFinding, RunReport

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["verify_run"]

_MOST_NUMBERS = 6
_AGAIN = "Deliver it again: bluesky-filestore resume --run"


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
    catalog : tiled.client.container.Container, str, or iterable of tuple of str and Mapping
        A catalog, its address, or a run of it; or the documents of a run.
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
        It shows itself with one line a check; `RunReport.ok` says whether nothing is wrong, `RunReport.exit_code` also
        whether something could not be looked at.

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
    run = _find_run(catalog, uid, RootMap(root_map), every_frame)
    findings = tuple(run.findings())
    if checksums:
        findings += tuple(compare_checksums(run.uid, run.root_map, run.documented, run.tree))
    return RunReport(findings, run.uid)


def _find_run(catalog: Any, uid: str, root_map: RootMap, every_frame: bool) -> "_Run":
    if not hasattr(catalog, "metadata"):
        documented = DocumentedRun(catalog, root_map)
        if not documented.uid.startswith(uid):
            raise RunNotFoundError(f"the documents are those of run {documented.uid!r}; expected those of {uid!r}.")
        return _Run(documented.uid, root_map, every_frame, documented=documented)
    node = catalog
    if uid and "start" not in catalog.metadata:
        from bluesky_filestore.catalogs.tiled.nodes import find_run

        _, node = find_run(catalog, uid)
    node = getattr(node, "base", node)
    if "start" not in node.metadata:
        raise OptionError(f"{node.uri} is no run; expected one, or a catalog and the uid of a run.")
    found = node.metadata["start"]["uid"]
    if not found.startswith(uid):
        raise RunNotFoundError(f"{node.uri} is run {found!r}; expected {uid!r}.")
    tree = RunTree(node)
    try:
        return _Run(found, root_map, every_frame, DocumentedRun(documents_of(tree), root_map), tree)
    except DocumentError as error:
        return _Run(found, root_map, every_frame, None, tree, str(error))


@dataclass
class _Run:
    """A run that is looked at."""

    uid: str
    """Its uid."""
    root_map: RootMap
    """Where its files are now."""
    every_frame: bool
    """Whether each frame is read."""
    documented: DocumentedRun | None
    """Its documents; None if another writer kept only what a catalog holds."""
    tree: RunTree | None = None
    """Where it is in a catalog, if it is."""
    no_documents: str = ""
    """Why there are none."""
    _taken: dict[tuple[str, str], tuple[int, set[int]]] = field(default_factory=dict)

    def findings(self) -> Iterator[RunFinding]:
        """All there is to say of it."""
        yield from self._documents()
        yield from self._end()
        for stream, seq_nums in self._events().items():
            yield from self._gaps(stream, seq_nums)
            for array in self._arrays(stream, len(seq_nums)):
                yield from array.findings()
                for path, dataset, count, numbers in array.taken():
                    known = self._taken.setdefault((path, dataset), (count, set()))
                    known[1].update(numbers)
        yield from self._untaken()
        yield from _spooled(self.uid)

    def _documents(self) -> Iterator[RunFinding]:
        if self.documented is None:
            words = "the catalog does not hold them, so that its arrays are compared with the files alone"
            yield _line("documents", "run", True, f"{words}: {self.no_documents.rstrip('.')}")
        else:
            for problem in self.documented.problems:
                yield _line("documents", "run", False, problem.rstrip("."), "See what made this document")

    def _end(self) -> Iterator[RunFinding]:
        stop = self.documented.stop if self.documented is not None else self._tree.metadata.get("stop")
        if not stop:
            words = "there is no stop document: the run is going on, or was cut short, or its end was not delivered"
            yield _line("end", "run", False, words, "See `bluesky-filestore status`")
            return
        counts = {stream: len(seq_nums) for stream, seq_nums in self._events().items()}
        # A point that was taken again is a further event of the same number, which the stop does not count.
        highest = {stream: max(seq_nums, default=0) for stream, seq_nums in self._events().items()}
        told = stop.get("num_events") or {}
        differing = {name: count for name, count in told.items() if count > highest.get(name, 0)}
        for name, count in differing.items():
            words = f"the stop document counts {count:,} events, and the last that there is is {highest.get(name, 0):,}"
            yield _line("end", name, False, words, _AGAIN)
        if not differing:
            how = stop.get("exit_status", "?")
            why = f": {stop['reason']}" if stop.get("reason") else ""
            listed = ", ".join(f"{count:,} of {name}" for name, count in counts.items()) or "none"
            yield _line("end", "run", True, f"it ended with {how!r}{why}; events: {listed}")

    def _events(self) -> Mapping[str, Sequence[int]]:
        """The sequence numbers of the events of each stream."""
        if self.documented is not None:
            return self.documented.events
        return {name: _seq_nums(self._tree.children(name)) for name in self._tree.streams}

    @property
    def _tree(self) -> RunTree:
        if self.tree is None:
            raise ValueError("a run without documents is in a catalog; expected its node.")
        return self.tree

    def _gaps(self, stream: str, seq_nums: Sequence[int]) -> Iterator[RunFinding]:
        count, shown = _left_out(set(seq_nums), range(1, max(seq_nums, default=0) + 1))
        if count:
            words = f"{count:,} events are not there, those with the sequence numbers {shown}"
            yield _line("events", stream, False, words, _AGAIN)

    def _arrays(self, stream: str, events: int) -> Iterator[RunArray]:
        if self.documented is not None:
            keys = {old: new for (name, old), (_, new) in self.documented.external.items() if name == stream}
        else:
            data_keys = self._tree.streams[stream].metadata.get("data_keys", {})
            keys = {key: key for key, entry in data_keys.items() if "external" in entry}
        nodes = self.tree.children(stream) if self.tree is not None and stream in self.tree.streams else {}
        for old, new in keys.items():
            node = nodes.get(new)
            # Files that nobody reads are in the catalog as they are, and no array.
            is_array = node is not None and node.structure_family != "bytes"
            yield self._array((stream, old), node if is_array else None, events)

    def _array(self, name: tuple[str, str], node: Any, events: int) -> RunArray:
        why, documented, stream, key = "", None, *name
        if self.documented is not None:
            why = "; ".join(self.documented.said(name))
            try:
                documented = self.documented.array(name).registered
            except FileStoreError as error:
                why = str(error)
        if self.tree is not None:
            why = self.tree.metadata.get("filestore", {}).get("refused", {}).get(stream, {}).get(key) or why
        return RunArray(
            "/".join(name),
            self.uid,
            events,
            documented,
            self._registered(node) if node is not None else None,
            node,
            why,
            self.tree is not None,
            self.every_frame,
        )

    def _registered(self, node: Any) -> Registered | None:
        try:
            return registered_of(node, self.root_map)
        except (FileStoreError, OSError):
            # What is not in files that are read here is compared through the server.
            return None

    def _untaken(self) -> Iterator[RunFinding]:
        for (path, dataset), (count, taken) in self._taken.items():
            rest, shown = _left_out(taken, range(count))
            if rest:
                words = f"{rest:,} of {count:,} frames of {dataset} in {path} belong to no event: numbers {shown}"
                yield _line("frames", "run", True, words, file=path)


def _left_out(known: Set[int], numbers: range) -> tuple[int, str]:
    """How many numbers of a range are not known, and the first of them; files and documents may claim any range."""
    count = len(numbers) - sum(number in numbers for number in known)
    first = list(islice((number for number in numbers if number not in known), min(count, _MOST_NUMBERS)))
    return count, ", ".join([*map(str, first), *(["..."] if count > len(first) else [])])


def _seq_nums(children: Mapping[str, Any]) -> list[int]:
    """Of the events of a stream of a catalog."""
    for child in children.values():
        if getattr(child, "structure_family", "") == "table" and "seq_num" in child.columns:
            return [int(number) for number in child.read(["seq_num"])["seq_num"]]
    return []


def _spooled(uid: str) -> Iterator[RunFinding]:
    """What waits for a catalog in a spool of this user."""
    from bluesky_filestore.spool.places import all_spools
    from bluesky_filestore.spool.spooled_run import find_run

    try:
        found = find_run(all_spools(), uid)
    except FileStoreError:
        return
    for run in found:
        for uri, entry in run.deliveries:
            if entry.state == "parked":
                yield _line("delivery", "run", False, f"parked for {uri}: {entry.reason}", _AGAIN)
            elif entry.state != "delivered":
                yield _line("delivery", "run", None, f"{entry.state} in {run.directory} for {uri}", "Wait for it")


def _line(check: str, name: str, ok: bool | None, words: str, advice: str = "", **concerned: Any) -> RunFinding:
    return RunFinding(check, name, ok, words, advice, **concerned)

"""Paths and documents of a file store: what every mixin of the family has.

`_fn` is the file or directory that the Resource names, `_fp` the directory, both as readers see them; `_resource_uid`
is there between `_generate_resource` and `unstage`. `_asset_docs_cache` holds what is to be collected, in order, until
the next `stage`; `_resource_collected` says that the Resource went to a run, so that the next `describe` makes another,
and `_collected_resources` are those that went. `_datum_uids` are the readings of each data key; `_locked_key_list` is
true once keys have been described or read, until `unstage`. Only the thread that runs the plan touches these.
"""

import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, get_args

from ophyd.device import BlueskyInterface, GenerateDatumInterface, Staged

from bluesky_filestore.errors import StageError, TemplateError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.model.compose import compose_resource

from .file_paths import PathProvider, PathTemplates
from .handed_out import HandedOut

__all__ = ["FileStoreBase", "check_choice"]

_log = get_logger(__name__)


def check_choice(option: str, value: str, choices: Any) -> Any:
    """Return `value` if it is one of a Literal type's.

    Raises
    ------
    ValueError
        For any other.

    Examples
    --------
    >>> from typing import Literal
    >>> check_choice("when", "today", Literal["now", "then", "never"])
    Traceback (most recent call last):
    ValueError: when is 'today'; expected 'now', 'then' or 'never'.
    """
    known = get_args(choices)
    if value not in known:
        first, last = ", ".join(map(repr, known[:-1])), known[-1]
        raise ValueError(f"{option} is {value!r}; expected {first} or {last!r}.")
    return value


class FileStoreBase(PathTemplates, BlueskyInterface, GenerateDatumInterface):
    """Base of all file store mixins: path templates, and the Resource and Datum documents.

    It is cooperative: extra arguments go up the method resolution order.

    Parameters
    ----------
    write_path_template : str
        Template for `datetime.strftime`: the directory that the IOC writes to. Absolute and under `root`, or relative
        to it; not checked if there is a `read_path_template`.
    root : str, optional
        The part of the path that is not 'semantic' and may change when the disk is mounted elsewhere. Absolute.
    path_semantics : {'posix', 'windows'}, optional
        The flavour of the write path; None for this machine's.
    read_path_template : str, optional
        The same directory as the readers see it, if that differs. Absolute and under `root`, or relative to it.
    path_provider : callable, optional
        Asked at each stage where to write, instead of the templates; see `PathProvider`.
    reg, fs : optional
        A registry with ``register_resource`` and ``register_datum``, whose ids are used then. Deprecated.

    Raises
    ------
    PathError
        If the root is not absolute, or `path_semantics` is unknown.
    TemplateError
        If there is neither a write template nor a path provider.
    """

    filestore_spec = ""
    """The ``spec`` of the Resource documents."""

    stage_sigs: "OrderedDict[Any, Any]"

    def __init__(
        self,
        *args: Any,
        write_path_template: str | PurePath | None = None,
        root: str | PurePath | None = "/",
        path_semantics: str | None = "posix",
        read_path_template: str | PurePath | None = None,
        path_provider: PathProvider | None = None,
        reg: Any = None,
        fs: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if write_path_template is None and path_provider is None:
            raise TemplateError(
                "write_path_template is required; expected a directory such as '/data/%Y/%m/%d', or a path_provider."
            )
        self.reg_root = root
        self.path_semantics = path_semantics
        self.write_path_template = write_path_template
        self.read_path_template = read_path_template
        self._path_provider = path_provider

        self._fn: str | None = None
        self._fp: str | None = None
        self._resource_uid: str | None = None
        self._resource_kwargs: dict[str, Any] | None = None
        self._resource_collected = False
        self._datum_factory: Callable[[dict[str, Any]], Any] | None = None
        self._asset_docs_cache: deque[tuple[str, Any]] = deque()
        self._collected_resources: dict[str, Any] = {}
        self._handed_out = HandedOut()
        self._locked_key_list = False
        self._datum_uids: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._reg = reg if reg is not None else fs
        if self._reg is not None:
            warnings.warn(
                f"{'fs' if reg is None else 'reg'}= is deprecated: leave it out, and the documents are made here "
                f"and collected by the RunEngine.",
                DeprecationWarning,
                stacklevel=2,
            )

    def stage(self) -> list[object]:
        """Begin anew: no keys, no documents. Subclasses call `_generate_resource` when they know their file."""
        self._begin_anew()
        staged: list[object] = super().stage()
        return staged

    def _begin_anew(self) -> None:
        self._locked_key_list = False
        self._datum_uids.clear()
        self._asset_docs_cache.clear()
        self._collected_resources.clear()
        self._handed_out.clear()

    def unstage(self) -> list[object]:
        """End the stage. Documents that nobody has collected remain collectable until the next stage."""
        self._locked_key_list = False
        self._resource_uid = None
        left = self._uncollected()
        if left:
            _log.warning(
                "%s was unstaged with %d datum documents for %s that nobody collected: no event tells of their "
                "frames. They stay in collect_asset_docs() until the next stage.",
                getattr(self, "name", self),
                left,
                self._fn,
            )
        unstaged: list[object] = super().unstage()
        return unstaged

    def _uncollected(self) -> int:
        """How many documents that name frames are still here."""
        return sum(name == "datum" for name, _ in self._asset_docs_cache)

    def _generate_resource(self, resource_kwargs: dict[str, Any]) -> None:
        """Make the Resource of the file or directory `_fn`, and queue it for collection.

        Raises
        ------
        PathError
            If `_fn` is not under the root.
        """
        if self._fn is None:
            raise StageError(f"{self} does not know its file yet; call _generate_resource after stage().")
        self._resource_kwargs = resource_kwargs
        bundle = compose_resource(
            spec=self.filestore_spec, path=self._fn, root=self.reg_root, resource_kwargs=resource_kwargs
        )
        resource: dict[str, Any] = dict(bundle.resource_doc)
        if self._reg is not None:
            resource["uid"] = self._reg.register_resource(
                spec=resource["spec"],
                root=resource["root"],
                rpath=resource["resource_path"],
                rkwargs=resource["resource_kwargs"],
                path_semantics=resource["path_semantics"],
            )
        self._resource_uid = resource["uid"]
        self._datum_factory = bundle.compose_datum
        self._resource_collected = False
        self._asset_docs_cache.append(("resource", resource))

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> str | None:
        """Make a Datum for the frames just asked for, and remember it as the latest reading of `key`.

        Parameters
        ----------
        key : str
            The data key.
        timestamp : float
            Seconds since 1970.
        datum_kwargs : dict or None
            What tells these frames from the others of the Resource.

        Returns
        -------
        str
            The datum's id.

        Raises
        ------
        StageError
            If there is no Resource, or the key is new after keys have been described; it is a RuntimeError.
        """
        self._check_key(key)
        datum = self._compose_datum(datum_kwargs or {})
        self._asset_docs_cache.append(("datum", datum))
        self._datum_uids[key].append({"value": datum["datum_id"], "timestamp": timestamp})
        return str(datum["datum_id"])

    def _check_key(self, key: str) -> None:
        if self._locked_key_list and key not in self._known_keys():
            raise StageError(
                f"modifying after lock: {key!r} is a new data key, but those of {self} have been described already as "
                f"{list(self._known_keys())}; trigger once with each key before the first describe() or read()."
            )

    def _known_keys(self) -> dict[str, None]:
        """The external data keys, in their order."""
        return dict.fromkeys((*self._predicted_keys(), *self._datum_uids))

    def _compose_datum(self, datum_kwargs: dict[str, Any]) -> dict[str, Any]:
        if self._resource_uid is None or self._datum_factory is None:
            raise StageError(f"{self} has no resource, so there can be no datum; stage it before it is triggered.")
        if self._reg is None:
            return dict(self._datum_factory(datum_kwargs))
        datum_id = self._reg.register_datum(resource_uid=self._resource_uid, datum_kwargs=datum_kwargs)
        return {"resource": self._resource_uid, "datum_id": datum_id, "datum_kwargs": datum_kwargs}

    def _predicted_keys(self) -> tuple[str, ...]:
        """The data keys that are known before the first trigger."""
        return ()

    def _make_data_key(self) -> dict[str, Any]:
        """What `describe` says of each external key; by default the detector's word."""
        return dict(self.parent.make_data_key())

    def describe(self) -> "OrderedDict[str, dict[str, Any]]":
        """The components' data keys and those of the files; while staged, no key can be added afterwards."""
        staged = self._staged == Staged.yes
        self._locked_key_list = staged
        described: OrderedDict[str, dict[str, Any]] = super().describe()
        keys = self._known_keys()
        if keys:
            data_key = self._make_data_key()
            described.update((key, dict(data_key)) for key in keys)
        if staged and self._resource_collected and self._reg is None and self._resource_kwargs is not None:
            self._renew_resource(self._resource_kwargs)
        return described

    def _renew_resource(self, resource_kwargs: dict[str, Any]) -> None:
        # A detector may stay staged for several runs or streams, each of which must be complete in itself. That a new
        # one has begun shows in its asking for a description, and that is after its first trigger and reading. So the
        # readings nobody has collected yet move to the new resource; bluesky looks at them only when it saves.
        # What a subclass has queued besides stays as it is; its Resource that went to the last run comes once more.
        old_uid, pending = self._resource_uid, list(self._asset_docs_cache)
        self._asset_docs_cache.clear()
        self._generate_resource(resource_kwargs)
        new_ids = {}
        there = {doc["uid"] for name, doc in (*self._asset_docs_cache, *pending) if name == "resource"}
        for name, doc in pending:
            if name == "datum" and doc["resource"] == old_uid:
                datum = self._compose_datum(doc["datum_kwargs"])
                new_ids[doc["datum_id"]] = datum["datum_id"]
                self._asset_docs_cache.append(("datum", datum))
                continue
            if name == "datum" and doc["resource"] in self._collected_resources and doc["resource"] not in there:
                there.add(doc["resource"])
                # A copy, without the run that bluesky has written into it: that is the last one's document.
                collected = self._collected_resources[doc["resource"]]
                copy = {entry: value for entry, value in collected.items() if entry != "run_start"}
                self._asset_docs_cache.append(("resource", copy))
            self._asset_docs_cache.append((name, doc))
        for readings in self._datum_uids.values():
            for reading in readings[-len(new_ids) :] if new_ids else ():
                reading["value"] = new_ids.get(reading["value"], reading["value"])

    def read(self) -> "OrderedDict[str, dict[str, Any]]":
        """The components' readings and, under each external key, the id of its latest Datum."""
        self._locked_key_list = self._staged == Staged.yes
        readings: OrderedDict[str, dict[str, Any]] = super().read()
        readings.update((key, of_key[-1]) for key, of_key in self._datum_uids.items())
        return readings

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        """Hand out the documents made since the last time, each once, in order.

        A Resource that a RunEngine has collected and not emitted, since it was paused or dropped an event, comes again.
        """
        documents = list(self._asset_docs_cache)
        self._asset_docs_cache.clear()
        self._collected_resources.update((doc["uid"], doc) for name, doc in documents if name == "resource")
        if documents:
            self._resource_collected = True
        yield from self._handed_out.completed(documents)

"""What is subscribed to a RunEngine: documents in, a catalog of runs out."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bluesky_filestore.bundles.follow_ups import FollowUps
from bluesky_filestore.catalog_address import comparable_address
from bluesky_filestore.catalogs.databroker.broker import raw_of
from bluesky_filestore.catalogs.given import catalogs_of, connected_or_away
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import address_of, connect, connect_profile, profile_content
from bluesky_filestore.delivery.completed import CompletedRun
from bluesky_filestore.delivery.private_spools import PrivateSpool, left_instead
from bluesky_filestore.delivery.settings import DeliverySettings
from bluesky_filestore.delivery.spooling import Spooling
from bluesky_filestore.delivery.views import views_in
from bluesky_filestore.delivery.webhook import Webhook
from bluesky_filestore.errors import OptionError, SpoolError
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.live.page_html import writer_html
from bluesky_filestore.spool.measures import Measures
from bluesky_filestore.spool.places import spool_for, spool_in
from bluesky_filestore.spool.status import CatalogStatus, WriterStatus, look_at
from bluesky_filestore.spool.store import Durability
from bluesky_filestore.spool_writer import SpoolWriter, check_options
from bluesky_filestore.tiled_writer_options import Patch, add_specs, check_patches, patched, refuse_others, sorted_out

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["CatalogWriter", "WriterStatus"]

_HOUR, _WEEK = 3600.0, 7 * 86_400.0


class CatalogWriter(SpoolWriter):
    """Writes the documents of runs into a Tiled catalog, in the tree that bluesky-tiled-plugins' clients read.

    Into a databroker of documents (`databroker.temp`, its Mongo tree) they go as they are. What it received is in the
    spool when the call returns, and is delivered to the catalog by a thread, or later by another process: a catalog
    that is slow, away or wrong neither holds up nor fails the plan; `status` tells, and `flush` and `close` raise.

    Parameters
    ----------
    client : tiled.client.container.Container, databroker.v1.Broker, or several
        The container, or broker, that the runs go into. With several, every run goes into each.
    spool : str or Path or None
        The directory in which documents are kept until they are delivered. Several processes may use one. By default
        one for each catalog in the user's directory for such things. With None documents are kept for the life of this
        process only, in memory where the machine has a place for files there: what is delivered leaves nothing. So they
        are by default for a catalog that goes with this process, such as that of ``databroker.temp()``.
    wait_on_stop : float
        For how many seconds at most a stop document waits until its run is readable in the catalog, so that it can be
        read as soon as the plan is over. It waits only while something is heard of the catalog: one that is away, or
        silent for 0.2 s and six times as long as it usually takes to answer (for a second, before it has answered three
        times), is not waited for; 0 for never.
    on_error : {"warn", "raise"}
        What to do if a document cannot be kept, e.g. on a full disk: say so in the log and go on (what cannot be kept
        on disk is kept in memory), or raise `SpoolError`, which ends the plan.
    durability : {"normal", "full"}
        What was taken is safe from a killed process at once. From a power failure it is within a second, and runs at
        their stop; with ``"full"`` each document is, before the call returns. While another process keeps the database
        locked a call takes 50 ms at most all the same: the document waits in memory then, safe from neither, which is
        an error as soon as it lasts for five seconds; `WriterStatus.unsaved` counts such documents.
    keep : float
        For how many seconds a delivered run stays in the spool.
    batch_size : int
        After how many events they are written at the latest, before `interval` is over.
    interval : float
        After how many seconds events are written although they are few.
    settle : float
        For how many seconds after a run's end its files are waited for, if some are missing or still being written.
    validate : bool
        Whether documents are checked against event-model's schemas. It costs a microsecond for an event that is of
        its schema, and is noted where a document is not; what can be understood of it is written all the same. What
        documents refer to is always checked.
    park_after : float
        For how many seconds, and three times at least, a request is tried again at which the catalog fails while it
        answers others. Then it is left out: the run is parked, with the reason, and gets the rest of what it has.
        Other runs never wait for it, and a catalog that is away uses up nobody's patience.
    reconcile : bool
        Whether each frame is looked for in its file when a run ends; what is missing is logged, and in its metadata.
    patches : mapping of str to callable, optional
        For the name of a document a function that is given each such document, a copy, and returns what is kept of it.
    checksums : bool
        Whether all files of a run are read, once the catalog has it, for their SHA-256: by one thread of low priority.
        `close` waits two seconds for it, and says what is left for ``bluesky-filestore manifest``.
    sidecars : bool
        Whether each run gets a file beside the first of its files, with its documents and the manifest of its files:
        from these ``bluesky-filestore recover`` makes a catalog anew.
    views : str or Path, optional
        A directory that a stock server may read, for small HDF5 files that show it what its adapters cannot address:
        dark and primary in one file, a rewound scan, a detector staged again. Without it these are not registered
        there. Where the server has our adapters it is not used.
    run_file : str or Path, optional
        Where each run is written as one NeXus file (`export_nexus`) once it is delivered, by a thread: a path with
        entries of its start document, e.g. ``"/data/runs/{time:%Y}/{scan_id:05d}_{uid:.8}.nxs"``. One that cannot be
        written is among the problems of `status`; ``bluesky-filestore nexus UID`` writes it later.
    on_run_complete : callable, optional
        Called with a `CompletedRun` when a run has come to its end in a catalog and its frames were looked for: once,
        by a thread that nobody waits for, in the process that delivers. What it raises is among the problems of
        `status`; while it lasts the next runs wait; it is not called for what a killed process delivered.
    webhook : str, optional
        An address that gets the same as JSON, by POST. It is in the spool until the receiver has taken it, whichever
        process sends it: at least once, with an id by which doubles are told, and for a week at the most.
    webhook_secret : str
        What these are signed with: ``X-Filestore-Signature: sha256=...``, the HMAC of the body.
    spec_to_mimetype : mapping of str to str, optional
        What the files of a Resource's spec are, for specs that are not known; in all of this process.
    **of_tiled_writer
        Other options of bluesky's ``TiledWriter``, which are refused with what to use instead, if they are set.

    Raises
    ------
    OptionError
        If an argument cannot mean anything.
    SpoolError
        If the spool cannot be used and `on_error` is ``"raise"``. Else it is logged, and there is none.

    Examples
    --------
    >>> writer = CatalogWriter.from_uri("http://localhost:8000", api_key="secret")  # doctest: +SKIP
    >>> RE.subscribe(writer)  # doctest: +SKIP
    """

    _private: PrivateSpool | None = None
    _last_status: WriterStatus | None = None
    _repr_html_ = writer_html

    def __init__(
        self,
        client: "Container | Iterable[Container] | TiledCatalog",
        *,
        spool: str | Path | None = "auto",
        wait_on_stop: float = 10.0,
        on_error: Literal["warn", "raise"] = "warn",
        durability: Durability = "normal",
        keep: float = _WEEK,
        batch_size: int = 10_000,
        interval: float = 0.5,
        settle: float = 60.0,
        validate: bool | None = True,
        park_after: float = 60.0,
        reconcile: bool = True,
        patches: Mapping[str, Patch] | None = None,
        checksums: bool = False,
        sidecars: bool = False,
        views: str | Path | None = None,
        run_file: str | Path | None = None,
        on_run_complete: Callable[[CompletedRun], object] | None = None,
        webhook: str | None = None,
        webhook_secret: str = "",
        spec_to_mimetype: Mapping[str, str] | None = None,
        **of_tiled_writer: Any,
    ) -> None:
        refuse_others(of_tiled_writer)
        self._patches = check_patches(patches)
        add_specs(spec_to_mimetype)
        how: dict[str, Any] = {"wait_on_stop": wait_on_stop, "durability": durability, "batch_size": batch_size}
        check_options(on_error=on_error, keep=keep, interval=interval, settle=settle, park_after=park_after, **how)
        beside: dict[str, Any] = {"run_file": run_file, "checksums": checksums, "sidecars": sidecars}
        self._follow_ups = FollowUps(self._say, self._is_settled, on_run_complete=on_run_complete, **beside)
        hook = None if webhook is None else Webhook(webhook, webhook_secret)
        self.catalogs = catalogs = catalogs_of(client)
        handler_registry.share_with(chain.from_iterable(each.handler_targets for each in catalogs))
        self._begin(on_error)
        settings = DeliverySettings(interval, settle, validate is not False, keep, park_after, view=views_in(views))
        settings = self._follow_ups.with_them(replace(settings, reconcile=reconcile, webhook=hook))
        spooling: Callable[..., Spooling] = partial(Spooling, catalogs=catalogs, **how)
        self._spooling = self._begin_spooling(spool, spooling, settings, keep=0.0 if run_file is None else _HOUR)
        self.directory = self._spooling.directory

    def _begin_spooling(
        self, spool: str | Path | None, spooling: Callable[..., Spooling], settings: DeliverySettings, *, keep: float
    ) -> Spooling:
        lasting = next((each.uri for each in self.catalogs if not each.is_in_memory), "")
        meant = None
        if spool is not None and (lasting or spool != "auto"):
            meant = spool_for(lasting) if spool == "auto" else spool_in(spool)
            for words in left_instead(meant):
                self._say(words)
            try:
                return spooling(meant, settings=settings)
            except SpoolError as error:
                if self._on_error == "raise":
                    raise
                self._say(f"There is no spool, documents are kept in memory only: {error}")
        # The same way, in a place of its own: the plan's thread never makes a request.
        self._private = PrivateSpool(meant)
        try:
            made = spooling(self._private.directory, settings=replace(settings, keep=keep))
        except SpoolError:
            self._private.remove()
            raise
        self._private.deliver_at_exit(made)
        return made

    @classmethod
    def from_uri(cls, uri: str, **arguments: Any) -> "CatalogWriter":
        """A writer for the catalog at an address.

        If it does not answer now, that is logged, documents are kept in the spool, and they are delivered when it does.

        Parameters
        ----------
        uri : str
            The address.
        **arguments
            Those of the writer, e.g. ``spool``; others go to ``tiled.client.from_uri``, e.g. ``api_key``.

        Raises
        ------
        CatalogUnreachableError
            If what answers at the address is no catalog. If nobody does, only with ``on_error="raise"``, without a
            spool, or without an API key: Tiled would ask for a password when the catalog is back.
        CatalogAccessError
            If the API key is not taken.
        """
        options, client_kwargs = sorted_out(arguments, CatalogWriter)
        return cls._owning(uri, partial(connect, uri, **client_kwargs), client_kwargs, options)

    @classmethod
    def from_profile(cls, name: str, **arguments: Any) -> "CatalogWriter":
        """A writer for the catalog that a Tiled profile names; arguments and errors are those of `from_uri`."""
        options, client_kwargs = sorted_out(arguments, CatalogWriter)
        content, make_client = profile_content(name), partial(connect_profile, name, **client_kwargs)
        return cls._owning(content["uri"], make_client, {**content, **client_kwargs}, options)

    @classmethod
    def from_databroker(cls, name: str, **arguments: Any) -> "CatalogWriter":
        """A writer for the catalog that ``databroker.Broker.named(name)`` gives: its ``raw``, where it has one.

        The catalog is asked, and one that is away is an error; `from_uri` is for it. Arguments are as there.
        """
        options, client_kwargs = sorted_out(arguments, CatalogWriter)
        check_options(**options)
        if name == "temp":
            raise OptionError("each databroker.temp() is another catalog; make it, and give it to CatalogWriter(...).")
        client = raw_of(connect_profile(name, **client_kwargs))
        return cls(TiledCatalog(lambda: client, address_of(client)), **options)

    @classmethod
    def _owning(
        cls,
        uri: str,
        make_client: "Callable[[], Container]",
        client_kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> "CatalogWriter":
        check_options(**options)
        may_wait = options.get("spool", "auto") is not None and options.get("on_error") != "raise"
        catalog = connected_or_away(uri, make_client, client_kwargs, may_be_away=may_wait)
        try:
            return cls(catalog, **options)
        except BaseException:
            catalog.close()
            raise

    @property
    def _measures(self) -> Measures:
        return self._spooling.store.measures

    def _put(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "stop":
            self._follow_ups.expect(self.catalogs, str(doc.get("run_start", "")))
        for each in patched(self._patches, name, doc, self._say) if self._patches else ((name, doc),):
            self._spooling.put(*each)
            if each[0] == "stop":
                self._follow_ups.add(str(each[1].get("run_start", "")), self._spooling)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was received is in the catalog.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for files that were missing or still being written when their run ended. By
            default they are looked at once more.

        Raises
        ------
        CatalogError
            If the catalog does not take it. What is in the spool stays there.
        """
        self._spooling.flush(timeout or 0.0)

    def status(self) -> WriterStatus:
        """How the writer is doing."""
        if self._last_status is not None:
            return self._last_status
        spooling, store = self._spooling, self._spooling.store
        spool = look_at(spooling.directory)
        known = {comparable_address(each.catalog): each for each in spool.catalogs}
        catalogs = []
        for uploader in spooling.uploaders:
            uri = uploader.catalog.uri
            each = known.get(comparable_address(uri), CatalogStatus(uri))
            catalogs.append(replace(each, error=str(uploader.error)) if uploader.error is not None else each)
        return WriterStatus(
            documents=store.documents,
            open_runs=store.open_runs,
            unsettled_runs=spooling.unsettled_runs,
            problems=(*self._problems, *store.losses.all(), *spooling.problems),
            catalogs=tuple(catalogs),
            spool=None if self._private is not None else spooling.directory,
            unsaved=store.unsaved,
            spool_error=str(store.error or ""),
            webhooks=spool.webhooks,
        )

    def close(self) -> None:
        """Wait until everything that was received is in the catalog, and end; raises as `flush` does.

        Files that are missing or still being written, as a detector is unstaged after its run, are waited for two
        seconds. It does not wait for a catalog that is away: what is in the spool is delivered by the next writer, or
        by ``bluesky-filestore resume``. A client that was given stays open, one that the writer made is closed. In a
        process that was forked it does nothing.
        """
        if not self._spooling.store.is_ours:
            return
        if self._private is not None:
            self._private.begin_close()
        try:
            try:
                self._spooling.close()
            finally:
                self._follow_ups.close_files()
            self._follow_ups.close(waits=True)
        finally:
            self._follow_ups.close(waits=False)
            if self._private is not None:
                with suppress(SpoolError):  # Somebody has removed the directory.
                    self._last_status = self.status()
                self._private.leave()
            for catalog in self.catalogs:
                catalog.close()

    def _is_settled(self, uid: str) -> bool:
        spooling: Spooling | None = getattr(self, "_spooling", None)
        return spooling is not None and uid not in spooling.unsettled_runs

    def __repr__(self) -> str:
        return f"<CatalogWriter for {', '.join(each.catalog.uri for each in self._spooling.uploaders)}>"

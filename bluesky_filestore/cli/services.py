"""The commands that last: deliver, and consume."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluesky_filestore.errors import SpoolError
from bluesky_filestore.logs import get_logger

from .catalog_options import ApiKey, Profile, Webhook, WebhookSecret, receiver_of
from .console import Console
from .notifying import Notifier
from .spools import Views

if TYPE_CHECKING:
    from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
    from bluesky_filestore.delivery.webhook import Webhook as Receiver
    from bluesky_filestore.sources import Source

__all__ = ["consume", "deliver"]

_logger = get_logger(__name__)
_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 5.0
_SICK, _PARKED, _INTERRUPTED = 1, 3, 130

Catalog = Annotated[str, typer.Option(help="The catalog's address.")]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Only look: exits with 0 if all spools are delivered from, with 1 if one is not, with 3 if all are "
        "and runs are parked.",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option("--metrics", help="A port on loopback where Prometheus finds /metrics; 0 for a free one.", min=0),
]


def deliver(
    spools: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SPOOL]...", help="Spools, or directories that hold some; by default all of this user."
        ),
    ] = None,
    catalog: Catalog = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    interval: Annotated[float, typer.Option(help="Seconds between two looks at a steady flow.", min=0.01)] = 0.5,
    keep: Annotated[
        float, typer.Option(help="Seconds for which a delivered run stays in its spool.", min=0)
    ] = 604_800.0,
    settle: Annotated[float, typer.Option(help="Seconds to wait for files after a run's end.", min=0)] = 60.0,
    park_after: Annotated[
        float, typer.Option(help="Seconds to try what the catalog fails at before the run is parked.", min=0)
    ] = 60.0,
    views: Views = None,
    webhook: Webhook = "",
    webhook_secret: WebhookSecret = "",
    check: Check = False,
    metrics: MetricsPort = None,
) -> None:
    """Deliver what any process puts into spools, until SIGTERM or Ctrl-C."""
    from bluesky_filestore.delivery.service import Service, spools_below
    from bluesky_filestore.delivery.settings import DeliverySettings
    from bluesky_filestore.delivery.views import views_in

    places = _places(spools)
    if check:
        raise typer.Exit(_health(places, catalog, profile))
    how: dict[str, Any] = {"interval": interval, "keep": keep, "settle": settle, "park_after": park_after}
    settings = DeliverySettings(**how, view=views_in(views), webhook=receiver_of(webhook, webhook_secret))
    with _logged(), _until_ended() as ended, _metrics(metrics, places, ended):
        service = Service(places, _maker(catalog, profile, api_key), settings)
        if not spools_below(places):
            _logger.warning("There is no spool in %s yet; it is waited for.", ", ".join(map(str, places)))
        (notifier := Notifier()).ready()
        try:
            while not ended.wait(_LOOK_SECONDS):
                service.look()
                notifier.look(service.describe(), is_alive=service.is_alive)
        finally:
            notifier.stopping()
            service.close(_CLOSE_SECONDS)


def consume(
    source: Annotated[
        str, typer.Argument(help="zmq://host:port, kafka://host:port/topic, or jsonl for the archives that follow.")
    ],
    files: Annotated[list[Path] | None, typer.Argument(help="Archives, or directories that hold some.")] = None,
    spool: Annotated[Path | None, typer.Option(help="The spool directory; by default that of the catalog.")] = None,
    catalog: Catalog = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    spool_only: Annotated[
        bool, typer.Option("--spool-only", help="Leave it to another process to deliver from the spool.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="0MQ: only publishers with this prefix.")] = "",
    curve_secret: Annotated[Path | None, typer.Option(help="0MQ: the file with our secret key (CURVE).")] = None,
    curve_server: Annotated[Path | None, typer.Option(help="0MQ: the file with the server's public key.")] = None,
    group: Annotated[str, typer.Option(help="Kafka: the consumer group.")] = "bluesky-filestore",
    kafka_config: Annotated[
        Path | None, typer.Option(help="Kafka: a file with options of librdkafka, name=value a line.")
    ] = None,
    webhook: Webhook = "",
    webhook_secret: WebhookSecret = "",
) -> None:
    """Put documents from elsewhere into a spool, and deliver them; for archives until all is delivered."""
    from bluesky_filestore.sources.archives import archives_in
    from bluesky_filestore.sources.consuming import ArchiveSource

    if (source == "jsonl") != bool(files):
        raise typer.BadParameter("files go with the source jsonl, and only with that: consume jsonl FILE...")
    if (curve_secret is None) != (curve_server is None):
        raise typer.BadParameter("--curve-secret and --curve-server go together.")
    directory, make = _target(spool, catalog, profile, api_key, spool_only=spool_only)
    console, receiver = Console(), receiver_of(webhook, webhook_secret)
    with _logged():
        if source == "jsonl":
            archives = ArchiveSource(archives_in(files or []))
            if not _pour(console, archives, directory, make, receiver):
                raise typer.Exit(_INTERRUPTED)
            fine = make is None or _deliver_all(console, directory, catalog, profile, api_key, receiver)
            if archives.faults or not fine:
                raise typer.Exit(1)
            return
        if source.startswith("kafka"):
            from bluesky_filestore.sources.kafka import KafkaSource, properties_in

            options = properties_in(kafka_config) if kafka_config is not None else {}
            _pour(console, KafkaSource(source, group=group, options=options), directory, make, receiver)
        else:
            from bluesky_filestore.sources.zmq import ZMQSource

            where = ZMQSource(source, prefix=prefix, secret=curve_secret, server=curve_server)
            _pour(console, where, directory, make, receiver)


def _pour(
    console: Console,
    source: "Source",
    directory: Path,
    make: "Callable[[], TiledCatalog] | None",
    receiver: "Receiver | None",
) -> bool:
    """Put what comes from a source into a spool, with a thread that delivers it; whether the source has ended."""
    from bluesky_filestore.delivery.service import Service
    from bluesky_filestore.delivery.settings import DeliverySettings
    from bluesky_filestore.sources.consuming import consume as pour
    from bluesky_filestore.sources.intake import Intake
    from bluesky_filestore.spool.store import Store

    with ExitStack() as stack:
        ended = stack.enter_context(_until_ended())
        stack.enter_context(closing(source))
        store = stack.enter_context(closing(Store(directory, source=source.name)))
        intake = stack.enter_context(Intake(store))
        notifier = Notifier()
        if make is not None:
            service = Service([directory], make, DeliverySettings(webhook=receiver))
            stack.callback(service.close, _CLOSE_SECONDS)
        notifier.ready()
        stack.callback(notifier.stopping)
        console.print(f"Documents from {source.name} go into {directory}.", highlight=False, soft_wrap=True)
        looked = 0.0

        def is_over() -> bool:
            nonlocal looked
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if make is not None:
                    service.look()
                words = service.describe() if make is not None else "Spools"
                notifier.look(f"{words}; {_counts(store, intake)}", is_alive=make is None or service.is_alive)
            return ended.is_set()

        has_ended = pour(source, store, intake, is_over)
        if has_ended:
            store.end_source()
        console.print(f"{_counts(store, intake)}.", highlight=False, soft_wrap=True)
        for gap in intake.gaps:
            console.print(f"  {gap}", highlight=False, soft_wrap=True, markup=False)
    return has_ended


def _counts(store: Any, intake: Any) -> str:
    words = f"{store.documents:,} documents taken, {intake.repeated:,} were there already"
    if intake.aside:
        words += f", {intake.aside:,} set aside"
    return f"{words}, {intake.lacking:,} gaps" if intake.lacking else words


def _target(
    spool: Path | None, catalog: str, profile: str, api_key: str, *, spool_only: bool
) -> "tuple[Path, Callable[[], TiledCatalog] | None]":
    """The spool directory, and what makes the catalog if we deliver."""
    from bluesky_filestore.spool.places import spool_for, spool_in

    if spool_only:
        if spool is None or catalog or profile:
            raise typer.BadParameter("--spool-only goes with --spool, and with no catalog.")
        return spool_in(spool), None
    make = _maker(catalog, profile, api_key)
    return spool_for(make().uri) if spool is None else spool_in(spool), make


def _metrics(port: int | None, places: list[Path], ended: threading.Event) -> AbstractContextManager[object]:
    """Metrics at a port, if one is given, and to OpenTelemetry where that is set up."""
    from bluesky_filestore.delivery.service import spools_below
    from bluesky_filestore.live.metrics import metrics_text, serving_metrics
    from bluesky_filestore.live.telemetry import observe

    observe(lambda: spools_below(places), ended.is_set)
    return nullcontext() if port is None else serving_metrics(port, lambda: metrics_text(spools_below(places)))


def _maker(catalog: str, profile: str, api_key: str) -> "Callable[[], TiledCatalog]":
    """What makes the catalog, which may be away.

    It is asked once: an address or a key that is wrong is an error now, not in the log of some night.
    """
    from bluesky_filestore.catalogs.given import connected_or_away
    from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
    from bluesky_filestore.catalogs.tiled.connecting import connect, connect_profile, profile_content

    if bool(catalog) == bool(profile):
        raise typer.BadParameter("say which catalog: give --catalog or --profile, one of them.")
    ours: dict[str, Any] = {"api_key": api_key} if api_key else {}
    content = {**profile_content(profile), **ours} if profile else ours
    uri = content["uri"] if profile else catalog
    make_client = partial(connect_profile, profile, **ours) if profile else partial(connect, catalog, **ours)
    with closing(connected_or_away(uri, make_client, content)) as asked:
        return partial(TiledCatalog, make_client, asked.uri)


def _places(spools: list[Path] | None) -> list[Path]:
    from bluesky_filestore.spool.places import home, spool_in

    return [spool_in(each) for each in spools] if spools else [home()]


def _health(places: list[Path], catalog: str, profile: str) -> int:
    """Whether spools are delivered from, said with a line each; the exit code."""
    from bluesky_filestore.catalog_address import comparable_address, container_address
    from bluesky_filestore.catalogs.tiled.connecting import profile_content
    from bluesky_filestore.delivery.service import spools_below
    from bluesky_filestore.spool.status import described_runs, look_at

    console, code = Console(), 0
    address = profile_content(profile)["uri"] if profile else catalog
    meant = comparable_address(container_address(address)) if address else ""
    spools = spools_below(places)
    for directory in spools:
        try:
            known = [each for each in look_at(directory).catalogs if each.catalog]
        except SpoolError as error:
            console.print(f"{directory}: {error}", highlight=False, soft_wrap=True, markup=False)
            code = _SICK
            continue
        found = [each for each in known if meant in ("", comparable_address(each.catalog))]
        if not found:
            console.print(f"{directory}: nobody delivers to {address or 'any catalog'}", soft_wrap=True, markup=False)
            code = _SICK
        for each in found:
            wrong = each.error or ("nobody delivers" if each.uploader is None else "")
            words = wrong or described_runs(each.runs) or "no runs"
            console.print(f"{directory} -> {each.catalog}: {words}", highlight=False, soft_wrap=True, markup=False)
            code = _SICK if wrong else code or (_PARKED if each.runs.get("parked") else 0)
    if not spools:
        console.print("There is no spool yet.")
    return code


def _deliver_all(
    console: Console, directory: Path, catalog: str, profile: str, api_key: str, receiver: "Receiver | None"
) -> bool:
    from .spools import deliver_to
    from .targets import find_targets

    def say(words: str) -> None:
        console.print(words, highlight=False, soft_wrap=True, markup=False)

    targets = find_targets([directory], uri=catalog, profile=profile, api_key=api_key, wait=30.0, say=say)
    fine = [deliver_to(console, target, wait=30.0, park_after=60.0, receiver=receiver) for target in targets]
    return all(fine)


@contextmanager
def _until_ended() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends at once."""
    ended = threading.Event()

    def end(number: int, frame: object) -> None:
        if ended.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logged() -> Iterator[None]:
    """What is logged goes to standard error, where systemd's journal has it."""
    logger, handler = logging.getLogger("bluesky_filestore"), logging.StreamHandler()
    is_journal = "JOURNAL_STREAM" in os.environ
    handler.setFormatter(logging.Formatter("%(message)s" if is_journal else "%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)

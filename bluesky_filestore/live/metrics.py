"""How spools and deliveries are doing, in numbers: the text that Prometheus asks for.

All of it is read from the spools, whoever works with them; nobody who takes or delivers data waits for it. The format:
https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from bluesky_filestore.errors import OptionError, SpoolError
from bluesky_filestore.logs import get_logger
from bluesky_filestore.spool.entries import STATES
from bluesky_filestore.spool.ledger import Ledger
from bluesky_filestore.spool.measures import BOUNDS, measured
from bluesky_filestore.spool.status import CatalogStatus, look_at
from bluesky_filestore.visible import shown_address

__all__ = [
    "CONTENT_TYPE",
    "KINDS",
    "PREFIX",
    "Samples",
    "metrics_text",
    "samples_of_spools",
    "serving_metrics",
    "spool_names",
]

_logger = get_logger(__name__)
_LOOPBACK, _HOSTS = "127.0.0.1", ("127.0.0.1", "localhost")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels: TypeAlias = Mapping[str, str]
Samples: TypeAlias = dict[str, list[tuple[str, _Labels, float]]]
"""By the name of what is measured: what its name ends in, its labels, and the number."""

PREFIX = "bluesky_filestore_"
"""What the names of metrics begin with."""
KINDS = {
    "spool_readable": ("gauge", "Whether the spool can be read."),
    "documents_taken_total": ("counter", "Documents that were put into the spool."),
    "callback_seconds": ("histogram", "How long a document took to be kept; a stop waits for its run to be readable."),
    "documents_stray": ("gauge", "Documents that belong to no run that was begun in this spool."),
    "databases_damaged": ("gauge", "Broken databases that were put aside."),
    "documents_delivered_total": ("counter", "Documents the catalog took, again where a run was gone through again."),
    "documents_waiting": ("gauge", "Documents the catalog has not got yet, of runs that are not parked."),
    "lag_seconds": ("gauge", "How long the oldest document has waited that the catalog has not got; 0 for none."),
    "oldest_waiting_seconds": ("gauge", "How long ago the oldest run began of which documents wait; 0 for none."),
    "runs": ("gauge", "Runs in the spool by how far they have come in the catalog."),
    "frames_missing_total": ("counter", "Events without a frame, of runs that ended; of an array a thousand at most."),
    "catalog_takes_documents": ("gauge", "Whether the catalog took documents the last time."),
    "is_delivered_to": ("gauge", "Whether a process delivers from the spool to the catalog."),
}
"""What is measured, by its name without the prefix: its kind, as Prometheus has it, and what it is."""


def metrics_text(spools: Iterable[Path]) -> str:
    """What there is to say of spools, for Prometheus.

    A spool is called as its directory is, without what that lies in, and a catalog by its address.

    Parameters
    ----------
    spools : iterable of Path
        The spool directories. Of one that cannot be read it is said that it cannot.
    """
    return "".join(
        f"# HELP {PREFIX}{metric} {KINDS[metric][1]}\n# TYPE {PREFIX}{metric} {KINDS[metric][0]}\n"
        + "".join(f"{PREFIX}{metric}{end}{_shown_labels(labels)} {_shown(value)}\n" for end, labels, value in found)
        for metric, found in samples_of_spools(spools).items()
    )


def samples_of_spools(spools: Iterable[Path]) -> Samples:
    """The numbers of spools, for each of `KINDS`; see `metrics_text`."""
    samples: Samples = {name: [] for name in KINDS}
    for directory, name in spool_names(spools).items():
        for metric, end, labels, value in _samples_of(directory):
            samples[metric].append((end, {"spool": name, **labels}, value))
    return samples


def spool_names(spools: Iterable[Path]) -> dict[Path, str]:
    """What spools are called where no path shall be shown: each by a name of its own.

    Examples
    --------
    >>> list(spool_names([Path("/a/spool"), Path("/a/other"), Path("/b/spool")]).values())
    ['spool~904a29', 'other', 'spool~df41a7']
    """
    directories = list(dict.fromkeys(spools))
    names = [directory.name for directory in directories]
    return {
        each: each.name if names.count(each.name) == 1 else f"{each.name}~{_short(str(each))}" for each in directories
    }


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _samples_of(directory: Path) -> Iterator[tuple[str, str, _Labels, float]]:
    try:
        status, taken, numbers = look_at(directory), *_counted(directory)
    except SpoolError:
        yield "spool_readable", "", {}, 0
        return
    yield "spool_readable", "", {}, 1
    yield "documents_taken_total", "", {}, taken
    yield "documents_stray", "", {}, status.strays
    yield "databases_damaged", "", {}, len(status.damaged)
    counts = measured(directory)
    for kind in ("other", "stop"):
        yield from _histogram("callback_seconds", {"document": kind}, f"callback/{kind}", counts)
    addresses = _addresses([each.catalog for each in status.catalogs if each.catalog])
    for each in status.catalogs:
        if each.catalog:
            labels = {"catalog": addresses[each.catalog]}
            number = numbers[each.catalog]
            yield from ((metric, "", {**labels, **more}, value) for metric, more, value in _of_catalog(each))
            yield "documents_delivered_total", "", labels, counts.get(f"delivered/{number}", 0)
            yield "frames_missing_total", "", labels, counts.get(f"missing/{number}", 0)


def _counted(directory: Path) -> tuple[int, dict[str, int]]:
    """How many documents were taken, and the numbers of the catalogs by address."""
    ledger = Ledger(directory)
    try:
        return ledger.last_document(), {uri: number for number, (uri, _) in ledger.catalogs().items()}
    finally:
        ledger.close()


def _of_catalog(status: CatalogStatus) -> Iterator[tuple[str, _Labels, float]]:
    yield "documents_waiting", {}, status.waiting
    yield "lag_seconds", {}, status.lag or 0
    yield "oldest_waiting_seconds", {}, status.oldest or 0
    yield "catalog_takes_documents", {}, not status.error
    yield "is_delivered_to", {}, status.uploader is not None
    for state in STATES:
        yield "runs", {"state": state}, status.runs.get(state, 0)


def _histogram(
    metric: str, labels: _Labels, name: str, counts: Mapping[str, float]
) -> Iterator[tuple[str, str, _Labels, float]]:
    total = 0.0
    for bound in (*BOUNDS, "inf"):
        total += counts.get(f"{name}/le/{bound}", 0)
        yield metric, "_bucket", {**labels, "le": "+Inf" if bound == "inf" else str(bound)}, total
    yield metric, "_sum", labels, counts.get(f"{name}/sum", 0)
    yield metric, "_count", labels, total


def _addresses(uris: Sequence[str]) -> dict[str, str]:
    """How catalogs are called: by their addresses, without what is secret of them."""
    shown = {uri: shown_address(uri) for uri in uris}
    twice = [address for address in shown.values() if list(shown.values()).count(address) > 1]
    return {uri: f"{address}~{_short(uri)}" if address in twice else address for uri, address in shown.items()}


def _shown_labels(labels: _Labels) -> str:
    r"""Labels as the format has them.

    Examples
    --------
    >>> print(_shown_labels({"spool": 'a "b"'}))
    {spool="a \"b\""}
    """
    if not labels:
        return ""
    escaped = {
        name: text.encode("utf-8", "replace").decode().replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, text in labels.items()
    }
    return "{" + ",".join(f'{name}="{text}"' for name, text in escaped.items()) + "}"


def _shown(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@contextmanager
def serving_metrics(port: int, text: Callable[[], str]) -> Iterator[int]:
    """Answer ``/metrics`` on loopback, by threads of their own, as long as the context lasts.

    There is no key: what it says names no run and no path. A request by another name than those of loopback is refused,
    for it may come of a page of strangers.

    Parameters
    ----------
    port : int
        0 takes a free one.
    text : callable
        What is answered.

    Yields
    ------
    int
        The port.

    Raises
    ------
    OptionError
        If the port cannot be used.
    """

    class Answer(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in _HOSTS:
                self._answer(HTTPStatus.BAD_REQUEST, "This is asked as 127.0.0.1 or localhost.\n")
            elif self.path.partition("?")[0] != "/metrics":
                self._answer(HTTPStatus.NOT_FOUND, "There is /metrics, and nothing else.\n")
            else:
                self._answer(HTTPStatus.OK, text())

        def _answer(self, status: HTTPStatus, words: str) -> None:
            body = words.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Nobody wants to read of each look."""

    try:
        server = ThreadingHTTPServer((_LOOPBACK, port), Answer)
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"port {port} on {_LOOPBACK} cannot be used for metrics ({error}); expected a free one, or 0."
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    _logger.info("Metrics are at http://%s:%d/metrics.", _LOOPBACK, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""How long a plan is held up by its catalog: bluesky-tiled-plugins' TiledWriter and ours, side by side in one run.

Run as ``python benchmarks/blocking.py [--events 10000]``. Each writer is given the documents of one run, as fast as it
takes them, and the time of each call is taken: with a catalog that is up, with one that is slow (each answer takes
200 ms longer), and with one that is killed in the middle. Then they come at a steady rate, so that the uploader is at
work all the time. The wait of the stop document, which ours has so that a run
can be read as soon as a plan is over, is not counted, but shown. TiledWriter raises when the catalog is gone, which
ends a plan: what is shown then are the calls up to there.
"""

import argparse
import logging
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import event_model
import httpx

SLOW_SECONDS, STEADY_PAUSE = 0.2, 0.001
KEY = "secret"
Pairs = list[tuple[str, Any]]


def documents(events: int) -> Pairs:
    """A run with five numbers an event."""
    run = event_model.compose_run()
    keys = {f"x{n}": {"source": "s", "dtype": "number", "shape": []} for n in range(5)}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    numbers = dict.fromkeys(keys, 1.5)
    singles = [
        ("event", bundle.compose_event(data=dict(numbers), timestamps=dict(numbers), validate=False))
        for _ in range(events)
    ]
    return [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), *singles, ("stop", run.compose_stop())]


@contextmanager
def server(directory: Path, *, streams: bool = False) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A catalog in a process of its own, which can be killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _SERVE, str(directory), str(port), KEY, "streams" * streams]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            uri = process.stdout.readline().strip()
            if not uri:
                raise RuntimeError("the catalog did not start")
            yield uri, process
        finally:
            process.kill()


_SERVE = """
import sys
from bluesky_filestore import serve_catalog
with serve_catalog(sys.argv[1], port=int(sys.argv[2]), api_key=sys.argv[3], streams=bool(sys.argv[4])) as catalog:
    print(catalog.uri, flush=True)
    catalog.wait()
"""


def calls(
    make: Callable[[Any], Any], client: Any, pairs: Pairs, process: subprocess.Popen[str] | None, pause: float
) -> tuple[list[float], float, str]:
    """The seconds of each call but the stop's, those of the stop's, and why the plan ended before, if it did."""
    writer = make(client)
    seconds = []
    try:
        for number, (name, doc) in enumerate(pairs[:-1]):
            if process is not None and number == len(pairs) // 2:
                process.kill()
                process.wait()
            time.sleep(pause)
            begin = time.perf_counter()
            try:
                writer(name, doc)
            finally:
                seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        writer(*pairs[-1])
        return seconds, time.perf_counter() - begin, ""
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        # Whatever a callback raises ends the plan.
        return seconds, 0.0, type(error).__name__
    finally:
        close = getattr(writer, "close", None)
        if close is not None:
            try:
                close()
            except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
                logging.getLogger(__name__).info("%s", error)


def shown(name: str, situation: str, outcome: tuple[list[float], float, str]) -> str:
    """One line of the table."""
    seconds, stop, ended = outcome
    ranked = sorted(seconds)
    p50, p99, most = statistics.median(ranked), ranked[int(0.99 * (len(ranked) - 1))], ranked[-1]
    end = f"plan ended by {ended} after {len(seconds)} documents" if ended else ""
    times = f"{p50 * 1e3:9.3f} {p99 * 1e3:9.3f} {most * 1e3:10.1f} {sum(seconds):8.1f} {stop:8.2f}"
    return f"{situation:<18} {name:<28} {times}  {end}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--only-ours", action="store_true", help="leave the peer out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from bluesky_tiled_plugins import TiledWriter
    from tiled.client import from_uri

    from bluesky_filestore import CatalogWriter

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        spools = iter(range(1000))
        ours: dict[str, Callable[[Any], Any]] = {
            "ours": lambda client: CatalogWriter(client, spool=root / f"spool{next(spools)}"),
            "ours, durability full": lambda client: CatalogWriter(
                client, spool=root / f"spool{next(spools)}", durability="full"
            ),
        }
        peers: dict[str, Callable[[Any], Any]] = {
            "TiledWriter": TiledWriter,
            "TiledWriter(batch_size=1)": lambda client: TiledWriter(client, batch_size=1),
        }
        print(f"{'catalog':<18} {'writer':<28} {'p50 ms':>9} {'p99 ms':>9} {'max ms':>10} {'sum s':>8} {'stop s':>8}")
        for situation in ("up", "slow", "killed", "up, steady"):
            for name, make in {**ours, **({} if arguments.only_ours else peers)}.items():
                # One request an event, each slow: fewer events say as much.
                few = name == "TiledWriter(batch_size=1)"
                pairs = documents(min(arguments.events, 200) if few else arguments.events)
                with server(root / f"{situation} {name}") as (uri, process):
                    client = from_uri(uri, api_key=KEY)
                    if situation == "slow":
                        client.context.http_client.event_hooks["response"].append(lambda _: time.sleep(SLOW_SECONDS))
                    pause = STEADY_PAUSE if "steady" in situation else 0.0
                    outcome = calls(make, client, pairs, process if situation == "killed" else None, pause)
                    print(shown(name, situation, outcome), flush=True)


if __name__ == "__main__":
    main()

"""How a spool with very many documents waiting is looked at and delivered.

Run as ``python benchmarks/resuming.py [--documents 1000000]``. Runs of a thousand events are put into a spool, as by a
writer whose catalog was away. Then `bluesky-filestore status` is timed, and everything is delivered to a catalog in
another process; the memory is that of the delivering process.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing
from pathlib import Path

import event_model
from blocking import KEY, server

EVENTS = 1000
MEGABYTE = 2**20


def put(spool: Path, documents: int, uri: str) -> int:
    """Fill the spool; how many documents it has."""
    from bluesky_filestore.spool import Ledger, Store

    with closing(Store(spool)) as store:
        while store.documents < documents:
            run = event_model.compose_run()
            keys = {f"x{n}": {"source": "s", "dtype": "number", "shape": []} for n in range(5)}
            bundle = run.compose_descriptor(name="primary", data_keys=keys)
            store.append("start", run.start_doc)
            store.append("descriptor", bundle.descriptor_doc)
            for number in range(EVENTS):
                values = dict.fromkeys(keys, float(number))
                store.append("event", bundle.compose_event(data=values, timestamps=values, validate=False))
            store.append("stop", run.compose_stop())
        count = store.documents
    with closing(Ledger(spool)) as ledger:
        ledger.catalog(uri)
    return count


def resident() -> float:
    """How much memory this process has, in megabytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / MEGABYTE


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from tiled.client import from_uri

    from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
    from bluesky_filestore.delivery.uploader import Uploader
    from bluesky_filestore.spool.status import look_at

    with tempfile.TemporaryDirectory() as temporary, server(Path(temporary, "catalog")) as (uri, _):
        catalog, spool = TiledCatalog(from_uri(uri, api_key=KEY)), Path(temporary, "spool")
        begin = time.perf_counter()
        count = put(spool, asked.documents, catalog.uri)
        print(f"{count} documents put into the spool in {time.perf_counter() - begin:.1f} s")
        begin = time.perf_counter()
        waiting = look_at(spool).catalogs[0].waiting
        print(f"look_at: {time.perf_counter() - begin:.3f} s, {waiting} documents waiting")
        begin = time.perf_counter()
        command = [sys.executable, "-m", "bluesky_filestore.cli", "status", str(spool)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"bluesky-filestore status: {time.perf_counter() - begin:.2f} s")
        before, most, begin = resident(), 0.0, time.perf_counter()
        uploader = Uploader(spool, catalog)
        while look_at(spool).catalogs[0].waiting:
            uploader.wake()
            time.sleep(0.5)
            most = max(most, resident())
        seconds = time.perf_counter() - begin
        uploader.close()
        print(f"delivered in {seconds:.0f} s = {count / seconds:.0f} documents/s, {most - before:+.0f} MB at most")


if __name__ == "__main__":
    main()

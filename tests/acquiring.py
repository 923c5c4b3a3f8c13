"""A process that hands documents to a CatalogWriter and may be killed at any time.

Run as a program it waits for orders on its standard input, one JSON line each, and forks a child for each: so that
importing is paid for once. A child says on its standard output, by one byte a document, what the writer has taken.
"""

import gc
import json
import os
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def acquirer():
    """A process that takes orders."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while process.stderr.readline().strip() != b"ready":
            assert process.poll() is None
        yield process
        process.stdin.close()


def acquire(order):
    """Hand the documents of a file to a writer, saying of each that it was taken."""
    from tiled.client import from_uri

    from bluesky_filestore import CatalogWriter

    client = from_uri(order["uri"], api_key=order["api_key"])
    writer = CatalogWriter(client, spool=order["spool"], interval=0.02, wait_on_stop=0.0, on_error="raise")
    for name, doc in json.loads(Path(order["documents"]).read_text()):
        # A detector's pace: whoever kills this process is to find it in the middle.
        time.sleep(0.002)
        writer(name, doc)
        os.write(1, b".")
    writer.close()
    os.write(1, b"!")


def main():
    """Take orders."""
    gc.set_threshold(20_000, 20, 20)
    # A child finds it all imported, and is killed at its work: importing would take it ten times as long as that.
    import tiled.client.array
    import tiled.client.dataframe  # noqa: F401

    import bluesky_filestore.catalog_writer
    import bluesky_filestore.catalogs.tiled.catalog
    import bluesky_filestore.delivery.uploader
    import bluesky_filestore.files.hdf5  # noqa: F401

    # What it forks it kills; Python 3.12 and later warn of that on the stream that is read.
    warnings.filterwarnings("ignore", ".*is multi-threaded, use of fork", DeprecationWarning)
    print("ready", file=sys.stderr, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                acquire(json.loads(line))
            finally:
                os._exit(1)
        print(child, file=sys.stderr, flush=True)
        os.waitpid(child, 0)
        print("over", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""How long runs of many files take to be packed, moved, unpacked into another catalog, verified and read back.

python benchmarks/packing.py --files 1 1000 10000
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killing import series

from bluesky_filestore import CatalogWriter, open_array, pack, serve_catalog, unpack, verify_run


def measure(count: int, ending: str, catalog: object, directory: Path) -> None:
    """One run there and back."""
    data = directory / f"data {count}{ending}"
    documents = list(series(data, count))
    uid = documents[0][1]["uid"]
    with CatalogWriter(catalog.client, spool=None) as writer:
        for pair in documents:
            writer(*pair)
    took: dict[str, float] = {}
    began = time.monotonic()
    packed = pack(catalog.client, uid, to=directory / f"pack {count}{ending}").path
    took["pack"] = time.monotonic() - began
    moved = packed.rename(directory / f"moved {count}{ending}")
    shutil.rmtree(data)
    elsewhere = catalog.client.create_container()
    began = time.monotonic()
    (unpacked,) = unpack(moved, elsewhere, into=directory / f"into {count}{ending}")
    took["unpack"] = time.monotonic() - began
    assert unpacked.state == "unpacked", unpacked.words
    began = time.monotonic()
    assert verify_run(elsewhere, uid).exit_code == 0
    took["verify"] = time.monotonic() - began
    values = open_array(elsewhere[uid], "image")[:, 0, 0]
    np.testing.assert_array_equal(values, np.arange(count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    words = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in took.items())
    print(f"{count:6,} files in a {ending or 'folder'}: {words}; {peak} MB with the server and all imports")


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[1, 1_000, 10_000])
    parser.add_argument("--endings", nargs="+", default=["", ".tar", ".zip"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with serve_catalog(directory / "catalog", readable=[directory]) as catalog:
            for count in options.files:
                for ending in options.endings:
                    measure(count, "" if ending == "folder" else ending, catalog, directory)


if __name__ == "__main__":
    main()

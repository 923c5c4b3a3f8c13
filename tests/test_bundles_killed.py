"""Packing and unpacking, killed at any point and gone on with: the same in the end, and nothing lost."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from effort import times
from killing import DONE, KILLED, Killing, series

from bluesky_filestore import documents, open_array, open_pack, pack, unpack
from bluesky_filestore.errors import ChangingFileError, PackError

ENDINGS = ["", ".tar", ".zip"]


@pytest.fixture(scope="module")
def killing():
    """A process that does as it is told, and is killed."""
    with Killing() as process:
        yield process


def content(path):
    """All bytes of a pack, by member."""
    if path.is_file():
        return path.read_bytes()
    return {str(each.relative_to(path)): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_pack_killed(killing, tmp_path, ending):
    """Killed between any two steps, and perhaps again, a pack is the same byte for byte as an undisturbed one."""
    docs = list(series(tmp_path / "data", 4))
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in docs))
    whole = content(pack(docs, to=tmp_path / f"whole{ending}").path)
    kill_at, outcomes = 0, []
    while outcomes[-1:] != [DONE]:
        kill_at += 1
        to = tmp_path / f"pack {kill_at}{ending}"
        outcomes.append(killing("pack", kill_at, documents=tmp_path / "run.jsonl", to=to))
        if kill_at % 3 == 0:
            # Also while it is gone on with.
            killing("pack", kill_at // 2, documents=tmp_path / "run.jsonl", to=to)
        assert content(pack(docs, to=to).path) == whole
        assert not list(tmp_path.glob("*.part*"))
        shutil.rmtree(to) if to.is_dir() else to.unlink()
    assert len(outcomes) > 20


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_changed_meanwhile(killing, tmp_path, ending):
    """What is not as it was when the pack was interrupted is packed anew: files, documents, and what was damaged."""
    docs = list(series(tmp_path / "data", 4))
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in docs))
    to, part = tmp_path / f"pack{ending}", tmp_path / f"pack{ending}.part"
    journal = part.with_name(f"{part.name}.jsonl")
    kill_at = 1
    while not journal.exists() or len(journal.read_text().splitlines()) < 4:
        kill_at += 1
        journal.unlink(missing_ok=True)
        assert killing("pack", kill_at, documents=tmp_path / "run.jsonl", to=to) == KILLED
    lines = journal.read_text().splitlines()
    third = json.loads(lines[2])
    if ending:
        data = bytearray(part.read_bytes())
        data[third["place"]["data"] + third["size"] - 1] ^= 1
        part.write_bytes(data)
    else:
        path = part / third["name"]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    np.save(tmp_path / "data" / "run_3.npy", np.array([[77, 1]], "<u2"))
    docs[0][1]["sample"] = "another"
    assert content(pack(docs, to=to).path) == content(pack(docs, to=tmp_path / f"whole{ending}").path)
    with open_pack(to) as opened:
        assert next(documents(opened[docs[0][1]["uid"]]))[1]["sample"] == "another"


def test_unpack_killed(killing, catalog, data_directory, tmp_path):
    """Killed again and again, in the files and in the delivery, all of a run is there once in the end."""
    docs = list(series(tmp_path / "data", 6))
    uid = docs[0][1]["uid"]
    packed = pack(docs, to=tmp_path / "pack.zip").path
    elsewhere, into = catalog.client.create_container(), data_directory / "killed"
    where = {"uri": elsewhere.uri, "api_key": catalog.api_key, "packed": packed, "into": into}
    outcomes = [killing("unpack", kill_at, **where) for kill_at in (12, 19, 40, 60, 68, 75, 82)]
    assert outcomes.count(KILLED) >= 5
    (unpacked,) = unpack(packed, elsewhere, into=into)
    assert (unpacked.state in ("unpacked", "there"), unpacked.words) == (True, ())
    assert sorted(path.name for path in into.rglob("*") if path.is_file()) == [f"run_{n}.npy" for n in range(6)]
    assert open_array(elsewhere[uid], "image")[:, 0, 0].tolist() == list(range(6))
    assert [name for name, _ in documents(elsewhere[uid])] == [name for name, _ in docs]


def test_one_at_a_time(tmp_path, killing):
    """Of two processes that write one pack the second is told so; one that ended is in nobody's way."""
    docs = list(series(tmp_path / "data", 3))
    inside, go_on = threading.Event(), threading.Event()

    def wait(count):
        inside.set()
        assert go_on.wait(30)

    first = threading.Thread(target=pack, args=(docs,), kwargs={"to": tmp_path / "a.tar", "on_bytes": wait})
    first.start()
    assert inside.wait(30)
    with pytest.raises(PackError, match="another process is writing"):
        pack(docs, to=tmp_path / "a.tar")
    go_on.set()
    first.join()
    assert pack(docs, to=tmp_path / "a.tar").notes == ("it was there already",)


def test_written_to_meanwhile(tmp_path):
    """A file that is written to while it is packed is an error, and there is no pack of it."""
    docs = list(series(tmp_path / "data", 3))

    def write(count):
        with (tmp_path / "data" / "run_1.npy").open("ab") as file:
            file.write(b"more")

    with pytest.raises(ChangingFileError, match="while it was packed"):
        pack(docs, to=tmp_path / "a.tar", on_bytes=write)
    assert not (tmp_path / "a.tar").exists()
    assert pack(docs, to=tmp_path / "a.tar").files == 3


PROGRAM = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import h5py, tiled.client
from killing import series
from bluesky_filestore import open_pack, pack
import bluesky_filestore.bundles.unpacking as unpacking
where, count, ending = Path({where!r}), int({count}), {ending!r}
docs = list(series(where / "data", count))
large = where / "data" / "run_0.npy"
with large.open("r+b") as file:
    file.truncate(300 << 20)
pages = int(Path("/proc/self/statm").read_text().split()[1])
before = max(pages * resource.getpagesize(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
packed = pack(iter(docs), to=where / ("pack" + ending))
assert packed.files == count, packed
with open_pack(packed.path) as opened:
    run = next(iter(opened.values()))
    target = unpacking._Target(where / "into", opened, None)
    assert target.write(run.manifest()) == packed.size
    target.check_documents(run)
print(((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before) >> 20)
"""


@pytest.mark.parametrize(("count", "ending"), [(1, ".tar"), (times(2000), ".zip")])
def test_many_and_large_files(tmp_path, count, ending):
    """Thousands of files, or one of 300 MB, take no more than 100 MB of memory, packed and unpacked, and are equal."""
    program = PROGRAM.format(tests=str(Path(__file__).parent), where=str(tmp_path), count=count, ending=ending)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100
    for name in ("run_0.npy", f"run_{count - 1}.npy"):
        (found,) = (tmp_path / "into").rglob(name)
        assert found.stat().st_size == (tmp_path / "data" / name).stat().st_size
        if count > 1 and name != "run_0.npy":
            assert found.read_bytes() == (tmp_path / "data" / name).read_bytes()

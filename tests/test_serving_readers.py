"""Files that end the process that reads them, or never let it go, end or hold up another one than the server's."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import httpx
import numpy as np
import pytest
from leaning import logged_anew  # noqa: F401
from processes import children, command_line, is_running
from test_serving_doors import ROWS, SHAPE, Place

from bluesky_filestore.errors import UnreadableFileError
from bluesky_filestore.files.hdf5 import HDF5Files
from bluesky_filestore.files.hdf5_written import LostFramesError
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.addressing import HDF5_ROWS
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.serving import reader_process
from bluesky_filestore.serving.confined import ConfinedThreads

SECONDS = 4
# What libhdf5 does with the right bit flipped, done by name: Python runs this before the reader.
FAULTS = """
import os, signal
import h5py

opened = h5py.File.__init__
read = h5py.Dataset.read_direct

def faulty(self, name, *args, **kwargs):
    path = os.path.realpath(name) if isinstance(name, str) else ""
    if "crash" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    while "hang" in path:
        pass
    if "greed" in path:
        bytearray(2**36)
    if "exit" in path:
        os._exit(3)
    return opened(self, name, *args, **kwargs)

def damaged(self, into, taken):
    if self.attrs.get("damaged") == taken[0].start:
        os.kill(os.getpid(), signal.SIGSEGV)
    read(self, into, taken)

h5py.File.__init__, h5py.Dataset.read_direct = faulty, damaged
"""
NAMES = {"crash": "SIGSEGV", "hang": "took longer than 4 s", "greed": "more memory", "exit": "exit code 3"}


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Readers fail over files of some names."""
    directory = tmp_path_factory.mktemp("faults")
    (directory / "sitecustomize.py").write_text(FAULTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        patch.setattr(reader_process, "SECONDS", SECONDS)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory, faults):
    """One server for all."""
    place = Place(tmp_path_factory.mktemp("readers"))
    with place.server:
        yield place


_before: set[int] = set()


@pytest.fixture
def threads(tmp_path):
    """Those of a server that reads in the test's directory."""
    _before.clear()
    _before.update(readers_of(os.getpid()))
    threads = ConfinedThreads(Roots.of([tmp_path]))
    yield threads
    threads.close()


@pytest.fixture
def orders(monkeypatch):
    """What processes are asked for."""
    seen = []
    asked = reader_process.ReaderProcess.asked

    def noted(self, order, *args, **kwargs):
        seen.extend([order] * ("readable" not in order))
        return asked(self, order, *args, **kwargs)

    monkeypatch.setattr(reader_process.ReaderProcess, "asked", noted)
    return seen


def hdf5(path, data=None, **options):
    """A file with one dataset; its path."""
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=np.ones(SHAPE, "u1") if data is None else data, **options)
    return path


def readers_of(pid):
    """The processes that a process has started to read."""
    return [child for child in children(pid) if "serving.reader" in command_line(child)]


def new_readers():
    """Those of the test."""
    return [reader for reader in readers_of(os.getpid()) if reader not in _before]


def wait_until(condition):
    """Wait, not for ever."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("fault", NAMES)
def test_files_that_no_process_survives(place, orders, fault):
    """They are refused with words, without another process when they are asked for again, and the server goes on."""
    path = hdf5(place.data / f"{fault}.h5")
    rows, whole = (place.register(*kind) for kind in ((HDF5_ROWS, [path], ROWS), (HDF5, [path], {"dataset": "d"})))
    for key in (rows, rows, whole):
        for by_tiled in (False, True):
            answer = place.ask(key, by_tiled=by_tiled)
            assert answer.status_code == 422
            assert str(path) in answer.json()["detail"]
            assert NAMES[fault] in answer.json()["detail"]
    assert [order["check"]["dataset"] for order in orders] == ["d"]
    assert place.ask(place.good).content == b"\1" * 16


def test_one_that_hangs_holds_up_nobody(place, orders, monkeypatch):
    """While one file is waited for, others are read, and who asks for the same one waits with the first."""
    path, link = hdf5(place.data / "hang_long.h5"), place.data / "link.h5"
    link.symlink_to(hdf5(place.data / "fine.h5"))
    bad = place.register(HDF5_ROWS, [link], ROWS)
    good = [place.register(HDF5_ROWS, [hdf5(place.data / f"beside_{number}.h5")], ROWS) for number in range(3)]
    # Who registers a file has it looked at: it hangs from now on.
    link.unlink()
    link.symlink_to(path)
    monkeypatch.setattr(reader_process, "SECONDS", 100)
    with ThreadPoolExecutor(8) as asking:
        headers = {"Authorization": f"Apikey {place.server.api_key}", "Accept": "application/octet-stream"}
        address = f"{place.server.uri}/api/v1/array/full/{bad}"
        waiting = [asking.submit(httpx.get, address, headers=headers, timeout=200) for _ in range(6)]
        for key in good:
            assert place.ask(key).content == b"\1" * 16
        assert not any(each.done() for each in waiting)
        for reader in readers_of(os.getpid()):
            os.kill(reader, signal.SIGKILL)
        answers = [each.result() for each in waiting]
    assert {answer.status_code for answer in answers} == {422}
    assert all("SIGKILL" in answer.text for answer in answers)
    # One that was idle is no file's fault.
    assert place.ask(place.register(HDF5_ROWS, [hdf5(place.data / "after.h5")], ROWS)).content == b"\1" * 16
    assert [order["check"]["path"] for order in orders].count(str(path)) == 1


FILTERS = {
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "blosc": hdf5plugin.Blosc(),
    "zstd": hdf5plugin.Zstd(),
    "lzf": {"compression": "lzf"},
    "scale offset": {"scaleoffset": 8},
}


@pytest.mark.parametrize("packed", FILTERS)
def test_what_another_process_unpacks(tmp_path, threads, packed):
    """Any frames, and any part of each, are as they are when they are read here."""
    data = np.random.default_rng(0).integers(0, 200, (9, 5, 7)).astype(">u2")
    path = str(hdf5(tmp_path / "f.h5", data, chunks=(2, 5, 4), **FILTERS[packed]))
    files, roots = HDF5Files(), Roots.of([tmp_path])
    for frames in (range(9), range(8, -1, -3), [5, 5, 0], [], range(0)):
        for part in ((), (2,), (slice(1, 4), slice(None, None, -2)), (slice(0, 0),)):
            found = threads.run(lambda: files.read(path, "d", frames, part, roots=roots))  # noqa: B023
            expected = data[(list(frames), *part)]
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected.reshape(found.shape))
            assert found.size == expected.size


def test_large_frames_come_in_pieces(tmp_path, threads, monkeypatch):
    """More than is asked for at once is put together."""
    monkeypatch.setattr("bluesky_filestore.serving.readers._BATCH_BYTES", 300)
    data = np.arange(1000, dtype="u4").reshape(10, 10, 10)
    path = str(hdf5(tmp_path / "f.h5", data, chunks=(3, 10, 10), **hdf5plugin.LZ4()))
    found = threads.run(lambda: HDF5Files().read(path, "d", range(1, 10), roots=Roots.of([tmp_path])))
    assert np.array_equal(found, data[1:10])


def test_errors_are_those_of_reading_here(tmp_path, threads):
    """A damaged chunk, and one of another size, are told of as they are elsewhere."""
    path = hdf5(tmp_path / "f.h5", np.ones((3, 8, 8), "u1"), chunks=(1, 8, 8), **hdf5plugin.LZ4())
    with h5py.File(path, "r+") as file:
        file["d"].id.write_direct_chunk((1, 0, 0), (32).to_bytes(8, "big") + b"\0" * 30)
        file["d"].id.write_direct_chunk((2, 0, 0), (64).to_bytes(8, "big") + b"\xff" * 30)
    raised = []
    for run in (threads.run, lambda call: call()):
        for frame in (1, 2):
            with pytest.raises(UnreadableFileError) as error:
                run(lambda: HDF5Files().read(str(path), "d", [frame], roots=Roots.of([tmp_path])))  # noqa: B023
            raised.append(error.value)
    assert [type(error) for error in raised[:2]] == [type(error) for error in raised[2:]]
    assert [str(error) for error in raised[:2]] == [str(error) for error in raised[2:]]
    assert isinstance(raised[0], LostFramesError)
    assert raised[0].frames == (1,)


def test_a_growing_file_is_looked_at_once(tmp_path, threads, orders):
    """Frames that come while it is read are read, packed ones too, without another look at all of it."""
    path, files, roots = tmp_path / "f.h5", HDF5Files(), Roots.of([tmp_path])
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset("d", (0, 4, 4), "u1", maxshape=(None, 4, 4), chunks=(1, 4, 4), **hdf5plugin.LZ4())
        file.swmr_mode = True
        for number in range(5):
            dataset.resize(number + 1, axis=0)
            dataset[number] = number
            dataset.flush()
            found = threads.run(lambda: files.read(str(path), "d", [number], swmr=True, roots=roots))  # noqa: B023
            assert (found == number).all()
    assert len([order for order in orders if "check" in order]) == 1
    files.close()


def test_a_chunk_that_no_process_survives(tmp_path, faults, threads):
    """It costs a process, once; what else is in the file is read."""
    path = str(hdf5(tmp_path / "f.h5", np.ones((3, 4, 4), "u1"), chunks=(1, 4, 4), **hdf5plugin.LZ4()))
    with h5py.File(path, "r+") as file:
        file["d"].attrs["damaged"] = 1
    files, roots = HDF5Files(), Roots.of([tmp_path])
    for _ in range(2):
        with pytest.raises(UnreadableFileError, match="SIGSEGV"):
            threads.run(lambda: files.read(path, "d", [1], roots=roots))
        left = new_readers()
    assert left == []
    assert threads.run(lambda: files.read(path, "d", [0, 2], roots=roots)).all()


def test_a_process_that_says_nothing(tmp_path, faults, threads):
    """It is killed, and another one takes its place."""
    path = str(hdf5(tmp_path / "f.h5", np.ones((3, 4, 4), "u1"), chunks=(1, 4, 4), **hdf5plugin.LZ4()))
    files, roots = HDF5Files(), Roots.of([tmp_path])
    assert threads.run(lambda: files.read(path, "d", [0], roots=roots)).all()
    (process,) = new_readers()
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(UnreadableFileError, match="took longer than 4 s"):
        threads.run(lambda: files.read(path, "d", [1], roots=roots))
    assert not is_running(process)
    assert threads.run(lambda: files.read(path, "d", [1], roots=roots)).all()


def test_nothing_is_left_behind(tmp_path):
    """Neither closing nor killing a server, nor an interruption in its terminal, leaves or ends a reader."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom bluesky_filestore.files.hdf5 import HDF5Files\n"
        "from bluesky_filestore.files.readable import Roots\n"
        "from bluesky_filestore.serving.confined import ConfinedThreads\n"
        "roots = Roots.of([sys.argv[1]])\nthreads = ConfinedThreads(roots)\n"
        "def read(): threads.run(lambda: HDF5Files().read(sys.argv[1] + '/f.h5', 'd', [0], roots=roots))\n"
        "read()\nprint(flush=True)\n"
        "for line in sys.stdin:\n    threads.close() if line == 'close\\n' else read()\n    print(flush=True)\n"
    )
    hdf5(tmp_path / "f.h5", chunks=SHAPE, **hdf5plugin.LZ4())
    for how in ("close", "kill", "end"):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            server.stdout.readline()
            (reader,) = readers_of(server.pid)
            assert os.getsid(reader) != os.getsid(server.pid)
            if how == "close":
                server.stdin.write("close\n")
                server.stdin.flush()
                server.stdout.readline()
            elif how == "kill":
                server.kill()
            else:
                server.stdin.close()
            wait_until(lambda: not is_running(reader))  # noqa: B023
            server.kill()


def test_readers_cannot_do_anything_else(tmp_path, threads):
    """One has no keys in its environment, and knows no more of the disk than its threads."""
    path = str(hdf5(tmp_path / "f.h5", chunks=SHAPE, **hdf5plugin.LZ4()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILED_API_KEY", "secret")
        threads.run(lambda: HDF5Files().read(path, "d", [0], roots=Roots.of([tmp_path])))
    (reader,) = new_readers()
    assert b"secret" not in Path(f"/proc/{reader}/environ").read_bytes()
    status = Path(f"/proc/{reader}/limits").read_text()
    assert "Max core file size        0" in status
    assert "Max address space         unlimited" not in status
    assert "NoNewPrivs:\t1" in Path(f"/proc/{reader}/status").read_text()


def test_where_none_can_be_started(tmp_path, threads, monkeypatch, caplog, logged_anew):  # noqa: F811
    """The log says so once, and files are read here as by everybody else."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    path = str(hdf5(tmp_path / "f.h5", chunks=SHAPE, **hdf5plugin.LZ4()))
    files, roots = HDF5Files(), Roots.of([tmp_path])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert threads.run(lambda: files.read(path, "d", [0], roots=roots)).all()
    assert [record.message[:42] for record in caplog.records] == ["No process can be started that opens HDF5 "]
    assert threading.active_count() < 100

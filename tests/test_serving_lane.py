"""Arrays over HTTP: what our server answers, by the short way and by Tiled's, and where something is wrong."""

import dataclasses
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import h5py
import httpx
import numpy as np
import pyarrow
import pytest
import tifffile
from tiled.client.utils import ClientError
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import deregister_handler, register_handler, serve_catalog
from bluesky_filestore.catalogs.tiled.relocating import assets_of, exchange_files
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, FileSeries, RowSpan
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES
from bluesky_filestore.serving import known_arrays

COUNT = 60
# Large enough that the whole array is sent in several batches.
FRAMES = np.random.default_rng(0).integers(0, 60000, (COUNT, 300, 400), dtype="u2")


def source(kind, files, shape, dtype="u2", properties=None, is_directory=False, **parameters):
    """A data source to be registered."""
    return DataSource(
        structure_family="array",
        structure=ArrayStructure(
            shape=shape,
            chunks=((7,) * (shape[0] // 7) + ((shape[0] % 7,) if shape[0] % 7 else ()), *((n,) for n in shape[1:])),
            data_type=BuiltinDtype.from_numpy_dtype(np.dtype(dtype)),
        ),
        mimetype=kind,
        parameters=parameters,
        properties=properties or {},
        management=Management.external,
        assets=[
            Asset(data_uri=f"file://localhost{file}", is_directory=is_directory, parameter="data_uris", num=num)
            for num, file in enumerate(files)
        ],
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Files with the frames."""
    directory = tmp_path_factory.mktemp("lane")
    write(directory)
    return directory


def write(directory):
    """One HDF5 file and a TIFF series."""
    with h5py.File(directory / "a.h5", "w") as file:
        file.create_dataset("d", data=FRAMES, chunks=(1, 300, 400))
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(directory / f"{number:03}.tiff", frame)


@pytest.fixture(scope="module")
def server(directory, tmp_path_factory):
    """A server with the arrays registered."""
    with serve_catalog(tmp_path_factory.mktemp("catalog"), readable=directory) as running:
        container = running.client.create_container("run").create_container("streams").create_container("primary")
        files = [directory / f"{number:03}.tiff" for number in range(COUNT)]
        series = FileSeries(TIFF_SERIES, ("%03d.tiff",), 1, (RowSpan(0, 0, COUNT, 1),)).to_parameters()
        container.new("array", [source(HDF5, [directory / "a.h5"], FRAMES.shape, dataset="d")], key="hdf5")
        container.new("array", [source(TIFF_SERIES, files, (COUNT, 1, 300, 400), properties=CHUNKS)], key="tiff")
        container.new("array", [source(FILE_SERIES, [directory], FRAMES.shape, is_directory=True, **series)], key="own")
        container.write_array(np.arange(6), key="uploaded")
        yield running


CHUNKS = {"chunks": [[COUNT], [300], [400]]}
PATH = "/api/v1/array/full/run/streams/primary/"


def get(server, path, **headers):
    """Ask as the client does, or otherwise."""
    headers = {"Authorization": f"Apikey {server.api_key}", "Accept": "application/octet-stream"} | headers
    return httpx.get(
        f"{server.uri}{path}", headers={name: value for name, value in headers.items() if value}, timeout=60
    )


def went_short(answer):
    """Whether the answer came by the short way: Tiled's tells how long each part of it took."""
    return "server-timing" not in answer.headers


@pytest.mark.parametrize("key", ["hdf5", "tiff", "own"])
def test_stock_client(server, key):
    """The stock client gets frames, parts, chunks and the whole array."""
    node = server.client["run/streams/primary"][key]
    expected = FRAMES.reshape(node.shape)
    assert (node[17] == expected[17]).all()
    assert (node[-1, ..., 5:9] == expected[-1, ..., 5:9]).all()
    assert (node[3:50:9, ..., 2] == expected[3:50:9, ..., 2]).all()
    assert (node.read_block((1,) + (0,) * (len(node.shape) - 1)) == expected[7:14]).all()
    assert (node.read() == expected).all()


@pytest.mark.parametrize("key", ["hdf5", "tiff", "own"])
@pytest.mark.parametrize(
    "query", ["", "?slice=5", "?slice=5:50:7", "?slice=::-1,...", "?slice=5&expected_shape=300,400", "?slice=59,0:2"]
)
def test_short_way_and_tiled_s(server, key, query):
    """Both ways give the same bytes."""
    path = f"{PATH}{key}{query.replace(',...', '')}"
    if key == "tiff":
        path = path.replace("300,400", "1,300,400")
    short, long = get(server, path), get(server, path, Origin="http://elsewhere")
    assert (went_short(short), went_short(long)) == (True, False)
    assert short.status_code == long.status_code == 200
    assert short.content == long.content


@pytest.mark.parametrize("query", ["", "&column=b", "&column=c&column=a", "&column=nothing", "&what=1", "&partition=0"])
def test_rows_by_both_ways(server, query):
    """Rows of a table are the same by both ways, also after more were appended; what is not there Tiled says."""
    table = server.client["run/streams/primary"]
    if "table" not in table:
        rows = pyarrow.table({"a": [1, 2, 3], "b": [0.5, None, 1.5], "c": ["x", "ü", None]})
        table.create_appendable_table(rows.schema, key="table").append_partition(0, rows)
    path = f"/api/v1/table/partition/run/streams/primary/table?partition=0{query}"
    arrow = "application/vnd.apache.arrow.file"
    counts = []
    for _ in range(2):
        short, long = get(server, path, Accept=arrow), get(server, path, Accept=arrow, Origin="http://elsewhere")
        assert short.status_code == long.status_code
        if "nothing" in query:
            # It is for Tiled to say, by either way.
            assert short.status_code >= 400
            assert short.content == long.content
            return
        assert (went_short(short), went_short(long)) == (query in ("", "&column=b", "&column=c&column=a"), False)
        # Not the bytes, of which those beside the values are any.
        one, other = (pyarrow.ipc.open_file(answer.content).read_all() for answer in (short, long))
        assert one.schema.equals(other.schema, check_metadata=True)
        assert one.equals(other)
        counts.append(len(one))
        table["table"].append_partition(0, pyarrow.table({"a": [4], "b": [2.5], "c": ["y"]}))
    assert counts[1] == counts[0] + 1 > 3


def test_frame_is_read_once(server, directory):
    """A frame of many batches is asked of its handler once, and one of several in an event by itself."""
    asked = []

    class Handler:
        """Answers to each event with two frames of 3 MB, and keeps what it was asked."""

        def __init__(self, path):
            self.path = path

        def __call__(self, event):
            asked.append(event)
            return np.full((2, 1000, 1500), event, "u2")

    register_handler("LANE_LARGE", Handler)
    try:
        kwargs = [{"event": event} for event in range(3)]
        node = server.client.new(
            "array",
            [source(HANDLED, [directory / "a.h5"], (3, 2, 1000, 1500), spec="LANE_LARGE", datum_kwargs=kwargs)],
            key="large",
        )
        assert node[1, 0, 5:, 7].tolist() == [1] * 995
        assert (node[2] == 2).all()
        assert node.read()[:, 1, 999, 1499].tolist() == [0, 1, 2]
        assert asked == [1, 2, 0, 1, 2]
    finally:
        deregister_handler("LANE_LARGE")


def test_events_of_many_frames(server, directory):
    """Of an event with several frames no more than some are read at a time; together they are the event."""
    series = FileSeries(TIFF_SERIES, ("%03d.tiff",), 20, (RowSpan(0, 0, 3, 20),)).to_parameters()
    shape = (3, 20, 300, 400)
    node = server.client.new(
        "array", [source(FILE_SERIES, [directory], shape, is_directory=True, **series)], key="events"
    )
    assert (node.read() == FRAMES.reshape(shape)).all()
    assert (node[::-1, 3:, ::-1] == FRAMES.reshape(shape)[::-1, 3:, ::-1]).all()


def test_what_is_left_to_tiled(server):
    """Other formats, other nodes, other people and what makes no sense are Tiled's to answer."""
    cases = {
        (f"{PATH}hdf5?slice=0", ("Accept", "application/json")): 200,
        (f"{PATH}hdf5?slice=0,0&format=csv", None): 200,
        (f"{PATH}uploaded", None): 200,
        (f"{PATH}hdf5?slice=0", ("Authorization", None)): 401,
        (f"{PATH}hdf5?slice=0", ("Authorization", "Apikey 1234")): 401,
        (f"{PATH}hdf5?slice=99", None): 400,
        (f"{PATH}hdf5?slice=what", None): 422,
        (f"{PATH}hdf5?slice=0&expected_shape=7", None): 422,
        (f"{PATH}nothing", None): 404,
        (PATH.rstrip("/"), None): 404,
        ("/api/v1/array/block/run/streams/primary/hdf5?block=0", None): 422,
        ("/api/v1/array/block/run/streams/primary/hdf5", None): 422,
    }
    for (path, header), status in cases.items():
        answer = get(server, path, **dict([header] if header else []))
        # Who has no key reaches neither.
        assert (answer.status_code, went_short(answer)) == (status, status == 401), path


def test_seen_at_once_when_registered_anew(server, directory):
    """A data source that is changed in the catalog, or deleted, is served as it is now, and not as it was."""
    client = server.client
    node = client.new(
        "array", [source(HDF5, [directory / "a.h5"], (5, 300, 400), dataset="d", slice="0:5")], key="changing"
    )
    assert (node[0] == FRAMES[0]).all()
    (found,) = client["changing"].include_data_sources().data_sources()
    changed = source(HDF5, [directory / "a.h5"], (6, 300, 400), dataset="d", slice="7:13")
    changed.id = found.id
    uri = node.uri.replace("/metadata/", "/data_source/", 1)
    client.context.http_client.put(uri, json={"data_source": dataclasses.asdict(changed)}).raise_for_status()
    assert (client["changing"][5] == FRAMES[12]).all()
    client.delete_contents(["changing"])
    assert get(server, "/api/v1/array/full/changing").status_code == 404


def test_files_that_go_elsewhere_at_once(server, directory, monkeypatch):
    """Of an array whose files go elsewhere in the second in which it came, nobody gets those of before later on."""
    with h5py.File(directory / "elsewhere.h5", "w") as file:
        file.create_dataset("d", data=FRAMES + 1, chunks=(1, 300, 400))
    # The catalog says when it changed something to the second: all of it is in one.
    time.sleep(1 - time.time() % 1)
    node = server.client.new("array", [source(HDF5, [directory / "a.h5"], (5, 300, 400), dataset="d")], key="gone")
    assert (node[0] == FRAMES[0]).all()
    node = server.client["gone"].include_data_sources()
    (asset,) = assets_of(node)
    exchange_files(
        node, [asset["data_uri"]], [{**asset, "data_uri": asset["data_uri"].replace("a.h5", "elsewhere.h5")}]
    )
    # As if that were long ago.
    monkeypatch.setattr(known_arrays, "_CLOCK_STEP", -10.0)
    assert (server.client["gone"][0] == FRAMES[0] + 1).all()


def test_changes_by_others_are_seen(server, directory):
    """Even what another program does to the catalog is seen at once."""
    node = server.client.new("array", [source(HDF5, [directory / "a.h5"], (5, 300, 400), dataset="d")], key="theirs")
    assert (node[0] == FRAMES[0]).all()
    with sqlite3.connect(server.directory / "catalog.db") as other:
        other.execute("DELETE FROM nodes WHERE key = 'theirs'")
    other.close()
    assert get(server, "/api/v1/array/full/theirs").status_code == 404


def test_many_assets_are_looked_up_once(server):
    """Asked again, an array costs no query; the server's log of what it did is the witness."""
    first = get(server, f"{PATH}tiff?slice=1")
    assert went_short(first)
    again = [get(server, f"{PATH}tiff?slice={frame}") for frame in range(5)]
    assert [np.frombuffer(answer.content, "u2")[0] for answer in again] == FRAMES[:5, 0, 0].tolist()


class TestWhatIsWrong:
    """With the files, and how it is said."""

    @pytest.fixture
    def broken(self, tmp_path):
        """A server of its own, and files to break."""
        (tmp_path / "data").mkdir()
        write(tmp_path / "data")
        with serve_catalog(tmp_path / "catalog", readable=tmp_path / "data") as running:
            data = tmp_path / "data"
            files = [data / f"{number:03}.tiff" for number in range(COUNT)]
            running.client.new("array", [source(HDF5, [data / "a.h5"], FRAMES.shape, dataset="d")], key="hdf5")
            running.client.new("array", [source(TIFF_SERIES, files, FRAMES.shape)], key="tiff")
            running.data = data
            yield running

    def test_each_says_what(self, broken):
        """Missing, shortened, foreign and forbidden files are named, with a status of the 400s, by both ways."""
        data = broken.data
        (data / "005.tiff").unlink()
        (data / "006.tiff").write_bytes((data / "006.tiff").read_bytes()[:1000])
        (data / "007.tiff").write_text("This is no picture.")
        tifffile.imwrite(data / "008.tiff", FRAMES[0, :10])
        (data / "009.tiff").unlink()
        (data / "009.tiff").symlink_to("/etc/hostname")
        wanted = {5: (404, "is not there"), 6: (422, "ends after 1000 bytes"), 7: (422, "no TIFF file")}
        wanted |= {8: (422, r"shape [10, 400]"), 9: (403, "outside the directories")}
        for frame, (status, words) in wanted.items():
            for headers in ({}, {"Origin": "http://elsewhere"}):
                answer = get(broken, f"/api/v1/array/full/tiff?slice={frame}", **headers)
                assert answer.status_code == status
                assert words in answer.json()["detail"]
                assert f"{frame:03}.tiff" in answer.json()["detail"]
            with pytest.raises(ClientError, match=rf"{status}: .*file .*{frame:03}.tiff"):
                broken.client["tiff"][frame]
        assert (broken.client["tiff"][10] == FRAMES[10]).all()

    def test_in_the_midst_of_an_answer(self, broken):
        """A frame that fails when part of the answer is sent is told when the client asks again by itself."""
        (broken.data / f"{COUNT - 1:03}.tiff").unlink()
        with pytest.raises(ClientError, match=rf"404: frame {COUNT - 1} .*: file .*{COUNT - 1:03}.tiff is not there"):
            broken.client["tiff"].read()
        tifffile.imwrite(broken.data / f"{COUNT - 1:03}.tiff", FRAMES[-1])
        assert (broken.client["tiff"].read() == FRAMES).all()

    def test_file_that_is_being_written(self, broken):
        """A file that a program has open for writing is answered with 423, and then read."""
        script = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", script, broken.data / "a.h5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout.readline() == "open\n"
            with pytest.raises(ClientError, match=r"423: file .*a.h5 is .* try again later"):
                broken.client["hdf5"][0]
            writer.stdin.close()
            assert writer.wait(timeout=30) == 0
        assert (broken.client["hdf5"][0] == FRAMES[0]).all()

    def test_file_that_was_cut_short(self, broken):
        """An HDF5 file that was cut short, before or after it was read, is answered with 422."""
        assert (broken.client["hdf5"][COUNT - 1] == FRAMES[-1]).all()
        path = Path(broken.data / "a.h5")
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ClientError, match=r"422: file .*a.h5 ends after"):
            broken.client["hdf5"][COUNT - 1]

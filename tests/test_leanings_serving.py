"""What the server leans on in Tiled, taken away or made to fail: the answer is Tiled's own then, and that is logged."""

import logging
import re
import sqlite3
import ssl
import sys
from contextlib import closing
from types import SimpleNamespace

import h5py
import httpx
import numpy as np
import pyarrow
import pytest
import tiled.catalog
import tiled.catalog.adapter
import tiled.catalog.core
import tiled.config
import tiled.media_type_registration
import tiled.server.app
import tiled.server.settings
from fastapi import HTTPException
from fastapi.dependencies import utils
from leaning import logged_anew  # noqa: F401 - a fixture
from tiled.client.utils import ClientError
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import serve_catalog
from bluesky_filestore.errors import CatalogError
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES
from bluesky_filestore.serving import array_lane, exporting, guard, known_arrays, log_files
from bluesky_filestore.serving.array_lane import ArrayLane
from bluesky_filestore.serving.confined import ConfinedThreads
from bluesky_filestore.serving.frames_adapter import FramesAdapter
from bluesky_filestore.serving.known_arrays import KnownArrays

FRAMES = np.random.default_rng(0).integers(0, 60000, (20, 300, 400), dtype="u2")
FULL = "/api/v1/array/full/"
# Each request of httpx would make one, which takes longer than the request.
TRUSTED = ssl.create_default_context()


def source(files, mimetype=HDF5, shape=FRAMES.shape, **parameters):
    """The frames as they are registered."""
    chunks = tuple((size,) for size in shape)
    return DataSource(
        structure_family="array",
        structure=ArrayStructure(shape=shape, chunks=chunks, data_type=BuiltinDtype.from_numpy_dtype(FRAMES.dtype)),
        mimetype=mimetype,
        parameters=parameters,
        management=Management.external,
        assets=[
            Asset(data_uri=f"file://localhost{file}", is_directory=False, parameter="data_uris", num=number)
            for number, file in enumerate(files)
        ],
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file with the frames, and the same as a series."""
    directory = tmp_path_factory.mktemp("leaning")
    with h5py.File(directory / "a.h5", "w") as file:
        file["d"] = FRAMES
    for number, frame in enumerate(FRAMES):
        np.save(directory / f"{number}.npy", frame)
    return directory


def register(client, data):
    """Have arrays of both kinds, one that is not there any more, and one that lies elsewhere."""
    files = [data / f"{number}.npy" for number in range(len(FRAMES))]
    client.new("array", [source([data / "a.h5"], dataset="d")], key="hdf5")
    client.new("array", [source(files, "multipart/related;type=application/x-npy")], key="series")
    client.new("array", [source([data / "gone.h5"], dataset="d")], key="gone")
    client.new("array", [source(["/elsewhere/a.h5"], dataset="d")], key="elsewhere")


@pytest.fixture(scope="module")
def running(data, tmp_path_factory):
    """A server with the arrays."""
    with serve_catalog(tmp_path_factory.mktemp("catalog"), readable=data) as catalog:
        register(catalog.client, data)
        yield catalog


def get(running, path, **headers):
    """Ask as the client does, or, with an Origin, so that it is Tiled's to answer."""
    headers = {"Authorization": f"Apikey {running.api_key}", "Accept": "application/octet-stream"} | headers
    return httpx.get(f"{running.uri}{path}", headers=headers, timeout=60, verify=TRUSTED)


def raising(error):
    """A function, or property, that fails."""

    def fail(*_, **__):
        raise error

    return fail


STEPS = {
    "understanding": (ArrayLane, "_understood"),
    "parsing": (array_lane, "parse_qsl"),
    "finding": (KnownArrays, "find"),
    "looking up": (KnownArrays, "_look_up"),
    "the statement": (known_arrays, "node_from_segments"),
    "comparing": (known_arrays, "_likeness"),
    "making": (KnownArrays, "_adapter"),
    "remembering": (KnownArrays, "_remember"),
    "the version": (known_arrays.SQLiteVersion, "__call__"),
    "the query": (known_arrays, "select"),
    "the index": (array_lane, "_wanted"),
    "the pieces": (array_lane, "_batches"),
    "the thread": (ConfinedThreads, "run_beside"),
    "beginning": (array_lane, "_begun"),
    "reading": (array_lane, "_read"),
    "the length": (array_lane, "_shape"),
    "the dtype": (FramesAdapter, "dtype"),
    "the frame": (FramesAdapter, "axes_of_frame"),
}
ERRORS = [
    AttributeError("no attribute 'context'"),
    TypeError("takes 2 positional arguments"),
    KeyError("data_sources"),
    RuntimeError("Tiled refuses"),
    RecursionError("too deep"),
    NotImplementedError("not here"),
    sqlite3.OperationalError("database is locked"),
    OSError(5, "Input/output error"),
    HTTPException(status_code=500, detail="Internal server error"),
    HTTPException(status_code=503, detail={"why": object()}),
    MemoryError(),
]


@pytest.fixture(scope="module")
def stock_answers(running):
    """What Tiled itself answers, by path."""
    paths = [f"{FULL}{key}?slice=3" for key in ("hdf5", "series", "gone", "elsewhere", "nothing")]
    paths += ["/api/v1/array/block/hdf5?block=0,0,0", f"{FULL}hdf5"]
    stock = {path: get(running, path, Origin="http://elsewhere") for path in paths}
    assert [answer.status_code for answer in stock.values()] == [200, 200, 404, 403, 404, 200, 200]
    return stock


@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_in_the_lane_is_left_to_tiled(
    running,
    stock_answers,
    monkeypatch,
    caplog,
    logged_anew,  # noqa: F811
    step,
):
    """Each step of the short way fails in each way, and the answers are those of Tiled; the log has one line of it."""
    lane, stock, paths = running._server.config.app.app.app.app.app, stock_answers, list(stock_answers)
    for path, error in [*((path, ERRORS[0]) for path in paths), *((paths[0], error) for error in ERRORS)]:
        with monkeypatch.context() as patch:
            patch.setattr(*STEPS[step], property(raising(error)) if STEPS[step][0] is FramesAdapter else raising(error))
            lane._arrays._known.clear()
            answer = get(running, path)
            assert (answer.status_code, answer.content) == (stock[path].status_code, stock[path].content), error
    assert caplog.text.count("Arrays are left to Tiled, which is not as expected here") == 1
    assert "Traceback" in caplog.text
    assert "server-timing" not in get(running, paths[0]).headers


def test_in_the_midst_of_an_answer(running, monkeypatch, logged_anew):  # noqa: F811
    """Where something fails when part of the answer is sent, the connection is cut, and asked again Tiled answers."""
    read = array_lane._read

    def fails_later(adapter, index):
        if index[0] != slice(0, 4, 1):
            raise ValueError("not as expected")
        return read(adapter, index)

    monkeypatch.setattr(array_lane, "_read", fails_later)
    with pytest.raises(httpx.RemoteProtocolError):
        get(running, f"{FULL}hdf5")
    answer = get(running, f"{FULL}hdf5")
    assert (answer.status_code, answer.content) == (200, FRAMES.tobytes())
    assert "server-timing" in answer.headers


@pytest.fixture
def start(tmp_path, data, monkeypatch, caplog, logged_anew):  # noqa: F811
    """Starts a server while something is taken away; it is back when that has been tried to be leaned on."""
    servers = []

    def begin(take_away):
        with monkeypatch.context() as patch:
            take_away(patch)
            servers.append(serve_catalog(tmp_path / "catalog", readable=data))
        return servers[-1]

    yield begin
    for each in servers:
        each.close()


def test_without_the_inside_of_the_catalog(start, data, caplog):
    """A Tiled without the tables that the short way looks into serves all arrays by itself."""

    def take_away(patch):
        for module in ("array_lane", "known_arrays"):
            patch.delitem(sys.modules, f"bluesky_filestore.serving.{module}")
        patch.delattr(tiled.catalog, "orm")
        patch.setitem(sys.modules, "tiled.catalog.orm", None)

    running = start(take_away)
    register(running.client, data)
    assert (running.client["hdf5"][7] == FRAMES[7]).all()
    assert "server-timing" in get(running, f"{FULL}hdf5?slice=7").headers
    assert caplog.text.count("The inside of Tiled's catalog is not as expected here") == 1


def made(database):
    """What is in a catalog that was just made, but for when that was."""
    with closing(sqlite3.connect(database)) as connection:
        return sorted(re.sub(r"'[\d-]{10} [\d:]{8}'", "now", line) for line in connection.iterdump())


def test_a_new_catalog(start, caplog):
    """One that is made here is as one that Tiled makes, which does it where it keeps the way elsewhere."""
    own = start(lambda patch: patch.delattr(tiled.catalog.core, "initialize_database"))
    assert caplog.text.count("How Tiled makes a catalog is not as expected here") == 1
    assert list(own.client) == []
    own.close()
    with serve_catalog(own.directory.parent / "another") as another:
        ours = another.directory / "catalog.db"
        assert made(ours) == made(own.directory / "catalog.db")
        assert {path.name for path in ours.parent.iterdir() if path.name.startswith("new-")} == set()


@pytest.mark.parametrize("is_gone", [True, False])
def test_without_settings(start, caplog, is_gone):
    """A Tiled that keeps its settings elsewhere takes the key that it was given when it was made."""

    def take_away(patch):
        patch.delattr(tiled.server.settings, "get_settings")
        if not is_gone:
            patch.setattr(tiled.server.settings, "get_settings", lambda: None, raising=False)

    running = start(take_away)
    assert list(running.client) == []
    assert get(running, "/api/v1/metadata/", Authorization="Apikey wrong").status_code == 401
    assert caplog.text.count("Where Tiled keeps its settings is not as expected here") == 1


def test_where_settings_are(running):
    """Tiled asks for its settings by a dependency that the application overrides."""
    tree = tiled.catalog.from_uri(running.directory / "catalog.db")
    app = tiled.server.app.build_app(tree, authentication=tiled.config.Authentication(single_user_api_key="secret"))
    assert tiled.server.settings.get_settings in app.dependency_overrides
    assert hasattr(tiled.server.settings.Settings(), "single_user_api_key")


def test_dependants_are_worked_out_once(running):
    """FastAPI asks what dependencies ask for with each request, and is told what it was told before."""
    get(running, "/api/v1/metadata/")
    before = utils.get_dependant.remembered.cache_info()
    get(running, "/api/v1/metadata/")
    after = utils.get_dependant.remembered.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits


def test_a_dependency_that_is_not_hashable():
    """What is called may be any object: it is worked out each time."""

    class Called:
        __hash__ = None

        def __call__(self, x: int) -> None:
            """Be a dependency."""

    first, second = (utils.get_dependant(path="/", call=call) for call in [Called()] * 2)
    assert [each.name for each in first.query_params] == [each.name for each in second.query_params] == ["x"]


def test_without_dependants(start, caplog):
    """A FastAPI that has them otherwise answers as ever."""
    running = start(lambda patch: patch.setattr(guard, "remember_dependants", raising(AttributeError("gone"))))
    assert caplog.text.count("How FastAPI knows what a dependency asks for is not as expected here") == 1
    assert list(running.client) == []


def test_without_collisions(start, caplog):
    """A second writer is told what Tiled itself says."""
    running = start(lambda patch: patch.delattr(tiled.catalog.adapter, "Collision"))
    running.client.create_container("run")
    with pytest.raises(ClientError, match="409: /run"):
        running.client.create_container("run")
    assert caplog.text.count("Tiled's Collision is not as expected here") == 1


def test_a_refusal_in_other_words(running, monkeypatch, caplog, logged_anew):  # noqa: F811
    """Where Tiled says otherwise why it does not serve a file, its answer is as ever, and the log has the words."""
    words = "This file is out of bounds"
    monkeypatch.setattr(
        tiled.catalog.adapter.CatalogNodeAdapter, "_ensure_uri_within_readable_storage", raising(RuntimeError(words))
    )
    for _ in range(2):
        answer = get(running, f"{FULL}elsewhere")
        assert answer.status_code == 500
        assert f"failed in the server; its log has where (RuntimeError: {words})" in answer.json()["detail"]
    assert (
        caplog.text.count(f"words that are not known here; its answer is that it failed (RuntimeError: {words})") == 1
    )


def test_without_the_validator(start, caplog):
    """Plugins without their router serve all the same."""
    running = start(lambda patch: patch.setitem(sys.modules, "bluesky_tiled_plugins.routers.validator", None))
    assert list(running.client) == []
    assert caplog.text.count("bluesky_tiled_plugins' router is not as expected here") == 1


def test_without_the_registry_of_exports(start, caplog):
    """Without the place to add an export to, there are Tiled's own."""
    gone = "default_serialization_registry"
    running = start(lambda patch: patch.delattr(tiled.media_type_registration, gone))
    running.client.write_array(np.arange(3), key="n")
    assert get(running, f"{FULL}n", Accept="application/json").json() == [0, 1, 2]
    assert caplog.text.count("The way to add exports is not as expected here") == 1


@pytest.mark.parametrize("gone", [(tiled.config, "Authentication"), (tiled.server.app, "build_app")])
def test_a_tiled_that_is_made_otherwise(start, gone):
    """Where there is no way to make a server, the error says which Tiled it is and what is expected."""
    with pytest.raises(CatalogError, match=r"Tiled \d+\.\S+ makes no server in the way .* expected a version"):
        start(lambda patch: patch.delattr(*gone))
    with pytest.raises(CatalogError, match=r"\(takes no such thing\); expected a version"):
        start(lambda patch: patch.setattr(*gone, raising(TypeError("takes no such thing"))))


def test_without_the_storage(start):
    """Where it cannot be told what may be read, nothing is served."""
    with pytest.raises(CatalogError, match=r"no catalog could be made or opened at .*parse_storage"):
        start(lambda patch: patch.delattr("tiled.storage.parse_storage"))


def test_without_lazy_assets(data, monkeypatch):
    """To a Tiled that does not ask which assets it needs, all are given."""
    from tiled.adapters.sequence import FileSequenceAdapter

    monkeypatch.delattr(FileSequenceAdapter, "file_indices_for_slice")
    monkeypatch.delitem(sys.modules, "bluesky_filestore.serving.series")
    from bluesky_filestore.serving.series import SeriesAdapters

    assert not SeriesAdapters(TIFF_SERIES).supports_lazy_assets
    files = [data / f"{number}.npy" for number in range(len(FRAMES))]
    given = source(files, "multipart/related;type=application/x-npy")
    adapter = SeriesAdapters(given.mimetype).from_catalog(given, SimpleNamespace(metadata_={}, specs=[]))
    assert (adapter.read((7,)) == FRAMES[7]).all()


def test_a_uvicorn_that_logs_otherwise(running):
    """What follows a question mark is in no line, wherever uvicorn puts it."""
    lines = [
        ('%s - "%s %s HTTP/%s" %d', ("127.0.0.1", "GET", "/a?api_key=secret", "1.1", 200)),
        ("%s", ('127.0.0.1 - "GET /a?api_key=secret HTTP/1.1" 200',)),
        ('127.0.0.1 - "GET /a?api_key=secret HTTP/1.1" 200', ()),
        ('127.0.0.1 - "GET /a?api_key=secret HTTP/1.1" 200', None),
    ]
    for words, arguments in lines:
        record = logging.LogRecord("uvicorn.access", 20, "", 0, words, arguments, None)
        assert log_files._without_query(record)
        assert record.getMessage() == '127.0.0.1 - "GET /a HTTP/1.1" 200'


@pytest.fixture(scope="module")
def wide(running):
    """A run with two tables a stream, as `CatalogWriter` makes it of many columns."""
    specs = [[{"name": "BlueskyRun", "version": "3.0"}], [{"name": "BlueskyEventStream", "version": "3.0"}]]
    from tiled.structures.core import Spec

    run_specs, stream_specs = ([Spec(**spec) for spec in each] for each in specs)
    run = running.client.create_container("wide", metadata={"start": {"uid": "u", "time": 0.0}}, specs=run_specs)
    keys = {name: {"source": "s", "dtype": "number", "shape": []} for name in "xy"}
    metadata = {"uid": "d", "time": 1.0, "data_keys": keys, "configuration": {}, "hints": {}, "run_start": "u"}
    stream = run.create_container("primary", metadata=metadata, specs=stream_specs)
    columns = [{"seq_num": [1], "time": [2.0], "x": [1.0], "ts_x": [2.0]}, {"y": [3.0], "ts_y": [2.0]}]
    for name, table in zip(("internal", "internal_1"), map(pyarrow.table, columns), strict=True):
        stream.create_appendable_table(table.schema, key=name).append_partition(0, table)
    return "/api/v1/container/full/wide?format=application/json-seq"


def test_what_the_exporter_asks_for(running, wide):
    """The plugins' exporter asks of a stream what lets it have two tables as one."""
    assert '"data": {"x": 1.0, "y": 3.0}' in get(running, wide).text


def test_an_exporter_that_asks_otherwise(running, wide, monkeypatch, caplog, logged_anew):  # noqa: F811
    """An exporter that does something else with a run is given it as it is; what fails then is its own failure."""

    async def other(mimetype, adapter, metadata, filter_for_access):
        run = await filter_for_access(adapter)
        yield f"{type(run.search).__name__} {run.node.key}"

    async def pickier(mimetype, adapter, metadata, filter_for_access):
        run = await filter_for_access(adapter)
        if isinstance(run, exporting._Run):
            raise TypeError("that is no adapter")
        yield run.node.key

    for exporter, told in ((other, "method wide"), (pickier, "wide"), (pickier, "wide")):
        monkeypatch.setattr(exporting, "json_seq_exporter", exporter)
        assert get(running, wide).text == told
    assert caplog.text.count("Runs are exported as they are") == 1


def test_without_the_nodes_of_the_catalog(start, caplog):
    """Where a node of Tiled's catalog is not what it was, registrations are taken as they come."""
    running = start(lambda patch: patch.setitem(sys.modules, "bluesky_filestore.serving.registering", None))
    running.client.write_array(np.arange(3), key="n")
    assert get(running, f"{FULL}n").status_code == 200
    assert caplog.text.count("what is registered wrongly shows when it is read") == 1

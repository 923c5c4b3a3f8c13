"""Operations applied again from their start, by somebody who does not know how far they came the first time."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import event_model
import h5py
import httpx
import numpy as np
import pytest
import tifffile
from effort import some
from proxy import Proxy, no_fault
from tiled.client import from_uri
from tiled.client.utils import ClientError
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import StructureFamily
from tiled.structures.data_source import DataSource

from bluesky_filestore import serve_catalog
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.once import FailedOnceError, without_retries
from bluesky_filestore.delivery.stamping import sizes_of
from bluesky_filestore.errors import CatalogUnreachableError, RowsDifferError
from bluesky_filestore.handlers.asking import inspect
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS
from bluesky_filestore.model.asset_paths import path_of_asset
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.model.specs import HDF5, OPAQUE, TIFF_SERIES
from bluesky_filestore.operations.operations import (
    AppendArray,
    CheckRun,
    CloseRun,
    CreateRun,
    CreateStream,
    DropArray,
    PlaceArray,
)
from bluesky_filestore.operations.run import Run, announce

SHAPE = (4, 6)
EVENTS = 9
numbers = itertools.count()


@pytest.fixture
def stream(stock):
    """A new stream in the catalog: its client, run and a directory."""
    client, data = stock
    uid = f"run{next(numbers)}"
    directory = data / uid
    directory.mkdir()
    opened(client, uid)
    return client, uid, directory


def opened(client, uid):
    """A catalog that knows nothing yet, with run and stream made (again)."""
    catalog = TiledCatalog(client)
    catalog.apply(CreateRun(uid, {"start": {"uid": uid}}))
    catalog.apply(CreateStream(uid, "primary", {"data_keys": {}}))
    return catalog


def values(first, count, dtype="<i8"):
    """Rows that carry their number."""
    return np.arange(2 * first, 2 * (first + count)).reshape(count, 2).astype(dtype)


def append(uid, first, count, dtype="<i8"):
    """Rows of an array whose values come in events."""
    return AppendArray(uid, "primary", "w", first, values(first, count, dtype))


def test_made_but_not_written(stream):
    """An array whose maker died before it wrote the first rows is written by the next one."""
    client, uid, _ = stream
    structure = ArrayStructure(
        shape=(3, 2), chunks=((3,), (2,)), data_type=BuiltinDtype.from_numpy_dtype(np.dtype("<i8"))
    )
    source = DataSource(structure_family=StructureFamily.array, structure=structure)
    client[uid].base["primary"].base.new("array", [source], key="w")
    opened(client, uid).apply(append(uid, 0, 3))
    assert client[uid]["primary"]["w"].read().tolist() == values(0, 3).tolist()


@pytest.mark.parametrize("dtype", ["<i8", "<f8"])
@pytest.mark.parametrize("batches", [(2, 2, 2, 2, 1), (1, 8), (9,)])
def test_rows_in_other_batches(stream, dtype, batches):
    """Rows that are applied again in other batches, and perhaps as another type, are the same rows."""
    client, uid, _ = stream
    first_life = opened(client, uid)
    for first in (0, 3):
        first_life.apply(append(uid, first, 3))
    second_life, first = opened(client, uid), 0
    for count in batches:
        second_life.apply(append(uid, first, count, dtype))
        first += count
    array = client[uid]["primary"]["w"].read()
    assert array.dtype == dtype
    assert array.tolist() == values(0, EVENTS).tolist()


def test_rows_after_a_longer_life(stream):
    """Rows that are not there any more the second time do not stay."""
    client, uid, _ = stream
    opened(client, uid).apply(append(uid, 0, 5))
    opened(client, uid).apply(append(uid, 0, 3))
    assert client[uid]["primary"]["w"].read().tolist() == values(0, 3).tolist()


def images(directory, count=EVENTS):
    """A TIFF series whose files carry their number."""
    frames = (np.arange(count)[:, None, None] * 50 + np.arange(24).reshape(SHAPE)).astype("<u2")
    for number, frame in enumerate(frames):
        tifffile.imwrite(directory / f"{number}.tiff", frame)
    return frames


def place(uid, directory, numbers, first_file=0):
    """The array of the files with these numbers; of them the first ones are registered already."""
    files = tuple(str(directory / f"{number}.tiff") for number in numbers)
    return PlaceArray(
        uid,
        "primary",
        "image",
        mimetype=TIFF_SERIES,
        shape=(len(files), *SHAPE),
        dtype="<u2",
        chunks=((len(files),), *((size,) for size in SHAPE)),
        parameters={},
        properties={"chunks": [[len(files)], *([size] for size in SHAPE)]},
        files=files[first_file:],
        first_file=first_file,
    )


@pytest.mark.parametrize("sizes", [(2, 4, 9), (9,), (1, 9), (3, 3, 9)])
def test_files_registered_already(stream, sizes):
    """A replay goes from the first files on through a longer list without a fault, and ends with all of them."""
    client, uid, directory = stream
    frames = images(directory)
    first_life = opened(client, uid)
    first_life.apply(place(uid, directory, range(5)))
    first_life.apply(place(uid, directory, range(EVENTS), first_file=5))
    second_life, known = opened(client, uid), 0
    for size in sizes:
        second_life.apply(place(uid, directory, range(size), first_file=known))
        known = size
        np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames[:size])
    second_life.apply(CloseRun(uid, {"stop": {"exit_status": "success"}}))
    np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames)
    source = client[uid].base["primary"].base.include_data_sources()["image"].data_sources()[0]
    assert [asset.num for asset in source.assets] == list(range(EVENTS))


def test_files_in_another_order(stream):
    """What an earlier life left in another order is taken away: no row ever has another's frame."""
    client, uid, directory = stream
    frames = images(directory)
    opened(client, uid).apply(place(uid, directory, [3, 2, 1, 0]))
    second_life = opened(client, uid)
    for order, first_file in (([3, 1], 0), ([3, 1, 0, 2], 2)):
        second_life.apply(place(uid, directory, order, first_file))
        np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames[order])


def test_files_of_a_longer_life(stream):
    """Files that are not registered any more the second time are gone with the end of the run."""
    client, uid, directory = stream
    frames = images(directory)
    opened(client, uid).apply(place(uid, directory, range(EVENTS)))
    second_life = opened(client, uid)
    second_life.apply(place(uid, directory, range(2)))
    second_life.apply(CloseRun(uid, {"stop": {}}))
    source = client[uid].base["primary"].base.include_data_sources()["image"].data_sources()[0]
    assert len(source.assets) == 2
    np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames[:2])


def test_dropped_in_between(stream):
    """A replay over an array that was dropped and placed anew ends as the first life did."""
    client, uid, directory = stream
    frames = images(directory)
    life = [
        place(uid, directory, [0, 1]),
        DropArray(uid, "primary", "image"),
        place(uid, directory, [1, 0]),
        place(uid, directory, [1, 0, 4], first_file=2),
    ]
    for ended_after in (1, 2, 3, 4, 4):
        catalog = opened(client, uid)
        for operation in life[:ended_after]:
            catalog.apply(operation)
    np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames[[1, 0, 4]])
    opened(client, uid).apply(DropArray(uid, "primary", "image"))
    opened(client, uid).apply(DropArray(uid, "primary", "image"))
    assert "image" not in client[uid]["primary"]


@pytest.mark.parametrize("mimetype", [TIFF_SERIES, OPAQUE])
@pytest.mark.parametrize("late", ["registration", "removal"])
def test_what_comes_late(stream, mimetype, late):
    """A request of before that is carried out after the run's end is found by the second look, whatever it was."""
    client, uid, directory = stream
    images(directory)
    placed, dropped = replace(place(uid, directory, range(2)), mimetype=mimetype), DropArray(uid, "primary", "image")
    catalog = opened(client, uid)
    for operation in (placed, dropped) if late == "registration" else (placed,):
        catalog.apply(operation)
    catalog.doubt(uid)
    catalog.apply(CloseRun(uid, {"stop": {}}))
    opened(client, uid).apply(placed if late == "registration" else dropped)
    with pytest.raises(RowsDifferError, match=r"primary/image has . rows; expected"):
        catalog.apply(CheckRun(uid))


@pytest.mark.parametrize("mimetype", [TIFF_SERIES, OPAQUE])
def test_nothing_comes_late(stream, mimetype):
    """A run that holds what it should, and an array less that it should not, is in doubt no more."""
    client, uid, directory = stream
    images(directory)
    catalog = opened(client, uid)
    placed = replace(place(uid, directory, range(2)), mimetype=mimetype)
    for operation in (placed, replace(placed, data_key="other"), DropArray(uid, "primary", "image")):
        catalog.apply(operation)
    catalog.doubt(uid)
    catalog.apply(CloseRun(uid, {"stop": {}}))
    catalog.apply(CheckRun(uid))
    assert not catalog.in_doubt(uid)


def test_files_that_cannot_follow(stream):
    """Files are not registered as if they were the first ones."""
    client, uid, directory = stream
    images(directory)
    with pytest.raises(RowsDifferError, match="image has 0 files; file 2 cannot follow them"):
        opened(client, uid).apply(place(uid, directory, range(4), first_file=2))


class Life:
    """The documents of one run, made into operations in batches of any size."""

    def __init__(self, directory):
        self.composed = event_model.compose_run()
        self.uid = self.composed.start_doc["uid"]
        self.documents = []
        self.frames = np.arange(24 * EVENTS).reshape(EVENTS, *SHAPE).astype("<u2")
        for part in range(2):
            with h5py.File(directory / f"{part}.h5", "w") as file:
                file["/entry/data/data"] = self.frames[: 5 if part == 0 else 4] + 1000 * part
        self.frames = np.concatenate([self.frames[:5], self.frames[:4] + 1000])
        self._compose(directory)

    def _compose(self, directory):
        image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "external": "FILESTORE:"}
        keys = {
            "n": {"source": "s", "dtype": "integer", "shape": []},
            "w": {"source": "s", "dtype": "array", "shape": [2]},
        }
        bundle = self.composed.compose_descriptor(name="primary", data_keys={**keys, "image": image})
        self.documents.append(("descriptor", bundle.descriptor_doc))
        resources = [
            self.composed.compose_resource(
                spec="AD_HDF5", root=str(directory), resource_path=f"{part}.h5", resource_kwargs={"frame_per_point": 1}
            )
            for part in range(2)
        ]
        self.documents += [("resource", resource.resource_doc) for resource in resources]
        for event in range(EVENTS):
            part, index = (0, event) if event < 5 else (1, event - 5)
            datum = resources[part].compose_datum(datum_kwargs={"point_number": index})
            # From the fifth event on the integer and the array are floats.
            data = {"n": event + (event >= 4) / 2, "w": [event, event + (event >= 4) / 2], "image": datum["datum_id"]}
            data["n"] = int(data["n"]) if event < 4 else data["n"]
            self.documents.append(("datum", datum))
            doc = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 1.0), filled={"image": False})
            self.documents.append(("event", doc))
        self.documents.append(("stop", self.composed.compose_stop()))

    def operations(self, batch):
        """Operations for so many events at once."""
        assets = Assets()
        run = Run(self.composed.start_doc, assets, inspect, sizes_of=sizes_of)
        events = 0
        for name, doc in self.documents:
            if name in ("resource", "datum"):
                announce(name, doc, assets)
                continue
            run.receive(name, doc)
            events += name == "event"
            if name == "event" and events % batch == 0:
                yield from run.take()
        yield from run.take()


@pytest.mark.parametrize("batches", some([(1, 4), (3, 3), (4, 1), (9, 2)]))
@pytest.mark.parametrize("died_after", [3, 5, 8, 11])
def test_whole_run_again(stock, tmp_path_factory, batches, died_after):
    """A run that died at any place and is written again from its start, in other batches, holds what it should."""
    client, data = stock
    directory = data / f"life{next(numbers)}"
    directory.mkdir()
    life = Life(directory)
    catalog = TiledCatalog(client)
    for operation in itertools.islice(life.operations(batches[0]), died_after):
        catalog.apply(operation)
    catalog = TiledCatalog(client)
    for _ in range(2):
        try:
            for operation in life.operations(batches[1]):
                catalog.apply(operation)
            break
        except RowsDifferError:
            catalog.remove_rows(life.uid)
    run = client[life.uid]
    stream = run["primary"]
    assert stream["n"].read().tolist() == [0, 1, 2, 3, *(n + 0.5 for n in range(4, EVENTS))]
    np.testing.assert_array_equal(stream["image"].read(), life.frames[:, np.newaxis])
    assert run.metadata["stop"]["exit_status"] == "success"
    assert run.metadata["filestore"] == {}


def test_what_the_server_reads(stock):
    """A stock server reads HDF5 and not our own mimetypes; asking leaves nothing behind."""
    client, _ = stock
    before = list(client)
    catalog = TiledCatalog(client)
    assert catalog.reads(HDF5)
    assert not catalog.reads(HDF5_ROWS)
    assert list(client) == before


def test_what_our_server_reads(catalog):
    """Our own server reads our own mimetypes."""
    asked = TiledCatalog(catalog.client)
    assert asked.reads(HDF5_ROWS)
    assert asked.reads(FILE_SERIES)


def test_nobody_can_say_what_the_server_reads(tmp_path):
    """A server that is away is asked again later."""
    with serve_catalog(tmp_path) as server:
        client = from_uri(server.uri, api_key=server.api_key)
        catalog = TiledCatalog(client)
    for _ in range(2):
        with pytest.raises(CatalogUnreachableError, match="no catalog answers"):
            catalog.reads(HDF5)
    client.context.close()


@pytest.fixture
def through_proxy(stock):
    """A proxy before a stock server, and a client."""
    client, _ = stock
    with Proxy(str(client.context.api_uri).partition("/api")[0]) as proxy:
        made = from_uri(proxy.uri, api_key=client.context.api_key)
        yield proxy, made, client
        made.context.close()


@pytest.mark.parametrize("first", [0, 3])
def test_rows_are_seen_when_they_are_written(through_proxy, first):
    """A reader between two requests never sees rows that were not written, also of an array that is made anew."""
    proxy, client, reader = through_proxy
    uid = f"run{next(numbers)}"
    catalog = opened(client, uid)
    if first:
        catalog.apply(append(uid, 0, first))
    proxy.fault = lambda request: "hold" if "/array/full/" in request.path and request.method != "GET" else None
    dtype = "<f8" if first else "<i8"
    writing = threading.Thread(target=lambda: suppressed(catalog.apply, append(uid, first, 3, dtype)))
    writing.start()
    while not proxy.holding:
        assert writing.is_alive()
    array = reader[uid].base["primary"].base["w"]
    assert (array.shape, array.dtype, array.read().tolist()) == ((0, 2), dtype, [])
    assert reader[uid]["primary"].read()["w"].shape == (0, 2)
    proxy.fault = no_fault
    proxy.release()
    writing.join()
    catalog.apply(append(uid, first, 3, dtype))
    assert reader[uid]["primary"]["w"].read().tolist() == values(0, first + 3).tolist()


def suppressed(call, *arguments):
    """What is held has no answer."""
    with pytest.raises(CatalogUnreachableError):
        call(*arguments)


def test_readers_while_arrays_are_made(stock):
    """Readers that ask all the time see rows from the first on, or no array yet, and never other values."""
    client, _ = stock
    uid = f"run{next(numbers)}"
    catalog = opened(client, uid)
    reader = without_retries(client)
    keys, seen, ended = ["w0"], [], threading.Event()
    # Nobody reads in the moment in which an array is removed: this Tiled makes an empty group in the place of what it
    # was just about to open, and can make no array there any more.
    reading = [threading.Lock(), threading.Lock()]

    def read(lock):
        while not ended.is_set():
            try:
                with lock:
                    seen.append(reader[uid].base["primary"].base[keys[-1]].read())
            except KeyError:
                continue
            except FailedOnceError as failure:
                # It grew after its shape was asked for, for which a stock server has no other word.
                if failure.error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
            except ClientError as error:
                # It is made anew just now.
                if error.response.status_code != httpx.codes.NOT_FOUND:
                    raise

    with ThreadPoolExecutor(2) as readers:
        reads = [readers.submit(read, lock) for lock in reading]
        try:
            for number in range(4):
                keys.append(f"w{number}")
                for first in (0, 3):
                    catalog.apply(replace(append(uid, first, 3), data_key=keys[-1]))
                with reading[0], reading[1]:
                    catalog.apply(replace(append(uid, 6, 3, "<f8"), data_key=keys[-1]))
        finally:
            ended.set()
        for of_reader in reads:
            of_reader.result()
    assert seen
    for array in seen:
        assert array.tolist() == values(0, len(array)).tolist()


def test_a_server_that_wants_shape_and_chunks_alike(through_proxy, caplog):
    """A server that will not make an array without rows gets one with them, which is said."""
    proxy, client, reader = through_proxy
    uid = f"run{next(numbers)}"
    catalog = opened(client, uid)
    refusals = [422]
    proxy.fault = lambda request: refusals.pop() if refusals and request.method == "POST" else None
    catalog.apply(append(uid, 0, 3))
    assert "arrays are seen as zeros until they are written" in caplog.text
    assert reader[uid]["primary"]["w"].read().tolist() == values(0, 3).tolist()


def test_files_instead_of_values(stream):
    """An array of values that is registered with files is theirs, whoever made it."""
    client, uid, directory = stream
    frames = images(directory)
    opened(client, uid).apply(replace(append(uid, 0, 3), data_key="image"))
    again = opened(client, uid)
    with pytest.raises(RowsDifferError, match="image has 0 files; file 1 cannot follow them"):
        again.apply(place(uid, directory, range(2), first_file=1))
    again.apply(place(uid, directory, range(2)))
    np.testing.assert_array_equal(client[uid]["primary"]["image"].read(), frames[:2])


def test_sizes_of_files(stock):
    """A catalog has each file's as it is at its run's end: of one that grew since it was registered as well."""
    client, data = stock
    directory = data / f"sizes{next(numbers)}"
    directory.mkdir()
    life = Life(directory)
    catalog, registered = TiledCatalog(client), 0
    for operation in life.operations(2):
        catalog.apply(operation)
        registered += isinstance(operation, PlaceArray)
        if registered == 1:
            with (directory / "0.h5").open("ab") as file:
                file.write(bytes(1000))
    image = client[life.uid].base["primary"].new_variation(include_data_sources=True)["image"]
    sizes = {Path(path_of_asset(asset.data_uri)): asset.size for asset in image.data_sources()[0].assets}
    assert sizes == {path: path.stat().st_size for path in (directory / "0.h5", directory / "1.h5")}
    assert sizes_of([str(directory), str(directory / "none"), str(directory / "1.h5")])[:2] == [None, None]

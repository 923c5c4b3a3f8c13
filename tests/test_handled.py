"""Arrays of specs that only a handler reads: registered by the writer, and read through the server and direct."""

import logging
import re
import threading
import time

import event_model
import h5py
import numpy as np
import pytest

from bluesky_filestore import CatalogWriter, deregister_handler, fill, open_array, register_handler
from bluesky_filestore.handlers import asking
from bluesky_filestore.model.addressing import HANDLED

COLUMN = {"source": "s", "dtype": "array", "shape": [10], "dtype_numpy": "<f8", "external": "FileStore:"}
NUMBER = {"source": "s", "dtype": "number", "shape": []}


class Columns:
    """A handler as those of fly scanners are: a column of a file, whatever its length."""

    specs = frozenset({"COLUMNS"})

    def __init__(self, path, scale=1.0):
        self._path, self._scale = path, scale

    def __call__(self, column):
        """A whole column."""
        with h5py.File(self._path) as file:
            return file[column][:] * self._scale


class Prefixed:
    """A handler that puts the name of a file right behind the path it is made with."""

    def __init__(self, path):
        self._path = path

    def __call__(self, name, row=0):
        """An image."""
        return np.load(self._path + name)[row]


class Mute:
    """A handler that waits for what does not come."""

    over = threading.Event()

    def __init__(self, path):
        pass

    def __call__(self):
        """Nothing, for long."""
        self.over.wait(30)
        return np.zeros(3)


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of these tests, registered as a user does."""
    specs = {"COLUMNS": Columns, "PREFIXED": Prefixed, "MUTE": Mute}
    for spec, handler in specs.items():
        register_handler(spec, handler)
    yield
    for spec in specs:
        deregister_handler(spec)


class Flown:
    """The documents of a fly scan: an event for each file, a Resource and a Datum for each file and column."""

    def __init__(self, directory, files, spec="COLUMNS", key=COLUMN, columns=("enc1", "enc2"), **kwargs):
        run = event_model.compose_run()
        self.uid = run.start_doc["uid"]
        data_keys = {"x": NUMBER, **dict.fromkeys(columns, key)}
        bundle = run.compose_descriptor(name="primary", data_keys=data_keys)
        self.documents = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
        for number, file in enumerate(files):
            resource = run.compose_resource(
                spec=spec, root=str(directory), resource_path=file, resource_kwargs=dict(kwargs)
            )
            data = {"x": float(number)}
            self.documents.append(("resource", resource.resource_doc))
            for column in columns:
                datum = resource.compose_datum(datum_kwargs={"column": column})
                self.documents.append(("datum", datum))
                data[column] = datum["datum_id"]
            filled = dict.fromkeys(columns, False)
            event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=filled)
            self.documents.append(("event", event))
        self.documents.append(("stop", run.compose_stop()))


@pytest.fixture
def directory(data_directory, tmp_path):
    """A directory of this test alone that the catalog can read."""
    made = data_directory / "handled" / tmp_path.name
    made.mkdir(parents=True)
    return made


@pytest.fixture
def write(catalog, caplog):
    """Writes documents; gives the run as the catalog has it."""

    def written(uid, documents, **options):
        with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, settle=0.0, **options) as writer:
            for name, doc in documents:
                writer(name, doc)
        return catalog.client[uid]

    return written


def columns_file(path, number, length=10):
    """Two columns that carry their number."""
    with h5py.File(path, "w") as file:
        file["enc1"] = np.arange(length) + 100.0 * number
        file["enc2"] = -np.arange(length) - 100.0 * number


def refused(run, key="enc1"):
    """Why a key is not there."""
    return run.metadata["filestore"]["refused"]["primary"][key]


@pytest.mark.parametrize("batch_size", [1, 1000])
@pytest.mark.parametrize("files", [["0.h5"], ["0.h5", "1.h5", "2.h5"], ["1.h5", "1.h5", "0.h5", "1.h5"]])
def test_columns_of_a_flyer(write, directory, files, batch_size):
    """A datum for a whole column of each file, in whatever order files come, is read on each way as by `fill`."""
    for number in range(3):
        columns_file(directory / f"{number}.h5", number)
    flown = Flown(directory, files, scale=2.0)
    run = write(flown.uid, flown.documents, batch_size=batch_size)
    assert run.metadata["notes"] == []
    events = [doc for name, doc in fill(flown.documents) if name == "event"]
    for column in ("enc1", "enc2"):
        expected = [event["data"][column].tolist() for event in events]
        node = run["primary"].base[column]
        assert node.data_sources()[0].mimetype == HANDLED
        assert node.shape == (len(files), 10)
        assert node.read().tolist() == expected
        assert node[-1, 2:4].tolist() == expected[-1][2:4]
        for array in (open_array(node), open_array(flown.documents, data_key=column)):
            assert array.source == "files"
            assert np.asarray(array).tolist() == expected
    assert run["primary"].read()["enc2"].shape == (len(files), 10)


def test_the_answer_wins(write, directory):
    """Shape and dtype are those of the handler's answer, and what the descriptor says otherwise is noted."""
    columns_file(directory / "0.h5", 0)
    flown = Flown(directory, ["0.h5"], key={**COLUMN, "shape": [1], "dtype_numpy": "<i4"})
    run = write(flown.uid, flown.documents)
    assert run["primary"].base["enc1"].read().tolist() == [list(range(10))]
    said = run.metadata["filestore"]["differences"]["primary"]["enc1"]
    assert said[0] == "shape: the descriptor says [1], the handler answers with [10]"
    assert said[1] == "dtype: the descriptor says <i4, the handler answers with <f8"


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_of_another_length(write, directory, batch_size):
    """Columns of several lengths are rows of a ragged array; the rest of the run is readable."""
    for number in range(3):
        columns_file(directory / f"{number}.h5", number, length=9 if number == 2 else 10)
    flown = Flown(directory, ["0.h5", "1.h5", "2.h5", "0.h5"])
    run = write(flown.uid, flown.documents, batch_size=batch_size)
    lengths = zip((0, 1, 2, 0), (10, 10, 9, 10), strict=True)
    expected = [(np.arange(length) + 100.0 * number).tolist() for number, length in lengths]
    assert run["primary"].base["enc1"].read().tolist() == expected
    assert "missing" not in run.metadata["filestore"]
    assert run["primary"].read(["x"])["x"].values.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_file_that_comes_late(catalog, directory):
    """An array whose file is not there yet is registered as soon as it is."""
    flown = Flown(directory, ["0.h5"])
    with CatalogWriter(catalog.client, settle=30.0) as writer:
        for name, doc in flown.documents:
            writer(name, doc)
        time.sleep(0.5)
        columns_file(directory / "0.h5", 0)
        writer.flush(timeout=30)
    run = catalog.client[flown.uid]
    assert run.metadata["notes"] == []
    assert run["primary"].base["enc1"].read().tolist() == [list(range(10))]


def test_a_directory_with_a_separator(write, directory):
    """A path that ends in a separator is handed to the handler so, on each way."""
    (directory / "sub").mkdir()
    np.save(directory / "sub" / "a.npy", np.arange(12).reshape(2, 6))
    image = {**COLUMN, "shape": [6], "dtype_numpy": "<i8"}
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    resource = run.compose_resource(spec="PREFIXED", root=str(directory), resource_path="sub/", resource_kwargs={})
    documents = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", resource.resource_doc)]
    for row in (1, 0):
        datum = resource.compose_datum(datum_kwargs={"name": "a.npy", "row": np.int64(row)})
        data = {"image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps={"image": 5.0}, filled={"image": False})
        documents += [("datum", datum), ("event", event)]
    documents.append(("stop", run.compose_stop()))
    uid = run.start_doc["uid"]
    node = write(uid, documents)["primary"].base["image"]
    assert node.read().tolist() == np.arange(12).reshape(2, 6)[::-1].tolist()
    assert np.asarray(open_array(node)).tolist() == node.read().tolist()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("gone", r"file .*0\.h5 is not there"),
        ("no column", r"handler of spec 'COLUMNS' cannot read \{'column': 'enc1'\} of .*0\.h5: KeyError"),
        ("texts", r"is no array: it holds no numbers"),
        ("kwargs", r"cannot read .*0\.h5: TypeError: .*unexpected keyword argument 'colour'"),
        ("no json", r"asked with scale=nan, for which the parameters of a catalog have no type"),
    ],
)
def test_refused(write, directory, how, words):
    """What a handler raises, or what it answers that is no array, is the reason, with file and datum."""
    with h5py.File(directory / "0.h5", "w") as file:
        file["enc2"] = np.arange(10.0)
        if how in ("kwargs", "no json"):
            file["enc1"] = np.arange(10.0)
        if how == "texts":
            file["enc1"] = np.array([b"a"], dtype=h5py.string_dtype())
    if how == "gone":
        (directory / "0.h5").unlink()
    kwargs = {"kwargs": {"colour": 1}, "no json": {"scale": float("nan")}}.get(how, {})
    if how == "texts":
        register_handler("COLUMNS", lambda path: lambda column: np.array([object()]), overwrite=True)
    flown = Flown(directory, ["0.h5"], **kwargs)
    run = write(flown.uid, flown.documents)
    assert re.search(words, refused(run)), refused(run)


def test_unknown_before_its_arguments(write, directory):
    """Of a spec that nobody reads that is said, and not what its Datums' arguments are."""
    flown = Flown(directory, ["0.h5"], spec="NOBODYS")
    run = write(flown.uid, flown.documents)
    assert refused(run).startswith("spec 'NOBODYS' is not known")


def test_out_of_reach(write):
    """Where the writer does not see the directory the descriptor's word is taken, and said to be."""
    flown = Flown("/nowhere/at/all", ["0.h5", "1.h5"])
    run = write(flown.uid, flown.documents)
    assert run["primary"].base["enc1"].shape == (2, 10)
    assert "/nowhere/at/all is not there" in run.metadata["filestore"]["unverified"]["primary"]["enc1"]


def test_a_stock_server(stock, caplog):
    """A server that has no adapter for it gets no array, and the reason names what is missing."""
    client, data = stock
    columns_file(data / "0.h5", 0)
    flown = Flown(data, ["0.h5"])
    with caplog.at_level(logging.CRITICAL), CatalogWriter(client, settle=0.0) as writer:
        for name, doc in flown.documents:
            writer(name, doc)
    assert "spec 'COLUMNS' is read by a handler alone, and the server has no adapter" in refused(client[flown.uid])


def test_a_handler_that_never_answers(write, directory, monkeypatch):
    """A handler that hangs holds up nothing for longer than it is waited for, and is asked once."""
    monkeypatch.setattr(asking, "_PATIENCE", 0.2)
    (directory / "m").touch()
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"enc1": COLUMN, "x": NUMBER})
    resource = run.compose_resource(spec="MUTE", root=str(directory), resource_path="m", resource_kwargs={})
    datum = resource.compose_datum(datum_kwargs={})
    data = {"enc1": datum["datum_id"], "x": 1.0}
    event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"enc1": False})
    documents = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc), ("resource", resource.resource_doc)]
    documents += [("datum", datum), ("event", event), ("stop", run.compose_stop())]
    try:
        written = write(run.start_doc["uid"], documents)
        assert "has not answered" in refused(written)
        assert written["primary"].base["internal"].read(["x"])["x"].tolist() == [1.0]
        assert sum(thread.name == "handler" for thread in threading.enumerate()) == 1
    finally:
        Mute.over.set()

"""Frames of varying number or shape within one key: each row is read with its own shape, on each way."""

import itertools

import event_model
import h5py
import numpy as np
import pytest
import tifffile
from document_streams import build, cases
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from test_batches import result
from tiled.structures.ragged import RaggedStructure

from bluesky_filestore import CatalogWriter, documents, fill, open_array, verify_run
from bluesky_filestore.errors import AddressError, DocumentError, TruncatedFileError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.ragged import RaggedInFiles
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.model.normalize import unpacked
from bluesky_filestore.model.ragged_rows import RaggedPart, RaggedRows, as_ragged, common_shape

numbers = itertools.count()
NUMBER = {"source": "s", "dtype": "number", "shape": []}


def frames(count, shape=(4, 6), first=0):
    """Frames that differ."""
    return (np.arange(count * np.prod(shape)).reshape(count, *shape) + 100 * first).astype("<u2")


class Told:
    """The documents of a run that reads one camera, and the rows that are to be read for them."""

    def __init__(self, shape, external="FILESTORE:"):
        self.run = event_model.compose_run()
        self.uid = self.run.start_doc["uid"]
        image = {"source": "s", "dtype": "array", "shape": shape, "external": external}
        self.bundle = self.run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "image": image})
        self.documents = [("start", self.run.start_doc), ("descriptor", self.bundle.descriptor_doc)]
        self.rows = []

    def resource(self, spec, directory, name, **kwargs):
        """Announce a Resource."""
        made = self.run.compose_resource(spec=spec, root=str(directory), resource_path=name, resource_kwargs=kwargs)
        self.documents.append(("resource", made.resource_doc))
        return made

    def event(self, row, datum=None):
        """An event, and what its frames are."""
        data = {"x": float(len(self.rows))}
        if datum is not None:
            self.documents.append(("datum", datum))
            data["image"] = datum["datum_id"]
        filled = {"image": False} if datum is not None else {}
        event = self.bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=filled)
        self.documents.append(("event", event))
        self.rows.append(row)

    def end(self):
        """All documents."""
        return [*self.documents, ("stop", self.run.compose_stop())]


def images_changed(directory):
    """HDF5 files of one staging each, between which num_images was changed."""
    told = Told([None, 4, 6])
    for number, per_point in enumerate((2, 3, 2)):
        whole = frames(3 * per_point, first=number)
        with h5py.File(directory / f"{number}.h5", "w") as file:
            file.create_dataset("/entry/data/data", data=whole, chunks=(1, 4, 6))
        resource = told.resource("AD_HDF5", directory, f"{number}.h5", frame_per_point=per_point)
        for point in range(3):
            row = whole[point * per_point : (point + 1) * per_point]
            told.event(row, resource.compose_datum({"point_number": point}))
    return told


def stream_of_any(directory):
    """One file of a fly scan whose events have any number of frames, one of them none."""
    told = Told([None, 4, 6], "STREAM:")
    counts = (1, 3, 0, 2, 3)
    whole = frames(sum(counts))
    with h5py.File(directory / "stream.h5", "w") as file:
        file.create_dataset("/entry/data/data", data=whole, chunks=(1, 4, 6))
    resource = told.run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{directory}/stream.h5",
        data_key="image",
        parameters={"dataset": "/entry/data/data", "chunk_shape": [1, 4, 6]},
    )
    told.documents.append(("stream_resource", resource.stream_resource_doc))
    first = 0
    for number, count in enumerate(counts):
        indices = event_model.StreamRange(start=first, stop=first + count)
        seq_nums = event_model.StreamRange(start=number + 1, stop=number + 2)
        datum = {
            "uid": f"{resource.stream_resource_doc['uid']}/{number}",
            "stream_resource": resource.stream_resource_doc["uid"],
            "descriptor": told.bundle.descriptor_doc["uid"],
            "indices": dict(indices),
            "seq_nums": dict(seq_nums),
        }
        told.documents.append(("stream_datum", datum))
        told.event(whole[first : first + count])
        first += count
    return told


SHAPES = ((4, 6), (6, 4), (4, 6), (3, 5), (3, 5))


def tiff_of_any_shape(directory):
    """A TIFF series in which each file has its own shape, two of them of one size."""
    told = Told([1, 4, 6])
    resource = told.resource("AD_TIFF", directory, "", template="%s%s_%6.6d.tiff", filename="t", frame_per_point=1)
    for number, shape in enumerate(SHAPES):
        image = frames(1, shape, number)
        tifffile.imwrite(directory / f"t_{number:06d}.tiff", image[0])
        told.event(image, resource.compose_datum({"point_number": number}))
    return told


def npy_of_any_shape(directory):
    """The same of numpy's own files, described as what varies."""
    told = Told([None, None])
    resource = told.resource("NPY_SEQ", directory, "n")
    for number, shape in enumerate(SHAPES):
        image = frames(1, shape, number)[0]
        np.save(directory / f"n_{number}.npy", image)
        told.event(image, resource.compose_datum({"index": number}))
    return told


def eiger(directory):
    """Sequences of an Eiger, each of as many images as it has."""
    from test_files_hdf5_pieces import write_eiger

    told = Told([None, 4, 6])
    resource = told.resource("AD_EIGER2", directory, "scan", images_per_file=2)
    for seq_id, count in enumerate((3, 5, 1)):
        whole = frames(count, first=seq_id)
        write_eiger(directory, whole, per_file=2, seq_id=seq_id)
        told.event(whole, resource.compose_datum({"seq_id": seq_id}))
    return told


KINDS = (images_changed, stream_of_any, tiff_of_any_shape, npy_of_any_shape, eiger)


def as_array(row):
    """A row of the stock client."""
    return row._impl.to_numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_each_way(catalog, data_directory, kind):
    """Server, straight through the catalog, straight by the documents, and fill have the same rows."""
    directory = data_directory / f"ragged {kind.__name__}"
    directory.mkdir()
    told = kind(directory)
    documents = told.end()
    with CatalogWriter(catalog.client) as writer:
        for name, doc in documents:
            writer(name, doc)
    stream = catalog.client[told.uid]["primary"]
    assert stream["image"].structure_family == "ragged"
    ways = [open_array(stream["image"]), open_array(documents)]
    assert [way.source for way in ways] == ["files", "files"]
    filled = [doc["data"]["image"] for name, doc in fill(documents) if name == "event"]
    for number, row in enumerate(told.rows):
        served = stream["image"][number]
        assert served.shape == row.shape
        for found in (as_array(served), *(way[number] for way in ways), filled[number]):
            assert found.dtype == row.dtype
            np.testing.assert_array_equal(found, row)
    assert [row.tolist() for row in told.rows] == stream["image"].read().tolist()
    with pytest.warns(UserWarning, match="ragged array"):
        assert stream.read()["x"].values.tolist() == list(range(len(told.rows)))
    assert stream.read(["x"])["x"].values.tolist() == list(range(len(told.rows)))
    report = verify_run(catalog.client, told.uid, every_frame=True)
    assert [finding for finding in report.findings if not finding.ok] == []


@pytest.mark.parametrize("place", ["ours", "stock"])
def test_opaque(request, catalog, data_directory, tmp_path, place):
    """Files of a spec that nobody reads are in the catalog as they are, on any server; the run is whole."""
    client, directory = (catalog.client, data_directory) if place == "ours" else request.getfixturevalue("stock")
    directory = directory / "vendor"
    directory.mkdir(exist_ok=True)
    told = Told([1, 4, 6])
    for number in range(2):
        (directory / f"{place}_{number}.raw").write_bytes(bytes([number] * 10))
        resource = told.resource("VENDORS_OWN", directory, f"{place}_{number}.raw", gain=1)
        told.event(None, resource.compose_datum({"any": "words"}))
    pairs = told.end()
    with CatalogWriter(client, spool=tmp_path / "spool") as writer:
        for name, doc in pairs:
            writer(name, doc)
    assert not writer.status().catalogs[0].parked
    run = client[told.uid]
    stream = run["primary"]
    assert stream["image"].structure_family == "bytes"
    assert "spec 'VENDORS_OWN' is not known" in run.metadata["filestore"]["refused"]["primary"]["image"]
    assert list(stream.read(["x"])["x"].values) == [0.0, 1.0]
    exported = stream["image"].raw_export(tmp_path / "exported")
    assert sorted(path.read_bytes() for path in exported) == [bytes([number] * 10) for number in range(2)]
    assert [name for name, _ in documents(run)] == [name for name, _ in pairs]
    with pytest.raises(DocumentError, match="VENDORS_OWN"):
        open_array(pairs)


@pytest.mark.parametrize("values", [[[1, 2], [3], [], [4, 5, 6]], [[1, 2], [3, 4], [5], [0.5, 1.5]]])
def test_values_of_events(catalog, values):
    """Lists whose length varies, from the first on or later, are had row by row under their own name."""
    run = event_model.compose_run()
    keys = {"x": NUMBER, "peaks": {"source": "s", "dtype": "array", "shape": [None]}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    with CatalogWriter(catalog.client, batch_size=1) as writer:
        writer("start", run.start_doc)
        writer("descriptor", bundle.descriptor_doc)
        for number, value in enumerate(values):
            data = {"x": float(number), "peaks": value}
            writer("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0)))
        writer("stop", run.compose_stop())
    node = catalog.client[run.start_doc["uid"]]
    peaks = open_array(node["primary"], "peaks")
    assert [row.tolist() for row in peaks] == values
    assert [row.tolist() for row in open_array(node, "peaks")[1:]] == values[1:]
    with pytest.raises(ValueError, match="differ in shape"):
        np.asarray(peaks)
    assert list(node["primary"].read(["x"])["x"].values) == [0.0, 1.0, 2.0, 3.0]


def rows_of(placed):
    """The rows of what is registered."""
    shared = (placed.parameters, placed.properties, placed.files)
    if placed.ragged is not None:
        return RaggedInFiles(*shared, placed.shape[0], np.dtype(placed.dtype)).read_row
    return ArrayInFiles(Registered(placed.mimetype, *shared, placed.shape, np.dtype(placed.dtype))).read


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(varies=True), data=st.data())
def test_any_batches(tmp_path, case, data):
    """Whenever operations are taken, each event has its own frames in the end, whatever their number."""
    built = build(case, tmp_path / str(next(numbers)))
    flips = (data.draw(st.booleans()) for _ in itertools.count())
    singles = [single for name, doc in built.documents for single in unpacked(name, doc)]
    held = result(singles, True, flips)
    assert held == result(singles, True, itertools.repeat(False))
    for name, expected in built.frames.items():
        placed = held[1][name]
        read = rows_of(placed)
        event("alike" if placed.ragged is None else "ragged")
        assert placed.shape[0] == len(expected)
        for number, row in enumerate(expected):
            np.testing.assert_array_equal(read(number), row)


def test_cut_short(tmp_path):
    """Rows from the first one on that is not there are errors that say why; those before are read."""
    told = images_changed(tmp_path)
    with h5py.File(tmp_path / "2.h5", "a") as file:
        whole = file["/entry/data/data"][:5]
        del file["/entry/data/data"]
        file["/entry/data/data"] = whole
    array = open_array(told.end())
    assert len(array) == len(told.rows)
    for number, row in enumerate(told.rows[:-1]):
        np.testing.assert_array_equal(array[number], row)
    with pytest.raises(TruncatedFileError, match=r"row 8 .*2\.h5 holds 5 frames; event .* needs 6"):
        array[-1]


def test_types_that_differ(tmp_path):
    """Rows of several types are refused, with the reason."""
    told = images_changed(tmp_path)
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["/entry/data/data"] = np.ones((9, 4, 6))
    with pytest.raises(DocumentError, match="not of one type and as many axes"):
        open_array(told.end())


@pytest.mark.parametrize(
    ("shape", "shapes"),
    [
        ((None,), [(2,), (0,), (3,)]),
        ((None, 4), [(2, 4), (1, 4)]),
        ((1, None, None), [(1, 2, 3), (1, 3, 2), (1, 0, 0)]),
        ((None, 2, None), [(1, 2, 3), (2, 2, 1)]),
        ((2, 3), [(2, 3), (2, 3)]),
    ],
)
def test_as_tiled_has_it(shape, shapes):
    """Rows become one ragged array of the structure that is registered for them, and come back as they were."""
    rows = [np.arange(np.prod(each), dtype=">i4").reshape(each) for each in shapes]
    assert common_shape(shapes) == shape
    made = as_ragged(rows, shape, rows[0].dtype)
    assert (made.shape, made.tolist()) == ((len(rows), *shape), [row.tolist() for row in rows])
    assert RaggedStructure.from_array(made).shape == made.shape


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"parts": [], "order": [[0, 1]]},
        {**RaggedRows((RaggedPart("m", (2, 3)),), ((0, 2),)).to_parameters(), "order": [[0, 3]]},
        {**RaggedRows((RaggedPart("m", (2, 3)),), ((0, 2),)).to_parameters(), "order": [[0, 2], [1, 1]]},
    ],
)
def test_bad_parameters(parameters):
    """Parameters that do not say what the rows are are refused."""
    with pytest.raises(AddressError, match="not"):
        RaggedRows.from_parameters(parameters)


def test_order():
    """Each row is the next one of its part."""
    parts = (RaggedPart("m", (3, 1)), RaggedPart("m", (2, 2)))
    rows = RaggedRows(parts, ((0, 2), (1, 2), (0, 1)), "gone")
    assert RaggedRows.from_parameters(rows.to_parameters()) == rows
    assert [rows.locate(row) for row in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    with pytest.raises(AddressError, match="row 5"):
        rows.locate(5)


def test_alike_until_then(catalog, data_directory):
    """Rows that are alike are an array while the run goes on, and part of the ragged one from its end on."""
    directory = data_directory / "ragged later"
    directory.mkdir()
    told = images_changed(directory)
    *before, stop = told.end()
    with CatalogWriter(catalog.client, batch_size=1) as writer:
        for number, (name, doc) in enumerate(before):
            writer(name, doc)
            if number == 6:
                writer.flush(timeout=60)
                assert catalog.client[told.uid]["primary"]["image"].shape == (2, 2, 4, 6)
        writer(*stop)
    image = catalog.client[told.uid]["primary"]["image"]
    assert [row.tolist() for row in told.rows] == image.read().tolist()

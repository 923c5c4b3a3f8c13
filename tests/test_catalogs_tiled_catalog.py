"""Operations applied to real Tiled servers, a stock one and ours, and read back with the stock client."""

import event_model
import h5py
import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.errors import CatalogError, RowsDifferError
from bluesky_filestore.handlers.asking import inspect
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.operations.operations import AppendArray, AppendRows, CreateRun, CreateStream, PlaceArray
from bluesky_filestore.operations.run import Run, announce

NUMBER = {"source": "s", "dtype": "number", "shape": []}
SHAPE = (4, 6)


@pytest.fixture(params=["stock", "ours"])
def place(request, tmp_path_factory):
    """A client, and a new directory that its server can read."""
    if request.param == "stock":
        client, data = request.getfixturevalue("stock")
    else:
        catalog, data = request.getfixturevalue("catalog"), request.getfixturevalue("data_directory")
        client = catalog.client
    directory = data / f"run {len(list(data.iterdir()))} 50%"
    directory.mkdir()
    return client, directory


def frames(count, dtype="<u2"):
    """Frames that carry their number."""
    return (np.arange(count)[:, None, None] * 100 + np.arange(24).reshape(SHAPE)).astype(dtype)


class Detector:
    """Files of one detector, and the documents that speak of them."""

    def __init__(self, run, directory, spec, frames_per_point=1, count=24, name="a"):
        self.frames_per_point, self.all = frames_per_point, frames(count)
        self.kwargs = {"frame_per_point": frames_per_point}
        path = directory.name
        match spec:
            case "AD_HDF5":
                path = f"{directory.name}/{name}.h5"
                write_hdf5(directory / f"{name}.h5", self.all)
            case "AD_TIFF":
                self.kwargs |= {"template": "%s%s_%6.6d.tiff", "filename": name}
                for number, frame in enumerate(self.all):
                    tifffile.imwrite(directory / f"{name}_{number:06d}.tiff", frame)
            case "AD_HDF5_SINGLE":
                self.kwargs |= {"template": "%s%s_%d.h5", "filename": name}
                for number, frame in enumerate(self.all):
                    write_hdf5(directory / f"{name}_{number}.h5", frame)
        self.resource = run.compose_resource(
            spec=spec, root=str(directory.parent), resource_path=path, resource_kwargs=self.kwargs
        )

    def points(self, indices):
        """What the events with these points shall read."""
        return np.stack([self.all[self.frames_per_point * i : self.frames_per_point * (i + 1)] for i in indices])


def write_hdf5(path, data):
    """A file laid out as areaDetector's."""
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = data


class Writing:
    """Documents, made into operations by a run and applied to a catalog."""

    def __init__(self, client):
        self.catalog = TiledCatalog(client)
        self.client = client
        self.composed = event_model.compose_run()
        self.assets = Assets()
        self.run = Run(self.composed.start_doc, self.assets, inspect, self.catalog.reads)
        self.streams = {}

    def describe(self, stream="primary", frames_per_point=1, **more):
        """A stream with a number and an image."""
        image = {"source": "s", "dtype": "array", "shape": [frames_per_point, *SHAPE], "external": "FILESTORE:"}
        bundle = self.composed.compose_descriptor(name=stream, data_keys={"x": NUMBER, "image": image, **more})
        self.streams[stream] = bundle
        self.run.receive("descriptor", bundle.descriptor_doc)

    def event(self, detector, point, stream="primary", **data):
        """An event with a point of a detector."""
        datum = detector.resource.compose_datum(datum_kwargs={"point_number": point})
        announce("resource", detector.resource.resource_doc, self.assets)
        announce("datum", datum, self.assets)
        data = {"x": float(point), "image": datum["datum_id"], **data}
        doc = self.streams[stream].compose_event(
            data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False}
        )
        self.run.receive("event", doc)

    def apply(self, times=1):
        """Apply what is there."""
        for operation in self.run.take():
            for _ in range(times):
                self.catalog.apply(operation)

    def stop(self, times=1):
        """Stop, apply the rest, and give the run as the stock client sees it."""
        self.run.receive("stop", self.composed.compose_stop())
        self.apply(times)
        return self.client[self.run.uid]


@pytest.mark.parametrize(
    ("spec", "frames_per_point", "points"),
    [
        ("AD_HDF5", 1, [0, 1, 2, 3]),
        ("AD_HDF5", 5, [0, 1, 2, 3]),
        ("AD_HDF5", 3, [2, 3]),
        ("AD_HDF5", 1, [1, 3, 5]),
        ("AD_HDF5", 1, [5]),
        ("AD_HDF5", 1, [7, 5, 3, 1]),
        ("AD_HDF5", 1, [3, 2, 1, 0]),
        ("AD_TIFF", 1, [0, 1, 2]),
        ("AD_TIFF", 3, [0, 1, 2]),
        ("AD_TIFF", 1, [4]),
        ("AD_TIFF", 2, [3, 0, 3, 3, 1]),
        ("AD_HDF5_SINGLE", 1, [0, 1, 2]),
        ("AD_HDF5_SINGLE", 2, [5, 0, 4]),
    ],
)
def test_rows_of_one_resource(place, spec, frames_per_point, points):
    """Row i of the array is what event i took, and the stock client reads array, stream and single frames."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, spec, frames_per_point)
    writing.describe(frames_per_point=frames_per_point)
    for point in points:
        writing.event(detector, point)
    stream = writing.stop()["primary"]
    expected = detector.points(points)
    array = stream["image"].read()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(stream["image"][len(points) - 1], expected[-1])
    np.testing.assert_array_equal(stream["image"][0, 0, 1:3], expected[0, 0, 1:3])
    dataset = stream.read()
    assert dataset["x"].values.tolist() == [float(point) for point in points]
    np.testing.assert_array_equal(dataset["image"].values, expected)


def test_dark_and_light_in_one_file(place):
    """Each stream has its own rows of a file that both use."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_HDF5", 2)
    for stream in ("dark", "primary"):
        writing.describe(stream, 2)
    for point, stream in enumerate(["dark", "dark", "primary", "primary", "primary"]):
        writing.event(detector, point, stream)
    run = writing.stop()
    np.testing.assert_array_equal(run["dark"]["image"].read(), detector.points([0, 1]))
    np.testing.assert_array_equal(run["primary"]["image"].read(), detector.points([2, 3, 4]))


def test_interleaved_in_one_file(place):
    """Light and dark in turn, one frame each, are every other row of the file."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_HDF5")
    for stream in ("light", "dark"):
        writing.describe(stream)
    for point in range(6):
        writing.event(detector, point, ("light", "dark")[point % 2])
    run = writing.stop()
    np.testing.assert_array_equal(run["light"]["image"].read(), detector.points([0, 2, 4]))
    np.testing.assert_array_equal(run["dark"]["image"].read(), detector.points([1, 3, 5]))


@pytest.mark.parametrize(("spec", "frames_per_point"), [("AD_HDF5", 1), ("AD_HDF5", 3), ("AD_TIFF", 2)])
def test_staged_again(place, spec, frames_per_point):
    """A second staging's file continues the array."""
    client, directory = place
    writing = Writing(client)
    first = Detector(writing.composed, directory, spec, frames_per_point, count=2 * frames_per_point, name="first")
    second = Detector(writing.composed, directory, spec, frames_per_point, name="second")
    second.all = second.all[::-1]
    for path in directory.glob("second*.h5"):
        write_hdf5(path, second.all)
    for number, path in enumerate(sorted(directory.glob("second*.tiff"))):
        tifffile.imwrite(path, second.all[number])
    writing.describe(frames_per_point=frames_per_point)
    for detector in (first, second):
        for point in (0, 1):
            writing.event(detector, point)
    array = writing.stop()["primary"]["image"].read()
    np.testing.assert_array_equal(array, np.concatenate([first.points([0, 1]), second.points([0, 1])]))


def test_fly_scan(place):
    """Frames and scalars of stream documents without events, in two pieces, two frames an event."""
    client, directory = place
    writing = Writing(client)
    with h5py.File(directory / "fly.h5", "w") as file:
        file["images"], file["counts"] = frames(12), np.arange(6.0)
    image = {"source": "s", "dtype": "array", "shape": [2, *SHAPE], "dtype_numpy": "<u2", "external": "STREAM:"}
    count = {"source": "s", "dtype": "number", "shape": [1], "dtype_numpy": "<f8", "external": "STREAM:"}
    bundle = writing.composed.compose_descriptor(name="fly", data_keys={"image": image, "count": count})
    writing.run.receive("descriptor", bundle.descriptor_doc)
    for key, dataset, chunk in (("image", "images", (1, *SHAPE)), ("count", "counts", (6,))):
        resource = writing.composed.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{directory}/fly.h5".replace("%", "%25").replace(" ", "%20"),
            data_key=key,
            parameters={"dataset": dataset, "chunk_shape": chunk},
        )
        announce("stream_resource", resource.stream_resource_doc, writing.assets)
        for start, stop in ((0, 4), (4, 6)):
            doc = resource.compose_stream_datum(
                event_model.StreamRange(start=start, stop=stop),
                event_model.StreamRange(start=start + 1, stop=stop + 1),
                bundle.descriptor_doc,
            )
            writing.run.receive("stream_datum", doc)
            writing.apply()
    stream = writing.stop()["fly"]
    np.testing.assert_array_equal(stream["image"].read(), frames(12).reshape(6, 2, *SHAPE))
    assert stream["count"].read().tolist() == [0, 1, 2, 3, 4, 5]
    assert stream.read().sizes["time"] == 6


def test_thrown_away_frame(place):
    """A frame in between that no event took leaves rows that are no slice, which only our server reads."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_HDF5")
    writing.describe()
    for point in (0, 1, 3):
        writing.event(detector, point)
        writing.apply()
    run = writing.stop()
    assert run["primary"].read()["x"].values.tolist() == [0, 1, 3]
    if writing.catalog.reads(HDF5_ROWS):
        np.testing.assert_array_equal(run["primary"]["image"].read(), detector.points([0, 1, 3]))
        assert run.metadata["filestore"] == {}
    else:
        assert "image" not in run["primary"]
        assert "no regular order" in run.metadata["filestore"]["refused"]["primary"]["image"]


def test_channels_of_a_spectrometer(place):
    """Each channel of an XSP3 file is an array of its own, in any order of frames where the server reads it."""
    client, directory = place
    writing = Writing(client)
    counts = np.arange(6 * 4 * 7.0).reshape(6, 4, 7)
    with h5py.File(directory / "x.h5", "w") as file:
        file["/entry/instrument/detector/data"] = counts
    spectrum = {"source": "s", "dtype": "array", "shape": [7], "dtype_numpy": "<f8", "external": "FILESTORE:"}
    channels = (1, 3)
    bundle = writing.composed.compose_descriptor(
        name="primary", data_keys={f"channel{channel}": spectrum for channel in channels}
    )
    writing.run.receive("descriptor", bundle.descriptor_doc)
    resource = writing.composed.compose_resource(
        spec="XSP3", root=str(directory), resource_path="x.h5", resource_kwargs={}, validate=False
    )
    announce("resource", resource.resource_doc, writing.assets)
    frames_taken = [0, 1, 2, 5, 5, 3] if writing.catalog.reads(HDF5_ROWS) else [1, 3, 5]
    for frame in frames_taken:
        data = {}
        for channel in channels:
            datum = resource.compose_datum(datum_kwargs={"frame": frame, "channel": channel})
            announce("datum", datum, writing.assets)
            data[f"channel{channel}"] = datum["datum_id"]
        filled = dict.fromkeys(data, False)
        writing.run.receive(
            "event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=filled)
        )
    stream = writing.stop()["primary"]
    for channel in channels:
        np.testing.assert_array_equal(stream[f"channel{channel}"].read(), counts[frames_taken, channel - 1])


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
def test_series_of_jpeg_files(place, shape):
    """Stream documents of JPEG files, as ophyd-async writes them, are read as the files are."""
    client, directory = place
    writing = Writing(client)
    expected = []
    for number in range(4):
        pixels = np.full(shape, 50 * number, "u1")
        Image.fromarray(pixels).save(directory / f"a_{number:06d}.jpeg", quality=100)
        expected.append(np.asarray(Image.open(directory / f"a_{number:06d}.jpeg")))
    image = {"source": "s", "dtype": "array", "shape": [1, *shape], "dtype_numpy": "|u1", "external": "STREAM:"}
    bundle = writing.composed.compose_descriptor(name="primary", data_keys={"image": image})
    writing.run.receive("descriptor", bundle.descriptor_doc)
    resource = writing.composed.compose_stream_resource(
        mimetype="multipart/related;type=image/jpeg",
        uri=f"file://localhost{directory}/".replace("%", "%25").replace(" ", "%20"),
        data_key="image",
        parameters={"template": "a_{:06d}.jpeg", "chunk_shape": (1, *shape)},
    )
    announce("stream_resource", resource.stream_resource_doc, writing.assets)
    whole = event_model.StreamRange(start=0, stop=4), event_model.StreamRange(start=1, stop=5)
    writing.run.receive("stream_datum", resource.compose_stream_datum(*whole, bundle.descriptor_doc))
    stream = writing.stop()["primary"]
    np.testing.assert_array_equal(stream["image"].read(), np.stack(expected)[:, np.newaxis])


def mimetype_of(client, uid):
    """What the image of a run is registered as, with its assets."""
    source = client[uid].base["primary"].base.include_data_sources()["image"].data_sources()[0]
    return source.mimetype, [(asset.num, asset.is_directory) for asset in source.assets]


@pytest.mark.parametrize("frames_per_point", [1, 2])
def test_two_files_in_turn(catalog, data_directory, frames_per_point):
    """Rows of two files in turn, back and forth, are read by our server."""
    directory = data_directory / f"in turn {frames_per_point}"
    directory.mkdir()
    writing = Writing(catalog.client)
    first = Detector(writing.composed, directory, "AD_HDF5", frames_per_point, name="first")
    second = Detector(writing.composed, directory, "AD_HDF5", frames_per_point, name="second")
    second.all = second.all[::-1].copy()
    write_hdf5(directory / "second.h5", second.all)
    writing.describe(frames_per_point=frames_per_point)
    order = [(first, 0), (second, 3), (first, 7), (second, 2), (second, 2), (first, 1)]
    expected = []
    for detector, point in order:
        writing.event(detector, point)
        expected.append(detector.points([point])[0])
        writing.apply()
        np.testing.assert_array_equal(catalog.client[writing.run.uid]["primary"]["image"].read(), expected)
    stream = writing.stop()["primary"]
    np.testing.assert_array_equal(stream["image"].read(), expected)
    np.testing.assert_array_equal(stream["image"][3, 0, 1:3], expected[3][0, 1:3])
    np.testing.assert_array_equal(stream.read()["image"].values, expected)
    assert mimetype_of(catalog.client, writing.run.uid) == (HDF5_ROWS, [(0, False), (1, False)])


@pytest.mark.parametrize(("spec", "frames_per_point"), [("AD_TIFF", 1), ("AD_TIFF", 3), ("AD_HDF5_SINGLE", 2)])
def test_series_as_one_directory(catalog, data_directory, spec, frames_per_point):
    """A series is one asset, however many files it has, and grows without another."""
    directory = data_directory / f"series {spec} {frames_per_point}"
    directory.mkdir()
    writing = Writing(catalog.client)
    detector = Detector(writing.composed, directory, spec, frames_per_point)
    writing.describe(frames_per_point=frames_per_point)
    points = [0, 1, 2, 6, 6, 5, 0]
    for row, point in enumerate(points):
        writing.event(detector, point)
        writing.apply()
        array = catalog.client[writing.run.uid]["primary"]["image"].read()
        np.testing.assert_array_equal(array, detector.points(points[: row + 1]))
    assert mimetype_of(catalog.client, writing.stop().metadata["start"]["uid"]) == (FILE_SERIES, [(0, True)])


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_TIFF", "AD_HDF5_SINGLE"])
def test_cut_short(place, spec):
    """Frames that are not there are named, those that are can be read, alone and with the stream."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, spec, 2, count=7)
    writing.describe(frames_per_point=2)
    for point in range(4):
        writing.event(detector, point)
    run = writing.stop()
    np.testing.assert_array_equal(run["primary"]["image"].read(), detector.points([0, 1, 2]))
    assert run.metadata["filestore"]["missing"]["primary"]["image"]["events"] == [3]
    dataset = run["primary"].read()
    assert (dataset.sizes["time"], dataset.sizes["image_event"]) == (4, 3)


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_TIFF"])
def test_the_descriptor_lies(place, spec):
    """Another shape and dtype in the descriptor than in the file do not come through."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, spec)
    image = {"source": "s", "dtype": "array", "shape": [6, 4], "dtype_numpy": "|u1", "external": "FILESTORE:"}
    writing.describe(image=image)
    writing.event(detector, 22)
    run = writing.stop()
    np.testing.assert_array_equal(run["primary"]["image"].read(), detector.points([22]))
    assert len(run.metadata["filestore"]["differences"]["primary"]["image"]) == 2


def test_live(place):
    """After each batch the rows so far can be read, and at the end all of them, frame for frame."""
    client, directory = place
    writing = Writing(client)
    detectors = {key: Detector(writing.composed, directory, f"AD_{key.upper()}") for key in ("hdf5", "tiff")}
    image = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "external": "FILESTORE:"}
    bundle = writing.composed.compose_descriptor(name="primary", data_keys={"hdf5": image, "tiff": image})
    writing.run.receive("descriptor", bundle.descriptor_doc)
    for detector in detectors.values():
        announce("resource", detector.resource.resource_doc, writing.assets)
    for point in range(5):
        data = {}
        for key, detector in detectors.items():
            datum = detector.resource.compose_datum(datum_kwargs={"point_number": point})
            announce("datum", datum, writing.assets)
            data[key] = datum["datum_id"]
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled=dict.fromkeys(data, False))
        writing.run.receive("event", event)
        writing.apply()
        stream = client[writing.run.uid]["primary"]
        for key, detector in detectors.items():
            np.testing.assert_array_equal(stream[key].read(), detector.points(range(point + 1)))
    stream = writing.stop()["primary"]
    assert stream["seq_num"].read().tolist() == [1, 2, 3, 4, 5]


def test_a_stream_is_read_between_any_two_requests(place):
    """However far table and arrays came while a run goes on, the stock client reads the stream; at its end as one."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_HDF5")
    writing.describe(w={"source": "s", "dtype": "array", "shape": [2]})
    written = {"w": 0, "image": 0, "x": 0}

    def apply_and_read():
        for operation in writing.run.take():
            writing.catalog.apply(operation)
            if isinstance(operation, CreateRun | CreateStream):
                continue
            found = client[writing.run.uid]["primary"].read()
            counts = {name: found[name].shape[0] if name in found else 0 for name in written}
            assert all(counts[name] >= before for name, before in written.items())
            written.update(counts)
            if "image" in found:
                np.testing.assert_array_equal(found["image"].values, detector.points(range(counts["image"])))
            if "w" in found:
                assert found["w"].values.tolist() == [[point, 2 * point] for point in range(counts["w"])]

    for point in range(5):
        writing.event(detector, point, w=[point, 2 * point])
        if point != 3:
            apply_and_read()
    writing.run.receive("stop", writing.composed.compose_stop())
    apply_and_read()
    found = client[writing.run.uid]["primary"].read()
    assert written == {"w": 5, "image": 5, "x": 5}
    assert {variable.dims[0] for variable in found.values()} == {"time"}


def test_applied_twice(place):
    """Every operation applied twice leaves the same run as applied once."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_TIFF")
    writing.describe(w={"source": "s", "dtype": "array", "shape": [2]})
    for point in range(4):
        writing.event(detector, point, w=[point, 2 * point])
        writing.apply(times=2)
    stream = writing.stop(times=2)["primary"]
    assert stream["seq_num"].read().tolist() == [1, 2, 3, 4]
    assert stream["w"].read().tolist() == [[0, 0], [1, 2], [2, 4], [3, 6]]
    np.testing.assert_array_equal(stream["image"].read(), detector.points(range(4)))


def test_resumed(place):
    """All operations of a run applied again by somebody who knows nothing of the first time change nothing."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, "AD_HDF5")
    writing.describe(w={"source": "s", "dtype": "array", "shape": [2]})
    operations = []
    for point in range(3):
        writing.event(detector, point, w=[point, 2 * point])
        operations += writing.run.take()
    writing.run.receive("stop", writing.composed.compose_stop())
    operations += writing.run.take()
    for stopped_after in (2, 5, len(operations)):
        catalog = TiledCatalog(client)
        for operation in operations[:stopped_after]:
            catalog.apply(operation)
    run = client[writing.run.uid]
    assert run["primary"]["seq_num"].read().tolist() == [1, 2, 3]
    assert run["primary"]["w"].read().tolist() == [[0, 0], [1, 2], [2, 4]]
    np.testing.assert_array_equal(run["primary"]["image"].read(), detector.points(range(3)))
    assert run.metadata["stop"]["exit_status"] == "success"


def test_columns_become_wider(place):
    """An integer that becomes a float, and then text, loses nothing of the rows before."""
    client, _ = place
    writing = Writing(client)
    bundle = writing.composed.compose_descriptor(
        name="primary", data_keys={"x": {**NUMBER, "dtype": "integer"}, "n": {**NUMBER, "dtype": "integer"}}
    )
    writing.run.receive("descriptor", bundle.descriptor_doc)
    for x in (1, None, 2.5, "text"):
        event = bundle.compose_event(data={"x": x, "n": 2**60}, timestamps={"x": 5.0, "n": 5.0}, validate=False)
        writing.run.receive("event", event)
        writing.apply(times=2)
    stream = writing.stop()["primary"]
    table = stream.base["internal"].read()
    assert table["x"].tolist()[0] in ("1", "1.0")
    assert table["x"].tolist()[2:] == ["2.5", "text"]
    assert table["n"].tolist() == [2**60] * 4
    assert table["seq_num"].tolist() == [1, 2, 3, 4]


def test_array_that_changes_its_shape(place):
    """The rows of an array after it has become longer are kept as text beside it, and all other columns go on."""
    client, _ = place
    writing = Writing(client)
    bundle = writing.composed.compose_descriptor(
        name="primary", data_keys={"x": NUMBER, "w": {**NUMBER, "dtype": "array", "shape": [2]}}
    )
    writing.run.receive("descriptor", bundle.descriptor_doc)
    for number, w in enumerate([[1, 2], [3, 4], [5, 6, 7]]):
        event = bundle.compose_event(data={"x": float(number), "w": w}, timestamps={"x": 5.0, "w": 5.0})
        writing.run.receive("event", event)
        writing.apply(times=2)
    stream = writing.stop()["primary"]
    assert stream["w"].read().tolist() == [[1, 2], [3, 4]]
    table = stream.base["internal"].read()
    assert table["w_"].isna().tolist() == [True, True, False]
    assert table["w_"].tolist()[-1] == "[5, 6, 7]"
    assert table["x"].tolist() == [0, 1, 2]


def test_values_of_every_kind(place):
    """Booleans, text, empty cells, not-a-numbers and integers beyond 2**53 come back as they went in."""
    client, _ = place
    values = {
        "flag": ("boolean", [True, False, True]),
        "text": ("string", ["a", "", "ü"]),
        "big": ("integer", [2**60 + 1, -(2**60), 0]),
        "real": ("number", [1.5, float("nan"), -np.inf]),
    }
    keys = {key: {"source": "s", "dtype": dtype, "shape": []} for key, (dtype, _) in values.items()}
    writing = Writing(client)
    bundle = writing.composed.compose_descriptor(name="primary", data_keys=keys)
    writing.run.receive("descriptor", bundle.descriptor_doc)
    for row in range(3):
        data = {key: column[row] for key, (_, column) in values.items()}
        writing.run.receive("event", bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0)))
    stream = writing.stop()["primary"]
    for key, (_, column) in values.items():
        np.testing.assert_array_equal(stream[key].read(), column)


@pytest.mark.filterwarnings("ignore:Tiled server does not support remote validation:UserWarning")
@pytest.mark.parametrize(("spec", "frames_per_point"), [("AD_HDF5", 1), ("AD_HDF5", 3), ("AD_TIFF", 1), ("AD_TIFF", 3)])
def test_the_plugins_find_nothing_to_repair(place, spec, frames_per_point):
    """The plugins' own validation leaves our arrays in their shape."""
    client, directory = place
    writing = Writing(client)
    detector = Detector(writing.composed, directory, spec, frames_per_point, count=4 * frames_per_point)
    writing.describe(frames_per_point=frames_per_point)
    for point in range(4):
        writing.event(detector, point)
    run = writing.stop()
    assert run.validate(write_notes=False)
    np.testing.assert_array_equal(client[writing.run.uid]["primary"]["image"].read(), detector.points(range(4)))


def test_no_events(place):
    """A run without events, or even without streams, can be read."""
    client, _ = place
    writing = Writing(client)
    writing.describe()
    run = writing.stop()
    assert list(run["primary"]) == []
    assert run.metadata["stop"]["num_events"] == {"primary": 0}


def test_documents_come_back(catalog, data_directory):
    """The documents of a run can be had back from our server with the stock client."""
    directory = data_directory / "documents"
    directory.mkdir()
    writing = Writing(catalog.client)
    detector = Detector(writing.composed, directory, "AD_TIFF", 2)
    writing.describe(frames_per_point=2)
    for point in range(3):
        writing.event(detector, point)
    documents = list(writing.stop().documents())
    assert [name for name, _ in documents] == [
        "start",
        "descriptor",
        "event",
        "event",
        "event",
        "stream_resource",
        "stream_datum",
        "stop",
    ]
    assert documents[0][1]["uid"] == writing.run.uid
    assert [doc["data"]["x"] for name, doc in documents if name == "event"] == [0.0, 1.0, 2.0]
    assert documents[-2][1]["indices"] == {"start": 0, "stop": 3}


def test_rows_that_cannot_follow(place):
    """Rows after a gap are not appended."""
    client, _ = place
    catalog = TiledCatalog(client)
    uid = event_model.compose_run().start_doc["uid"]
    catalog.apply(CreateRun(uid, {"start": {"uid": uid, "time": 0.0}}))
    catalog.apply(CreateStream(uid, "primary", {}))
    rows = AppendRows(uid, "primary", 5, types={"x": "int64"}, columns={"x": [1]})
    with pytest.raises(RowsDifferError, match=r"primary/internal has 0 rows; row 5 cannot follow them"):
        catalog.apply(rows)
    with pytest.raises(RowsDifferError, match=r"primary/w has 0 rows; row 3 cannot follow them"):
        catalog.apply(AppendArray(uid, "primary", "w", 3, np.zeros((1, 2))))
    with pytest.raises(CatalogError, match=r"other is not in the catalog at http.*; expected it to be there"):
        catalog.apply(AppendArray(uid, "other", "w", 0, np.zeros((1, 2))))


def test_what_the_catalog_refuses(place):
    """What a server will not have is said in its words."""
    client, directory = place
    catalog = TiledCatalog(client)
    uid = event_model.compose_run().start_doc["uid"]
    catalog.apply(CreateRun(uid, {"start": {"uid": uid, "time": 0.0}}))
    catalog.apply(CreateStream(uid, "primary", {}))
    array = PlaceArray(
        uid, "primary", "image", "image/x-unknown", (1,), "<f8", ((1,),), {}, {}, (str(directory / "a"),)
    )
    with pytest.raises(CatalogError, match=r"refused .status 415.: .*image/x-unknown, is not one that"):
        catalog.apply(array)


def test_stop_is_what_the_plugins_search_for(catalog, data_directory):
    """The plugins' own queries find our runs."""
    from tiled.queries import Key

    writing = Writing(catalog.client)
    run = writing.stop()
    found = catalog.client.search(Key("start.uid") == writing.run.uid)
    assert list(found) == [writing.run.uid]
    assert [(spec.name, spec.version) for spec in run.specs] == [("BlueskyRun", "3.0")]
    assert isinstance(run.metadata["stop"]["time"], float)
    assert httpx.get(catalog.uri).status_code == 200

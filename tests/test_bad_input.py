"""Bad documents and bad files: the run stays readable as far as it is good, and says what is wrong."""

import logging

import event_model
import h5py
import numpy as np
import pytest
import tifffile

from bluesky_filestore import CatalogWriter, documents
from bluesky_filestore.operations.run_metadata import create_run

NUMBER = {"source": "s", "dtype": "number", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "dtype_numpy": "<u2", "external": "FILESTORE:"}
FRAMES = np.arange(3 * 24, dtype="<u2").reshape(3, 4, 6)


class Documents:
    """The documents of a run with a number and an image, three events."""

    def __init__(self, spec="AD_HDF5", path="a.h5", root="/nowhere", image=None, **kwargs):
        self.run = event_model.compose_run()
        self.bundle = self.run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "image": image or IMAGE})
        self.resource = self.run.compose_resource(
            spec=spec, root=str(root), resource_path=path, resource_kwargs={"frame_per_point": 1, **kwargs}
        )
        self.uid = self.run.start_doc["uid"]
        self.all = [
            ("start", self.run.start_doc),
            ("descriptor", self.bundle.descriptor_doc),
            ("resource", self.resource.resource_doc),
        ]
        for point in range(3):
            datum = self.resource.compose_datum(datum_kwargs={"point_number": point})
            data = {"x": float(point), "image": datum["datum_id"]}
            event = self.bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
            self.all += [("datum", datum), ("event", event)]
        self.all.append(("stop", self.run.compose_stop()))

    def where(self, name, number=0):
        """Where the n-th document of a name is."""
        return [at for at, (other, _) in enumerate(self.all) if other == name][number]


@pytest.fixture
def written(catalog, caplog):
    """Writes documents; gives the run and the problems of the writer."""

    def write(documents, pairs=None, **options):
        with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, settle=0.0, **options) as writer:
            for name, doc in pairs or documents.all:
                writer(name, doc)
        return catalog.client[documents.uid], "\n".join(writer.status().problems)

    return write


def hdf5(directory, name):
    """A good file."""
    with h5py.File(directory / name, "w") as file:
        file["/entry/data/data"] = FRAMES


def rows(run):
    """The numbers of the run's events."""
    return run["primary"].read(["x"])["x"].values.tolist()


def said(run, kind):
    """What the run says of its image."""
    return run.metadata["filestore"][kind]["primary"]["image"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("event", {"odd": 1}, "is not of its schema: Unevaluated properties are not allowed ('odd' was unexpected)"),
        ("start", {"hints": 3}, "is not of its schema: hints: 3 is not of type 'object'"),
        ("stop", {"exit_status": "fine"}, "is not of its schema: exit_status: 'fine' is not one of"),
    ],
)
def test_broken_schema_that_can_be_understood(written, name, changes, words):
    """A document that breaks its schema in a way that can be understood is written, and told."""
    documents = Documents()
    at = documents.where(name)
    documents.all[at] = (name, {**documents.all[at][1], **changes})
    run, problems = written(documents)
    assert words in problems
    assert any(words in note for note in run.metadata["notes"])
    assert rows(run) == [0, 1, 2]


@pytest.mark.parametrize("missing", ["seq_num", "data", "timestamps", "time", "uid", "descriptor"])
def test_broken_schema_that_cannot_be_understood(written, missing):
    """An event that lacks what it must have is left out, and told."""
    documents = Documents()
    at = documents.where("event", 1)
    documents.all[at] = ("event", {key: value for key, value in documents.all[at][1].items() if key != missing})
    run, problems = written(documents)
    assert missing in problems
    assert any(missing in note for note in run.metadata["notes"])
    assert rows(run) == [0, 2]


def test_key_that_was_not_described(written):
    """A value whose key is not in the descriptor has no column, which is told, and comes back with its event."""
    given = Documents()
    at = given.where("event", 1)
    event = given.all[at][1]
    event = {**event, "data": {**event["data"], "more": 5}, "timestamps": {**event["timestamps"], "more": 2.0}}
    given.all[at] = ("event", event)
    run, _ = written(given)
    assert (
        "Keys ['more'] of events of stream 'primary' are not in its descriptor; they have no columns."
        in (run.metadata["notes"])
    )
    back = [doc for name, doc in documents(run) if name == "event"]
    assert back[1]["data"] == event["data"]
    assert back[1]["timestamps"] == event["timestamps"]
    assert "more" not in back[2]["data"]


def test_schemas_switched_off(written):
    """Without validation only what cannot be understood is told."""
    documents = Documents()
    at = documents.where("event")
    documents.all[at] = ("event", {**documents.all[at][1], "odd": 1})
    run, problems = written(documents, validate=False)
    assert (problems, rows(run)) == ("", [0, 1, 2])


@pytest.mark.parametrize("name", ["start", "descriptor", "event", "datum", "resource", "stop"])
def test_every_document_twice(written, data_directory, name):
    """A document that comes twice is written once; only announcements may be repeated without a word."""
    documents = Documents(root=data_directory, path=f"twice {name}.h5")
    hdf5(data_directory, f"twice {name}.h5")
    pairs = [pair for pair in documents.all for _ in range(2 if pair[0] == name else 1)]
    run, problems = written(documents, pairs)
    assert bool(problems) == (name not in ("datum", "resource"))
    assert rows(run) == [0, 1, 2]
    np.testing.assert_array_equal(run["primary"]["image"].read()[:, 0], FRAMES)
    assert "stop" in run.metadata


def test_two_subscriptions(written):
    """A writer that was subscribed twice says so a hundred times, not a million."""
    documents = Documents()
    events = [
        documents.bundle.compose_event(
            data={"x": 1.0, "image": "a"}, timestamps=dict.fromkeys(["x", "image"], 5.0), filled={"image": False}
        )
        for _ in range(200)
    ]
    pairs = [*documents.all[:-1], *(("event", event) for event in events for _ in range(2)), documents.all[-1]]
    run, problems = written(documents, pairs)
    assert problems.endswith("and 100 more problems")
    assert len(rows(run)) == 203


def test_stop_without_a_start(catalog, caplog):
    """A stop of a run that nobody started is told, and the next run is written."""
    lost, documents = Documents(), Documents()
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, settle=0.0) as writer:
        for name, doc in [lost.all[-1], *documents.all]:
            writer(name, doc)
    assert writer.status().problems == (
        f"stop {lost.all[-1][1]['uid']!r} refers to the start {lost.uid!r}, which was never received; it is left out.",
    )
    assert rows(catalog.client[documents.uid]) == [0, 1, 2]


def test_broken_references(written):
    """Datums and resources that never came are told of their key alone."""
    for name in ("datum", "resource"):
        documents = Documents()
        run, _ = written(documents, [pair for pair in documents.all if pair[0] != name])
        assert f"{name} '" in said(run, "refused")
        assert "was never announced" in said(run, "refused")
        assert rows(run) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a/b", "", ".", "../x", "50%25", "line\n", "what?"])
def test_stream_that_cannot_be_a_node(written, name):
    """A stream whose name Tiled would take for something else is told; the others are readable, and nothing is lost."""
    documents = Documents()
    odd = {**documents.bundle.descriptor_doc, "uid": f"odd of {documents.uid}", "name": name}
    event = {
        **documents.all[documents.where("event")][1],
        "uid": f"an event of {documents.uid}",
        "descriptor": odd["uid"],
    }
    event |= {"data": {"x": 5.0, "image": "none"}}
    pairs = [*documents.all[:-1], ("descriptor", odd), ("event", event), documents.all[-1]]
    run, problems = written(documents, pairs)
    assert list(run) == ["primary"]
    assert rows(run) == [0, 1, 2]
    assert f"{name!r} cannot be the name of a run, stream or key in Tiled" in problems
    assert any("cannot be the name of" in words for words in run.metadata["notes"])


def test_run_that_cannot_be_a_node(catalog, caplog):
    """A run whose uid Tiled would take for a way through the catalog is parked, with the reason."""
    documents = Documents()
    uid = f"{documents.uid}/.."
    pairs = [
        (
            name,
            {**doc, **({"uid": uid} if name == "start" else {}), **({"run_start": uid} if "run_start" in doc else {})},
        )
        for name, doc in documents.all
    ]
    with caplog.at_level(logging.CRITICAL), CatalogWriter(catalog.client, settle=0.0) as writer:
        for name, doc in pairs:
            writer(name, doc)
    assert "cannot be the name of a run" in writer.status().catalogs[0].parked[uid]
    assert documents.uid not in catalog.client


def test_unknown_spec(written):
    """A spec that nobody knows refuses its key, naming it and the known ones."""
    run, _ = written(Documents(spec="ODD"))
    assert said(run, "refused").startswith("spec 'ODD' is not known; expected one of AD_HDF5, ")
    assert rows(run) == [0, 1, 2]


def test_variable_shape(written, data_directory):
    """Of an array that varies in its number of frames, one of each event is what the documents say of each."""
    run = event_model.compose_run()
    key = {**IMAGE, "shape": [None, 4, 6], "external": "STREAM:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"x": NUMBER, "image": key})
    hdf5(data_directory, "variable.h5")
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{data_directory}/variable.h5",
        data_key="image",
        parameters={"dataset": "/entry/data/data", "chunk_shape": [1, 4, 6]},
    )
    ranges = event_model.StreamRange(start=0, stop=1), event_model.StreamRange(start=1, stop=2)
    datum = resource.compose_stream_datum(*ranges, bundle.descriptor_doc)
    documents = Documents()
    documents.uid = run.start_doc["uid"]
    documents.all = [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
        ("stream_datum", datum),
        ("event", bundle.compose_event(data={"x": 0.0}, timestamps={"x": 5.0})),
        ("stop", run.compose_stop()),
    ]
    node, _ = written(documents)
    assert node["primary"]["image"].shape == (1, 1, 4, 6)
    assert node["primary"]["x"].read().tolist() == [0.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"cannot be found (No such file or directory)"),
        (b"this is no HDF5 file", r"cannot be read: "),
        (b"", r"cannot be read: "),
        ("truncated", r"ends after 1000 bytes; expected 5624, as its header says: it was cut short."),
    ],
)
def test_bad_hdf5(written, data_directory, content, words):
    """A file that is missing, truncated or something else refuses its key, naming the file."""
    name = f"bad {len(list(data_directory.iterdir()))}.h5"
    path = data_directory / name
    if content == "truncated":
        hdf5(data_directory, name)
        path.write_bytes(path.read_bytes()[:1000])
    elif content is not None:
        path.write_bytes(content)
    run, problems = written(Documents(root=data_directory, path=name))
    assert f"file {path} {words}" in said(run, "refused")
    assert (problems, rows(run)) == ("", [0, 1, 2])


def test_tiff_of_another_size(written, data_directory):
    """A file of a series that is of another size is a row of another shape, and moves no other."""
    for number in range(3):
        tifffile.imwrite(data_directory / f"odd_{number}.tiff", FRAMES[number][: 4 - number // 2])
    run, _ = written(Documents("AD_TIFF", "", data_directory, template="%s%s_%d.tiff", filename="odd"))
    expected = [FRAMES[number][: 4 - number // 2].tolist() for number in range(3)]
    assert run["primary"]["image"].read().tolist() == [[frame] for frame in expected]
    assert "missing" not in run.metadata["filestore"]
    assert rows(run) == [0, 1, 2]


@pytest.mark.parametrize(
    ("specs", "kept"),
    [
        ("XAS", ["XAS"]),
        ([{"name": "XAS", "version": "1"}, 5, {"nome": "typo"}, {"name": None}, ["XAS"], "", "good"], ["XAS", "good"]),
        ({"name": "one"}, ["one"]),
        (7, []),
        ([f"spec{number}" for number in range(40)], [f"spec{number}" for number in range(19)]),
    ],
)
@pytest.mark.parametrize("tags", [None, [5], {"a": 1}, 3])
def test_specs_and_tags_that_are_none(specs, kept, tags):
    """What can be used of a start's specs and tags is; what cannot costs the run nothing but a note."""
    notes = []
    start = {"uid": "u", "time": 0.0, "tiled_specs": specs, **({} if tags is None else {"tiled_access_tags": tags})}
    made = create_run(start, lambda _, value: value, notes.append)
    assert [spec["name"] for spec in made.specs] == kept
    assert made.access_tags is None
    given = len(specs) if isinstance(specs, list) else 1
    assert len(notes) == given - len(kept) + (tags is not None)

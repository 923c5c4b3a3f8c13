"""Shape, dtype and chunks of an external array, and the words in which its rows are put."""

import itertools
import math
import os

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.handlers.asking import inspect
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS, FileSeries, HDF5Rows
from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Rows, Source, Span
from bluesky_filestore.model.paths import pure_path
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.operations.forms import place
from bluesky_filestore.operations.placement import Placement, Refusal
from bluesky_filestore.operations.structure import event_structure

IMAGE = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "external": "FILESTORE:"}


def hdf5(uid="a", directory="/data", **changes):
    """A resource in one HDF5 file."""
    attributes = {"dataset": "/entry/data/data", "frames_per_index": 1} | changes
    return Source(uid, HDF5, pure_path(f"{directory}/{uid}.h5", "posix"), **attributes)


def tiff(uid="a", directory="/data", **changes):
    """A resource in a series of TIFF files."""
    attributes = {"template": f"{directory}/{uid}_%d.tiff", "frames_per_index": 1} | changes
    return Source(uid, TIFF_SERIES, pure_path(directory, "posix"), **attributes)


def place_spans(sources, *spans, facts, data_key=IMAGE, expected=None, problem="", before=None, ours=()):
    """The placement of spans, with every file as `facts` says (or says by its name)."""
    count = sum(span.count for span in spans)
    rows = Rows(spans, count, count if expected is None else expected, problem)

    def look(_source, files):
        return [facts[file.stem] if isinstance(facts, dict) else facts for file in files]

    return place(rows, {source.uid: source for source in sources}, data_key, look, before, ours)


@pytest.mark.parametrize(
    ("declared", "source", "stored", "shape", "frames"),
    [
        ([1, 4, 6], hdf5(), (9, 4, 6), (1, 4, 6), 1),
        ([4, 6], hdf5(), (9, 4, 6), (4, 6), 1),
        ([4, 6], hdf5(frames_per_index=3), (9, 4, 6), (3, 4, 6), 3),
        ([3, 4, 6], hdf5(frames_per_index=3), (9, 4, 6), (3, 4, 6), 3),
        ([6, 4], hdf5(), (9, 4, 6), (1, 4, 6), 1),
        (None, hdf5(), (9, 4, 6), (1, 4, 6), 1),
        ([3, 4, 6], hdf5(frames_per_index=None, data_key="x"), (9, 4, 6), (3, 4, 6), 3),
        ([3, 4, 6], hdf5(frames_per_index=3, data_key="x"), (9, 3, 4, 6), (3, 4, 6), 1),
        ([], hdf5(frames_per_index=None, data_key="x"), (9,), (), 1),
        ([1], hdf5(frames_per_index=None, data_key="x"), (9,), (), 1),
        ([5], hdf5(frames_per_index=None, data_key="x"), (9, 5), (5,), 1),
        ([3, 4, 6], tiff(frames_per_index=3), (4, 6), (3, 4, 6), 3),
        ([3, 4, 6], tiff(frames_per_index=None, data_key="x"), (4, 6), (3, 4, 6), 3),
        ([3, 4, 6], tiff(frames_per_index=None, data_key="x"), (3, 4, 6), (3, 4, 6), 1),
        ([4, 6, 3], tiff(), (4, 6, 3), (4, 6, 3), 1),
    ],
)
def test_the_file_says_the_shape(declared, source, stored, shape, frames):
    """The descriptor's shape is taken where it can be the file's; where it cannot, the file's is."""
    data_key = {**IMAGE, "shape": declared}
    event = event_structure(data_key, source, FileFacts(stored, "<u2"))
    assert (event.shape, event.frames, event.dtype) == (shape, frames, "<u2")
    assert math.prod(event.shape) == event.frames * math.prod(event.frame_shape)


def test_differences_are_told():
    """A descriptor that says another shape or dtype than the file is put on record."""
    data_key = {**IMAGE, "shape": [6, 4], "dtype_numpy": "|u1"}
    event = event_structure(data_key, hdf5(), FileFacts((9, 4, 6), "<u2"))
    assert event.differences == (
        "shape: the descriptor says [6, 4], the file [1, 4, 6] an event",
        "dtype: the descriptor says |u1, the file <u2",
    )
    assert event_structure({**IMAGE, "dtype_numpy": "<u2"}, hdf5(), FileFacts((9, 4, 6), "<u2")).differences == ()


@pytest.mark.parametrize(
    ("declared", "source", "shape", "frames"),
    [
        ([1, 4, 6], hdf5(), (1, 4, 6), 1),
        ([4, 6], hdf5(frames_per_index=3), (3, 4, 6), 3),
        ([3, 4, 6], hdf5(frames_per_index=None, data_key="x"), (3, 4, 6), 3),
        ([3, 4, 6], tiff(frames_per_index=None, data_key="x", parameters={"chunk_shape": (1, 4, 6)}), (3, 4, 6), 3),
        ([1, 4, 6], tiff(frames_per_index=None, data_key="x"), (1, 4, 6), 1),
    ],
)
def test_the_descriptor_says_the_shape(declared, source, shape, frames):
    """Where no file can be seen the documents are all there is."""
    event = event_structure({**IMAGE, "shape": declared, "dtype_numpy": "<u2"}, source, None)
    assert (event.shape, event.frames, event.dtype) == (shape, frames, "<u2")


@pytest.mark.parametrize(("entry", "words"), [({"shape": [None, 6]}, "shape"), ({"dtype": "string"}, "dtype")])
def test_nobody_says_the_structure(entry, words):
    """Nothing is made up."""
    with pytest.raises(DocumentError, match=f"out of reach and the descriptor does not say the {words}"):
        event_structure({**IMAGE, **entry}, hdf5(), None)


@pytest.mark.parametrize(
    ("spans", "frames", "words"),
    [
        ([Span("a", 0, 5)], 1, "0:5"),
        ([Span("a", 3, 1)], 1, "3:4"),
        ([Span("a", 3, 1)], 2, "6:8"),
        ([Span("a", 1, 3, 2)], 1, "1:6:2"),
        ([Span("a", 4, 5, -1)], 1, "4::-1"),
        ([Span("a", 5, 2, -2)], 1, "5:1:-2"),
        ([Span("a", 2, 3)], 3, "6:15"),
        ([Span("a", 7, 3), Span("b", 0, 2)], 1, "7:12"),
        ([Span("a", 6, 2, 2), Span("b", 0, 2, 2)], 1, "6:13:2"),
        ([Span("a", 9, 1), Span("b", 0, 1)], 1, "9:11"),
    ],
)
def test_slices_of_datasets(spans, frames, words):
    """Rows at a constant distance in the datasets joined are one slice."""
    sources = [hdf5("a", frames_per_index=frames), hdf5("b", frames_per_index=frames)]
    length = 10 if frames == 1 else 30
    placed = place_spans(sources, *spans, facts=FileFacts((length, 4, 6), "<u2"))
    assert isinstance(placed, Placement)
    assert placed.parameters["slice"] == words
    index = tuple(slice(*(int(n) if n else None for n in words.split(":"))) for _ in [0])
    expected = [
        (10 if span.source == "b" else 0) + row * frames + frame
        for span in spans
        for row in span.indices()
        for frame in range(frames)
    ]
    assert np.arange(60)[index].tolist() == expected


IRREGULAR = [
    ([Span("a", 0, 2), Span("a", 3, 1)], 1),
    ([Span("a", 0, 2, 2)], 2),
    ([Span("a", 2, 2, 0)], 1),
    ([Span("a", 0, 3), Span("b", 0, 3)], 1),
    ([Span("a", 0, 1), Span("b", 0, 1), Span("a", 1, 1)], 1),
]


def addressed(placed):
    """The asset and first frame of each row of a placement for our adapter."""
    assert isinstance(placed, Placement)
    address = HDF5Rows if placed.mimetype == HDF5_ROWS else FileSeries
    rows = address.from_parameters(placed.parameters).rows
    return [(placed.files[span.asset], span.first + row * span.step) for span in rows for row in range(span.count)]


@pytest.mark.parametrize(("spans", "frames"), IRREGULAR)
def test_irregular_rows_for_our_adapter(spans, frames):
    """Where the server has our adapter, any rows are registered."""
    sources = [hdf5("a", frames_per_index=frames), hdf5("b", frames_per_index=frames)]
    placed = place_spans(sources, *spans, facts=FileFacts((10, 4, 6), "<u2"), ours=[HDF5_ROWS])
    assert placed.mimetype == HDF5_ROWS
    assert addressed(placed) == [(f"/data/{s.source}.h5", index * frames) for s in spans for index in s.indices()]
    assert (placed.missing, placed.settled, placed.unverified) == ("", True, "")


def test_regular_rows_stay_stock():
    """What a stock adapter reads is registered for it, unless the array is registered for ours already."""
    facts = FileFacts((10, 4, 6), "<u2")
    placed = place_spans([hdf5()], Span("a", 0, 5), facts=facts, ours=[HDF5_ROWS])
    assert placed.mimetype == HDF5
    irregular = place_spans([hdf5()], Span("a", 3, 2, 0), facts=facts, ours=[HDF5_ROWS])
    placed = place_spans([hdf5()], Span("a", 0, 5), facts=facts, before=irregular, ours=[HDF5_ROWS])
    assert placed.mimetype == HDF5_ROWS


def test_files_of_unknown_length_for_our_adapter():
    """Several files that nobody can look into are registered by their own frames, unverified."""
    away = Unseen("out of reach", "directory /data is not there")
    data_key = {**IMAGE, "dtype_numpy": "<u2"}
    spans = [Span("a", 2, 3), Span("b", 0, 2)]
    placed = place_spans([hdf5("a"), hdf5("b")], *spans, facts=away, data_key=data_key, ours=[HDF5_ROWS])
    assert addressed(placed) == [("/data/a.h5", n) for n in (2, 3, 4)] + [("/data/b.h5", n) for n in (0, 1)]
    assert (placed.unverified, placed.settled) == (away.reason, True)
    facts = {"a": FileFacts((9, 4, 6), "<u2"), "b": Unseen("busy", "busy"), "c": FileFacts((9, 4, 6), "<u2")}
    spans = [Span(name, 0, 2) for name in "abc"]
    placed = place_spans([hdf5(name) for name in "abc"], *spans, facts=facts, ours=[HDF5_ROWS])
    assert [frame for _, frame in addressed(placed)] == [0, 1] * 3
    assert not placed.settled
    placed = place_spans([hdf5(name) for name in "abc"], *spans, facts=facts)
    assert isinstance(placed, Placement)
    assert (placed.count, placed.missing) == (2, "busy")


def test_short_file_for_our_adapter():
    """Rows whose frames are not there are left off for our adapter, too."""
    spans = [Span("a", 3, 2, 0), Span("a", 8, 4)]
    placed = place_spans([hdf5()], *spans, facts=FileFacts((10, 4, 6), "<u2"), ours=[HDF5_ROWS])
    assert [frame for _, frame in addressed(placed)] == [3, 3, 8, 9]
    assert placed.missing == "file /data/a.h5 holds 10 frames; event 4 needs 11"


def test_slice_and_swmr_for_our_adapter():
    """The slice of the other axes and SWMR go along."""
    asked = hdf5(parameters={"slice": ":, 1, :", "swmr": True}, data_key="x", frames_per_index=None)
    data_key = {**IMAGE, "shape": [7]}
    facts = FileFacts((10, 3, 7), "<f8")
    placed = place_spans([asked], Span("a", 4, 2, 0), facts=facts, data_key=data_key, ours=[HDF5_ROWS])
    rows = HDF5Rows.from_parameters(placed.parameters)
    assert (rows.slice, rows.swmr, rows.dataset, placed.event.shape) == ("1,:", True, "/entry/data/data", (7,))


@pytest.mark.parametrize(("spans", "frames"), IRREGULAR)
def test_irregular_rows_are_refused(spans, frames):
    """What is no slice is not registered, with the rows in question."""
    sources = [hdf5("a", frames_per_index=frames), hdf5("b", frames_per_index=frames)]
    placed = place_spans(sources, *spans, facts=FileFacts((10, 4, 6), "<u2"))
    assert isinstance(placed, Refusal)
    assert "frames in no regular order (indices " in placed.reason
    assert placed.settled


def test_short_file():
    """Rows whose frames are not in the file are left off, and named."""
    placed = place_spans([hdf5()], Span("a", 0, 5), facts=FileFacts((4, 4, 6), "<u2"))
    assert isinstance(placed, Placement)
    assert (placed.count, placed.parameters["slice"]) == (4, "0:4")
    assert placed.missing == "file /data/a.h5 holds 4 frames; event 4 needs 5"
    assert not placed.settled


def test_empty_file():
    """A file without the first frame registers nothing, for now."""
    placed = place_spans([hdf5()], Span("a", 0, 5), facts=FileFacts((0, 4, 6), "<u2"))
    assert placed == Refusal("file /data/a.h5 holds 0 frames; event 0 needs 1", settled=False)


@pytest.mark.parametrize("facts", [FileFacts((4, 4, 6), "<u4"), FileFacts((4, 5, 6), "<u2"), Unseen("missing", "gone")])
def test_second_file_does_not_fit(facts):
    """Rows end before a file that cannot be joined to the first."""
    placed = place_spans(
        [hdf5("a"), hdf5("b")],
        Span("a", 0, 4),
        Span("b", 0, 4),
        facts={"a": FileFacts((4, 4, 6), "<u2"), "b": facts},
    )
    assert isinstance(placed, Placement)
    assert (placed.count, placed.files) == (4, ("/data/a.h5",))
    assert "gone" in placed.missing or "the first file [4, 6] <u2" in placed.missing


def test_file_still_being_written():
    """The documents are believed for now, and the file is looked at again."""
    busy = Unseen("busy", "file /data/a.h5 is still being written")
    data_key = {**IMAGE, "dtype_numpy": "<u2"}
    placed = place_spans([hdf5()], Span("a", 0, 5), facts=busy, data_key=data_key)
    assert isinstance(placed, Placement)
    assert (placed.count, placed.unverified, placed.settled) == (5, busy.reason, False)
    facts = {"a": FileFacts((4, 4, 6), "<u2"), "b": busy}
    placed = place_spans([hdf5("a"), hdf5("b")], Span("a", 0, 4), Span("b", 0, 4), facts=facts)
    assert isinstance(placed, Placement)
    assert (placed.count, placed.parameters["slice"], placed.settled) == (8, "0:8", False)


def test_files_out_of_reach():
    """One file is registered unverified; of several, nobody knows where the second begins."""
    away = Unseen("out of reach", "directory /data is not there")
    data_key = {**IMAGE, "dtype_numpy": "<u2"}
    placed = place_spans([hdf5()], Span("a", 2, 5), facts=away, data_key=data_key)
    assert isinstance(placed, Placement)
    assert (placed.parameters["slice"], placed.unverified, placed.settled) == ("2:7", away.reason, True)
    placed = place_spans([hdf5("a"), hdf5("b")], Span("a", 0, 4), Span("b", 0, 4), facts=away, data_key=data_key)
    assert isinstance(placed, Refusal)
    assert placed.reason.startswith("it lies in 2 files of unknown length")


def test_slice_of_a_stream_resource():
    """A slice that the documents ask for is kept, if it leaves the frames alone."""
    facts = FileFacts((10, 3, 7), "<f8")
    data_key = {**IMAGE, "shape": [7]}
    asked = hdf5(parameters={"slice": ":, 1, :"}, data_key="x", frames_per_index=None)
    placed = place_spans([asked], Span("a", 0, 5), facts=facts, data_key=data_key)
    assert isinstance(placed, Placement)
    assert (placed.parameters["slice"], placed.event.shape) == ("0:5,1,:", (7,))
    for text, words in (("0:5,1,:", "expected ':' for the first axis"), (":,9,:", "slice ':,9,:' of a dataset")):
        placed = place_spans([hdf5(parameters={"slice": text}, data_key="x")], Span("a", 0, 5), facts=facts)
        assert isinstance(placed, Refusal)
        assert words in placed.reason


def test_series():
    """A series is a list of files in the order of the rows, whatever it is."""
    facts = FileFacts((4, 6), "<u2")
    spans = [Span("a", 4, 2, -3), Span("b", 0, 1)]
    sources = [tiff("a", frames_per_index=2), tiff("b", frames_per_index=2)]
    placed = place_spans(sources, *spans, facts=facts, data_key={**IMAGE, "shape": [2, 4, 6]})
    assert isinstance(placed, Placement)
    assert placed.files == tuple(f"/data/{name}.tiff" for name in ("a_8", "a_9", "a_2", "a_3", "b_0", "b_1"))
    assert placed.properties == {"chunks": [[6], [4], [6]]}
    assert placed.event.shape == (2, 4, 6)


def test_frame_of_several_events_in_a_series():
    """A file that comes again comes under another name of its own."""
    placed = place_spans([tiff()], Span("a", 3, 3, 0), facts=FileFacts((4, 6), "<u2"))
    assert isinstance(placed, Placement)
    assert placed.files == ("/data/a_3.tiff", "/data/./a_3.tiff", "/data/././a_3.tiff")


def test_series_for_our_adapter():
    """A series is its directories and the numbers of its files, each directory once for each template."""
    facts = FileFacts((4, 6), "<u2")
    sources = [
        tiff("a", frames_per_index=2),
        tiff("b", frames_per_index=2),
        Source("c", TIFF_SERIES, pure_path("/50%", "posix"), "/50%%/c_%d.tiff", frames_per_index=2),
    ]
    spans = [Span("a", 4, 2, -3), Span("b", 0, 1), Span("c", 0, 1), Span("a", 7, 1)]
    data_key = {**IMAGE, "shape": [2, 4, 6]}
    placed = place_spans(sources, *spans, facts=facts, data_key=data_key, ours=[FILE_SERIES])
    assert (placed.mimetype, placed.files) == (FILE_SERIES, ("/data", "/./data", "/50%"))
    assert addressed(placed) == [("/data", 8), ("/data", 2), ("/./data", 0), ("/50%", 0), ("/data", 14)]
    series = FileSeries.from_parameters(placed.parameters)
    assert (series.templates, series.mimetype) == (("a_%d.tiff", "b_%d.tiff", "c_%d.tiff"), TIFF_SERIES)
    assert (series.frames_per_event, placed.event.shape, placed.count) == (2, (2, 4, 6), 5)


def test_series_grows():
    """Files that were found good are not looked at again, and no directory comes twice."""
    looked = []

    def look(_source, files):
        looked.extend(file.name for file in files)
        return [FileFacts((4, 6), "<u2")] * len(files)

    source, before = tiff(), None
    for count in (2, 5):
        rows = Rows((Span("a", 0, count),), count, count)
        before = place(rows, {"a": source}, IMAGE, look, before, [FILE_SERIES])
    assert looked == ["a_0.tiff", "a_0.tiff", "a_1.tiff", "a_0.tiff", "a_2.tiff", "a_3.tiff", "a_4.tiff"]
    assert (before.files, before.parameters["rows"]) == (("/data",), [[0, 0, 5, 1]])


def test_numbered_directories():
    """Where each file has a directory of its own, a series is a list for our server, too."""
    source = Source("a", TIFF_SERIES, pure_path("/data", "posix"), "/data/%d/image.tiff")
    placed = place_spans([source], Span("a", 0, 2), facts=FileFacts((4, 6), "<u2"), ours=[FILE_SERIES])
    assert (placed.mimetype, placed.files) == (TIFF_SERIES, ("/data/0/image.tiff", "/data/1/image.tiff"))


@pytest.mark.parametrize("ours", [(), (FILE_SERIES,)])
@pytest.mark.parametrize("bad", [Unseen("missing", "gone"), FileFacts((5, 6), "<u2"), FileFacts((4, 6), "|u1")])
def test_series_with_a_bad_file(bad, ours):
    """Rows end before the event whose file is not like the others."""
    good = FileFacts((4, 6), "<u2")
    facts = {f"a_{number}": bad if number == 5 else good for number in range(8)}
    placed = place_spans([tiff(frames_per_index=2)], Span("a", 0, 4), facts=facts, ours=ours)
    assert isinstance(placed, Placement)
    assert (placed.count, len(placed.files), placed.settled) == (2, 1 if ours else 4, False)
    assert placed.missing


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6)])
def test_series_of_hdf5_files(shape):
    """A file of an HDF5 series holds one frame, with a frame axis or without."""
    source = Source("a", HDF5, pure_path("/data", "posix"), "/data/a_%d.h5", "/entry/data/data", 1)
    placed = place_spans([source], Span("a", 0, 3), facts=FileFacts(shape, "<u2"))
    assert isinstance(placed, Placement)
    assert (placed.event.shape, placed.parameters) == ((1, 4, 6), {"dataset": "/entry/data/data"})
    placed = place_spans([source], Span("a", 0, 3), facts=FileFacts((2, 4, 6), "<u2"))
    assert placed == Refusal("a file of its series holds 2 frames; expected one")


def test_refusals():
    """Other reasons why an array is not registered."""
    facts = FileFacts((9, 4, 6), "<u2")
    cases = [
        ([hdf5("a"), tiff("b")], [Span("a", 0, 1), Span("b", 0, 1)], "of different kinds"),
        ([hdf5("a#1")], [Span("a#1", 0, 1)], "in its path, which Tiled cannot open"),
        ([Source("a", "text/csv", pure_path("/a", "posix"))], [Span("a", 0, 1)], "files of type 'text/csv'"),
    ]
    for sources, spans, words in cases:
        placed = place_spans(sources, *spans, facts=facts)
        assert isinstance(placed, Refusal)
        assert words in placed.reason
    placed = place_spans([], facts=facts, problem="datum 'x' of event 0 was never announced", expected=1)
    assert placed == Refusal("datum 'x' of event 0 was never announced")


def test_looking_at_files(tmp_path):
    """Files say their shape and dtype, and those that cannot be looked at say why."""
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["/entry/data/data"] = np.zeros((3, 4, 6), ">u2")
        file["/entry/data/names"] = ["a", "b"]
    (tmp_path / "bad.h5").write_text("no HDF5 at all")
    (tmp_path / "short.h5").write_bytes((tmp_path / "good.h5").read_bytes()[:1000])
    (tmp_path / "dir.h5").mkdir()
    names = ["good", "bad", "short", "dir", "none"]
    good, *bad = inspect(hdf5(), [tmp_path / f"{name}.h5" for name in names])
    assert good == FileFacts((3, 4, 6), ">u2")
    assert [(facts.kind, facts.reason.startswith(("file", str(tmp_path)))) for facts in bad] == [
        ("broken", True),
        ("broken", True),
        ("broken", True),
        ("missing", True),
    ]
    for dataset, words in (("/nowhere", "has no dataset /nowhere"), ("/entry/data/names", "holds no numbers")):
        (facts,) = inspect(hdf5(dataset=dataset), [tmp_path / "good.h5"])
        assert words in facts.reason
    (away,) = inspect(hdf5(), [tmp_path / "nowhere" / "a.h5"])
    assert away == Unseen("out of reach", f"directory {tmp_path / 'nowhere'} is not there")


@pytest.mark.parametrize("source", [hdf5(), tiff()], ids=["hdf5", "tiff"])
def test_whatever_looking_meets(tmp_path, source, monkeypatch):
    """Empty files, pipes, directories, garbage and whatever a library raises are reasons, never errors."""
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "garbage").write_bytes(b"II*\0" + bytes(range(200)))
    names = ["empty", "directory", "pipe", "garbage"]
    words = ["it is empty", "is not a file", "is not a file", "cannot be read"]
    for facts, said in zip(inspect(source, [tmp_path / name for name in names]), words, strict=True):
        assert isinstance(facts, Unseen)
        assert (facts.kind, said in facts.reason) == ("broken", True)

    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    for module in (h5py, tifffile):
        monkeypatch.setattr(module, "File" if module is h5py else "TiffFile", fail)
    (facts,) = inspect(source, [tmp_path / "garbage"])
    assert "ZeroDivisionError" in facts.reason


def test_looking_at_images(tmp_path):
    """Each file of a series is looked at, but for those of the size of one that was."""
    files = []
    for number, shape in enumerate([(4, 6), (4, 6), (5, 6), (4, 6, 3)]):
        files.append(tmp_path / f"{number}.tiff")
        tifffile.imwrite(files[-1], np.zeros(shape, "u2"))
    shapes = [facts.shape for facts in inspect(tiff(), files)]
    assert shapes == [(4, 6), (4, 6), (5, 6), (4, 6, 3)]
    np.save(tmp_path / "a_0.npy", np.zeros((2, 3), "f4"))
    (tmp_path / "a_1.npy").write_bytes(b"")
    source = Source("a", NPY_SERIES, pure_path(tmp_path, "posix"), f"{tmp_path}/a_%d.npy")
    good, bad = inspect(source, [tmp_path / "a_0.npy", tmp_path / "a_1.npy"])
    assert good == FileFacts((2, 3), "<f4")
    assert bad.kind == "broken"
    pixels = {"grey": (4, 6), "colour": (4, 6, 3)}
    for name, shape in pixels.items():
        Image.fromarray(np.zeros(shape, "u1")).save(tmp_path / f"{name}.jpeg")
    Image.fromarray(np.zeros((4, 6), "u1")).save(tmp_path / "none.jpeg", format="PNG")
    source = Source("a", JPEG_SERIES, pure_path(tmp_path, "posix"), f"{tmp_path}/a_%d.jpeg")
    *good, bad = inspect(source, [tmp_path / f"{name}.jpeg" for name in ("grey", "colour", "none")])
    assert good == [FileFacts(shape, "|u1") for shape in pixels.values()]
    assert bad.kind == "broken"


def test_looking_at_a_file_being_written(tmp_path):
    """A file that its writer holds a lock on is busy, not broken; one in SWMR mode can be read."""
    import subprocess
    import sys

    script = (
        "import h5py, numpy, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest')\n"
        "file.create_dataset('/entry/data/data', data=numpy.zeros((3, 4, 6)), maxshape=(None, 4, 6))\n"
        "file.flush()\n"
        "if sys.argv[2] == 'swmr': file.swmr_mode = True\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    for number, (mode, expected) in enumerate([("plain", "busy"), ("swmr", None)]):
        path = tmp_path / f"{number}.h5"
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            (facts,) = inspect(hdf5(), [path])
            writer.communicate(b"")
        assert getattr(facts, "kind", None) == expected


def test_order_of_files_is_that_of_rows():
    """Any order of two files' rows that is one slice is placed, every other refused: never anything between."""
    facts = FileFacts((2, 4, 6), "<u2")
    sources = [hdf5("a"), hdf5("b")]
    for count in (1, 2, 3):
        for rows in itertools.product([("a", 0), ("a", 1), ("b", 0), ("b", 1)], repeat=count):
            placed = place_spans(sources, *(Span(uid, index, 1) for uid, index in rows), facts=facts)
            if isinstance(placed, Placement):
                joined = [(path[6], index) for path in placed.files for index in (0, 1)]
                text = placed.parameters["slice"]
                index = slice(*(int(n) if n else None for n in text.split(":")))
                assert joined[index] == list(rows)

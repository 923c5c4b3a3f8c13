"""A run's frames at a glance, from Python and as a command."""

import itertools
import shutil

import event_model
import h5py
import numpy as np
import pytest
from command_line import run as command
from document_streams import Camera, Case, Step, build
from PIL import Image

from bluesky_filestore import CatalogWriter
from bluesky_filestore.errors import DocumentError
from bluesky_filestore.reading.contact_sheet import draw_sections
from bluesky_filestore.reading.preview import preview

TILE, GAP, LABEL, HEAD = 144, 8, 14, 80
DARK, BRIGHT = (0, 0, 4), (252, 255, 164)
numbers = itertools.count()


@pytest.fixture
def written(catalog, data_directory):
    """Writes a run to the catalog and gives its documents, its node and its directory."""

    def write(case):
        directory = data_directory / "preview" / str(next(numbers))
        built = build(case, directory)
        with CatalogWriter(catalog.client) as writer:
            for name, doc in built.documents:
                writer(name, doc)
        return built, catalog.client[built.uid], directory

    return write


def one_camera(kind="AD_HDF5", frames=1, events=5, cut=0):
    """A run of one detector."""
    camera = Camera("cam_image", kind, frames, "<u2")
    return Case((camera,), {"primary": (0,)}, ((Step("primary"),) * events,), frames_cut=cut)


def tile(picture, number, height):
    """The pixels of a tile of the sheet."""
    row, column = divmod(number, 8)
    left, top = GAP + column * (TILE + GAP), HEAD + GAP + row * (height + LABEL + GAP)
    return np.asarray(picture)[top : top + height, left : left + TILE]


@pytest.mark.parametrize("frames", [1, 2])
def test_frames_are_shown(written, frames):
    """Every frame is drawn, from the darkest to the brightest, whether from the catalog or from documents."""
    built, node, _ = written(one_camera(frames=frames))
    for source in (node, built.documents):
        drawn = preview(source)
        assert (drawn.shown, drawn.count, dict(drawn.missing), drawn.others) == (5 * frames, 5 * frames, {}, ())
        assert drawn.array.source == "files"
        assert drawn.picture.width == min(8, 5 * frames) * (TILE + GAP) + GAP
        all_frames = np.concatenate(built.frames["primary", "cam_image"])
        for extreme, colour in ((all_frames.argmin(), DARK), (all_frames.argmax(), BRIGHT)):
            # The frames' own pixels, each a square of 24, with one contrast for all.
            number, row, column = np.unravel_index(extreme, all_frames.shape)
            shown = tile(drawn.picture, number, 96)
            assert tuple(shown[row * 24 + 12, column * 24 + 12]) == colour


def test_many_frames(written):
    """Of many, some are chosen evenly, with the first and the last."""
    _, node, _ = written(one_camera("AD_TIFF", events=6))
    drawn = preview(node, frames=3)
    assert (drawn.shown, drawn.count) == (3, 6)
    with pytest.raises(DocumentError, match=r"0 frames make no picture"):
        preview(node, frames=0)


def test_missing_frames(written):
    """Frames that are gone, and those that never were, have a tile that says so, and are listed with the reason."""
    built, node, directory = written(one_camera("AD_TIFF", events=6, cut=1))
    (directory / "cam_image_0_000002.tiff").unlink()
    drawn = preview(node)
    assert (drawn.shown, drawn.count, drawn.array.source) == (6, 6, "files")
    assert list(drawn.missing) == ["event 2", "event 5"]
    assert "cam_image_0_000002.tiff is not there" in drawn.missing["event 2"]
    assert "cam_image_0_000005.tiff" in drawn.missing["event 5"]
    empty = tile(drawn.picture, 2, 96)
    np.testing.assert_array_equal(empty, tile(drawn.picture, 5, 96))
    from_documents = preview(built.documents)
    assert (from_documents.count, list(from_documents.missing)) == (6, ["event 2", "event 3", "event 4", "event 5"])


def test_through_the_catalog(written):
    """Files out of reach are seen through the catalog; those that are gone there too are missing."""
    _, node, directory = written(one_camera("AD_HDF5_SINGLE"))
    drawn = preview(node, root_map={str(directory): "/nowhere"})
    assert (drawn.array.source, drawn.missing) == ("catalog", {})
    shutil.rmtree(directory)
    gone = preview(node)
    assert list(gone.missing) == [f"event {number}" for number in range(5)]
    assert "is not there" in gone.missing["event 0"]


def test_which_array(written):
    """One array is shown, that of the primary stream first; the others are named."""
    cameras = (Camera("a_image", "AD_HDF5", 1, "<u2"), Camera("b_image", "AD_TIFF", 1, "|u1"))
    streams = {"dark": (0,), "primary": (0, 1)}
    built, node, _ = written(Case(cameras, streams, ((Step("dark"), Step("primary")),)))
    for source in (node, built.documents):
        drawn = preview(source)
        assert drawn.array.name.startswith("primary/a_image")
        assert sorted(drawn.others) == ["dark/a_image", "primary/b_image"]
        assert preview(source, data_key="b_image").array.dtype == "u1"
        assert preview(source, stream="dark").array.name.startswith("dark/a_image")
        with pytest.raises(DocumentError, match=r"no frames of stream 'dark' and data key 'b_image' in files"):
            preview(source, stream="dark", data_key="b_image")
        with pytest.raises(DocumentError, match=r"no frames of data key 'c_image' in files"):
            preview(source, data_key="c_image")


def test_what_was_moved_is_under_the_frames(catalog, tmp_path, monkeypatch):
    """Title and captions say plan, scan, run and where the motor was, from the catalog as from the documents."""
    documents = colour_run(tmp_path / "moved", np.arange(48, dtype="u1").reshape(2, 4, 6), [1, 4, 6])
    uid = documents[0][1]["uid"]
    for name, doc in documents:
        if name == "start":
            doc |= {"plan_name": "scan", "scan_id": 12, "hints": {"dimensions": [[["motor"], "primary"]]}}
        elif name == "descriptor":
            doc["data_keys"]["motor"] = {"source": "s", "dtype": "number", "shape": [], "units": "mm"}
        elif name == "event":
            doc["data"]["motor"], doc["timestamps"]["motor"] = doc["seq_num"] / 4, 5.0
    with CatalogWriter(catalog.client, spool=None) as writer:
        for name, doc in documents:
            writer(name, doc)
    drawn = []
    module = "bluesky_filestore.reading.preview.draw_sections"
    monkeypatch.setattr(module, lambda *given: drawn.append(given) or draw_sections(*given))
    for source in (catalog.client[uid], documents):
        preview(source)
    for title, (section,), _ in drawn:
        assert title == f"scan, scan 12, run {uid[:8]}"
        assert [caption for caption, _ in section.frames] == ["event 0\nmotor 0.25 mm", "event 1\nmotor 0.5 mm"]


def colour_run(directory, frames, shape):
    """The documents of a run with a dataset of some shape."""
    directory.mkdir(parents=True)
    with h5py.File(directory / "a.h5", "w") as file:
        file["d"] = frames
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": shape, "dtype_numpy": frames.dtype.str, "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    files = run.compose_resource(
        spec="HDF5", root="/", resource_path=f"{directory}/a.h5", resource_kwargs={"dataset": "d", "frame_per_point": 1}
    )
    documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc), ("resource", files.resource_doc)]
    for number in range(len(frames)):
        datum = files.compose_datum({"point_number": number})
        data = {"image": datum["datum_id"]}
        event = stream.compose_event(data=data, timestamps={"image": 0.0}, filled={"image": False})
        documents += [("datum", datum), ("event", event)]
    return documents


def test_colours_and_what_is_no_image(tmp_path):
    """Colour frames are shown in colour; lines of numbers are refused."""
    colours = np.zeros((2, 4, 6, 3), "u1")
    colours[..., 0] = np.arange(24).reshape(4, 6)
    drawn = preview(colour_run(tmp_path / "colours", colours, [1, 4, 6, 3]))
    red, green, _ = np.moveaxis(tile(drawn.picture, 0, 96), -1, 0)
    assert red.max() == 255
    assert green.max() == 0
    with pytest.raises(DocumentError, match=r"primary/image .* expected images"):
        preview(colour_run(tmp_path / "lines", np.zeros((2, 7)), [7]))
    with pytest.raises(DocumentError, match=r"the run has no frames in files; .*: none"):
        preview([])


class TestCommand:
    """Of ``bluesky-filestore preview``."""

    def options(self, catalog):
        """Those that say which catalog."""
        return ("--uri", catalog.uri, "--api-key", catalog.api_key)

    def test_picture(self, catalog, written, tmp_path):
        """The command writes the picture and says which file, what it shows and how it was read."""
        built, _, directory = written(one_camera(events=3))
        path = tmp_path / "sheet.png"
        shown = command("preview", built.uid[:13], *self.options(catalog), "--output", path)
        assert shown.returncode == 0, shown.stderr
        assert "3 of 3 frames of primary/cam_image, read straight from the files" in shown.stdout
        assert str(path) in shown.stdout
        with Image.open(path) as picture:
            assert picture.size == (3 * (TILE + GAP) + GAP, HEAD + 96 + LABEL + GAP + GAP)
        moved = ("--root-map", f"{directory}=/nowhere")
        through = command("preview", built.uid, *self.options(catalog), "--output", path, *moved)
        assert "read through the catalog" in through.stdout

    def test_missing(self, catalog, written, tmp_path):
        """Missing frames are listed with the reason, and in the exit code."""
        built, _, directory = written(one_camera("AD_TIFF"))
        (directory / "cam_image_0_000001.tiff").unlink()
        shown = command("preview", built.uid, *self.options(catalog), "--output", tmp_path / "a.png")
        assert shown.returncode == 1
        assert "missing: event 1: frame 1 (counted from 0) cannot be read: file" in shown.stdout
        assert (tmp_path / "a.png").exists()

    def test_no_such_run(self, catalog, tmp_path):
        """A run that is not there is a sentence."""
        shown = command("preview", "nobodys", *self.options(catalog), "--output", tmp_path / "a.png")
        assert shown.returncode == 1
        assert "no run in" in shown.stderr
        assert "Traceback" not in shown.stderr
        nothing = command("preview", "", *self.options(catalog), "--output", tmp_path / "a.png")
        assert "no run in" in nothing.stderr
        wrong = command("preview", "nobodys", *self.options(catalog), "--root-map", "/data")
        assert "does not say what is where" in wrong.stderr

    def test_options_that_do_not_go_together(self, catalog, written, tmp_path):
        """Two catalogs, and a picture of no known format, are refused."""
        both = command("preview", "a", "--uri", catalog.uri, "--profile", "b")
        assert "not both" in both.stderr
        built, _, _ = written(one_camera(events=1))
        odd = command("preview", built.uid, *self.options(catalog), "--output", tmp_path / "a.odd")
        assert odd.returncode == 2
        assert "sheet.png" in odd.stderr

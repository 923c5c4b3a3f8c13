"""What no stock adapter can address is shown to a stock server by a file with a virtual dataset."""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import run
from small_runs import SHAPE, ordered_documents

from bluesky_filestore import CatalogWriter, open_array, relocate, verify_run
from bluesky_filestore.delivery.views import views_in
from bluesky_filestore.errors import OptionError

DATASET = "/entry/data/data"
numbers = itertools.count(1)
# By file and number there: dark and primary frames in turns but for one, back to a checkpoint, staged again.
ROWS = {
    "dark and primary": [("a", number) for number in (1, 2, 4, 5, 7, 8)],
    "rewound": [("a", number) for number in (0, 1, 2, 1, 2, 3)],
    "staged again": [("a", 0), ("a", 1), ("b", 0), ("b", 2), ("c", 8)],
}


def write(directory, kind, rows):
    """The documents of a run with these rows, its uid, and its frames in their order."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(7)
    frames = {name: random.integers(0, 60000, (9, *SHAPE), "u2") for name in "abc"}
    for name, values in frames.items():
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file.create_dataset(DATASET, data=values, chunks=(1, *SHAPE), compression="gzip")
    spec = "AD_HDF5_SWMR" if kind == "rewound" else "AD_HDF5"
    documents = ordered_documents([(directory / f"{name}.h5", number) for name, number in rows], {}, spec, kind=kind)
    return documents, documents[0][1]["uid"], np.stack([frames[name][number] for name, number in rows])


def deliver(documents, client, **options):
    """Have a writer write them."""
    with CatalogWriter(client, **options) as writer:
        for name, doc in documents:
            writer(name, doc)
    assert writer.status().problems == ()


@pytest.mark.parametrize("kind", ROWS)
def test_a_stock_server_reads_it(stock, kind):
    """Each row is its event's, through the server and from the files; other writers' words for it do not change."""
    client, data = stock
    documents, uid, frames = write(data / str(next(numbers)), kind, ROWS[kind])
    deliver(documents, client, views=data / "views")
    node = client[uid]["primary"].base["image"]
    (source,) = node.data_sources()
    assert source.mimetype == "application/x-hdf5"
    assert [Path(asset.data_uri).name for asset in source.assets] == [f"{uid}_primary_image.h5"]
    np.testing.assert_array_equal(node.read()[:, 0], frames)
    np.testing.assert_array_equal(node[-2][0], frames[-2])
    array = open_array(node)
    assert array.source == "files"
    np.testing.assert_array_equal(array[:, 0], frames)
    assert "refused" not in client[uid].metadata["filestore"]
    assert verify_run(client, uid).exit_code == 0, str(verify_run(client, uid))


def test_a_view_of_other_frames(stock):
    """A view that shows a frame in another's place is found, between the first and the last one, too."""
    client, data = stock
    directory = data / str(next(numbers))
    documents, uid, frames = write(directory, "rewound", ROWS["rewound"])
    deliver(documents, client, views=data / "views")
    assert verify_run(client, uid).exit_code == 0
    layout, source = (
        h5py.VirtualLayout(frames.shape, "u2"),
        h5py.VirtualSource(directory / "a.h5", DATASET, (9, *SHAPE)),
    )
    for row, number in enumerate((0, 1, 3, 1, 2, 3)):
        layout[row] = source[number]
    with h5py.File(data / "views" / f"{uid}_primary_image.h5", "w") as file:
        file.create_virtual_dataset(DATASET, layout)
    report = verify_run(client, uid)
    assert report.exit_code == 1
    assert "other frames for event 2 than the documents tell" in str(report)


def test_a_view_of_files_that_are_gone(stock):
    """What a view shows went elsewhere: that is a finding, with the file, and the other runs are looked at."""
    client, data = stock
    directory = data / str(next(numbers))
    documents, uid, _ = write(directory, "staged again", ROWS["staged again"])
    deliver(documents, client, views=data / "views")
    # It is known in this process from then on.
    assert verify_run(client, uid).exit_code == 0
    moved = directory.with_name(f"{directory.name} moved")
    directory.rename(moved)
    report = verify_run(client, uid)
    assert report.exit_code == 1
    assert str(directory / "a.h5") in str(report).replace("views/../", "")


def test_files_that_went_elsewhere_alone(stock):
    """A view leads to its files by their place beside it: where only these are moved, relocate is refused."""
    client, data = stock
    old = data / str(next(numbers))
    documents, uid, frames = write(old, "rewound", ROWS["rewound"])
    views = data / f"views of {old.name}"
    deliver(documents, client, views=views)
    new = old.rename(data / f"{old.name} moved")
    report = relocate(client, {str(old): str(new)}, [uid])
    assert "shows a stock server frames of" in report.refused[uid]
    old.parent.joinpath("together").mkdir()
    new.rename(data / "together" / old.name)
    views.rename(data / "together" / views.name)
    report = relocate(client, {str(path): str(data / "together" / path.name) for path in (old, views)}, [uid])
    assert report.ok, str(report)
    np.testing.assert_array_equal(client[uid]["primary"].base["image"].read()[:, 0], frames)


def test_made_again(stock, tmp_path):
    """Whoever was killed while it made one begins again: the same file, in the place of whatever is there."""
    client, data = stock
    documents, uid, frames = write(data / str(next(numbers)), "rewound", ROWS["rewound"])
    views = data / "more views"
    deliver(documents, client, spool=tmp_path / "spool", views=views)
    (view,) = views.iterdir()
    before = view.read_bytes()
    view.write_bytes(before[:1000])
    resumed = run("resume", tmp_path / "spool", "--run", uid, "--views", views, "--api-key", client.context.api_key)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [each.name for each in views.iterdir()] == [view.name]
    assert view.read_bytes() == before
    np.testing.assert_array_equal(client[uid]["primary"].base["image"].read()[:, 0], frames)


def test_frames_that_are_lost(stock):
    """A frame that was never written is said to be none, and a stock server does not give zeros for it."""
    client, data = stock
    documents, uid, _ = write(data / str(next(numbers)), "dark and primary", ROWS["dark and primary"])
    path = Path(documents[2][1]["root"]) / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset(DATASET, (9, *SHAPE), "u2", chunks=(1, *SHAPE))
        for number in (1, 2, 5, 7, 8):
            made[number] = number
    deliver(documents, client, views=data / "views")
    assert client[uid]["primary"].base["image"].read()[:, 0, 0, 0].tolist() == [1, 2, 65535, 5, 7, 8]
    words = client[uid].metadata["filestore"]["unverified"]["primary"]["image"]
    assert words.startswith("there are no frames for events 2, and a stock server gives 65535 for them: ")


def test_no_view(stock, catalog, data_directory, tmp_path):
    """Where none can be made the reason is said, and where the server has our adapters none is."""
    client, data = stock
    documents, uid, _ = write(data / str(next(numbers)), "rewound", ROWS["rewound"])
    (tmp_path / "file").touch()
    deliver(documents, client, views=tmp_path / "file", settle=0.1)
    assert "no view of it can be made" in client[uid].metadata["filestore"]["refused"]["primary"]["image"]
    documents, uid, frames = write(data_directory / "views" / str(next(numbers)), "rewound", ROWS["rewound"])
    deliver(documents, catalog.client, views=tmp_path / "views")
    np.testing.assert_array_equal(catalog.client[uid]["primary"].base["image"].read()[:, 0], frames)
    assert not (tmp_path / "views").exists()
    with pytest.raises(OptionError, match="'#\\?;'"):
        views_in("/data/a#b")
    with pytest.raises(OptionError, match="names no directory"):
        views_in("")


def test_names(tmp_path):
    """No name leads out of the directory, and no two of them to one file."""
    from bluesky_filestore.delivery.views import _safe

    odd = ["../../etc", "a/b", "a:b", "a b", "a-b", "x" * 300, "y" * 300, "\udcfc", ""]
    safe = [_safe(name) for name in odd]
    assert len(set(safe)) == len(odd)
    assert all("/" not in name and "." not in name and len(name) < 80 for name in safe)

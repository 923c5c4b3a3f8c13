"""Each kind of damage to each kind of run, as the table of the how-to says what is found of it."""

import itertools
import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from document_streams import Camera, Case, Step, build

from bluesky_filestore import CatalogWriter, verify_run
from bluesky_filestore.catalogs.tiled.values import read_table

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "did-i-get-my-data.md"
DATASET = "/entry/data/data"
NOT_FOUND = dict.fromkeys(["checksums", "harmless"], "not found")
numbers = itertools.count()
P, D = Step("primary"), Step("dark")


def one(kind, *stagings, frames=2):
    """A case of one camera."""
    return Case((Camera("cam_image", kind, frames, "<u2"),), {"primary": (0,), "dark": (0,)}, stagings)


RUNS = {
    "HDF5": one("AD_HDF5", (P,) * 5),
    "series": one("AD_TIFF", (P,) * 5),
    "stream documents": one("stream HDF5", (P,) * 5, frames=1),
    "several streams": one("AD_HDF5", (P, D, P, P, D)),
    "rewound": one("AD_HDF5", (P, P, Step("primary", "thrown away"), P, Step("primary", "rewind"), P)),
    "restaged": one("AD_HDF5", (P,) * 3, (P,) * 3),
    "flown": one("stream HDF5", (P,) * 5, frames=1),
}


def table():
    """What the page says is found, by damage and kind of run."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line.count("|") > len(RUNS)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][1:] == list(RUNS)
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]}


class Written:
    """A run in the catalog, whose parts can be damaged and made whole again."""

    def __init__(self, catalog, parent, name):
        self.client, self.directory = catalog.client, parent / "verify matrix" / str(next(numbers))
        built = build(RUNS[name], self.directory)
        counts = Counter({stream: max(seq_num for seq_num, _ in rows) for stream, rows in built.rows.items()})
        self.uid, self.documents = built.uid, []
        for kind, doc in built.documents:
            if kind != "event" or name != "flown":
                self.documents.append((kind, {**doc, "num_events": dict(counts)} if kind == "stop" else doc))
        with CatalogWriter(self.client, spool=None) as writer:
            for kind, doc in self.documents:
                writer(kind, doc)

    def verify(self, **options):
        """The report on the run in the catalog."""
        return verify_run(self.client, self.uid, **options)

    @property
    def paths(self):
        """The files."""
        return sorted(path for path in self.directory.rglob("*") if path.is_file())

    @contextmanager
    def copied(self):
        """A copy of the files is in their place."""
        aside = self.directory.with_name("aside")
        self.directory.rename(aside)
        shutil.copytree(aside, self.directory)
        yield
        shutil.rmtree(self.directory, ignore_errors=True)
        aside.rename(self.directory)

    @contextmanager
    def with_rows(self, order_of):
        """The rows of the event table are others."""
        run = self.client[self.uid]
        stream = getattr(run["primary"], "base", run["primary"])
        ((key, node),) = [(key, child) for key, child in stream.items() if child.structure_family == "table"]
        rows = read_table(node)
        for some in (rows.iloc[order_of(list(range(len(rows))))], rows):
            stream.delete_contents([key], external_only=False)
            stream.write_table(some.reset_index(drop=True), key=key)
            if some is not rows:
                yield


def change(path, function, dtype=None):
    """Replace what a file holds."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            values = function(file[DATASET][...])
            del file[DATASET]
            file.create_dataset(DATASET, data=values, dtype=dtype, chunks=(1, *values.shape[1:]))
    else:
        tifffile.imwrite(path, function(tifffile.imread(path)[np.newaxis])[0].astype(dtype or "<u2"))


def in_place(path, function, frame):
    """Change one frame where it lies; time and size of the file stay."""
    before = path.stat()
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file[DATASET][frame] = function(file[DATASET][frame])
    else:
        change(path, lambda values: function(values[0])[np.newaxis])
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def between(run):
    """A file and a frame in it that are not the first or the last that is read."""
    path = run.paths[len(run.paths) // 2 if len(run.paths) > 2 else 0]
    return path, 1


def exchange(run):
    """Two files, or the first and the last frame of the only one."""
    if len(run.paths) > 1:
        first, last = run.paths[0], run.paths[-1]
        first.rename(run.directory / "third")
        last.rename(first)
        (run.directory / "third").rename(last)
    else:
        change(run.paths[0], lambda values: values[::-1])


def lose_chunk(run):
    """A frame in the middle was never written, although there is a place for it; of a series, its file."""
    path, frame = between(run)
    if path.suffix != ".h5":
        path.write_bytes(b"")
        return
    with h5py.File(path, "r+") as file:
        values = file[DATASET][...]
        del file[DATASET]
        made = file.create_dataset(DATASET, values.shape, values.dtype, chunks=(1, *values.shape[1:]))
        for number in range(len(values)):
            if number != frame:
                made[number] = values[number]


def add_frames(run):
    """Two frames more than documents and catalog know; of a series two files."""
    path = run.paths[-1]
    if path.suffix == ".h5":
        change(path, lambda values: np.concatenate([values, values[:2] + 1]))
    else:
        for number in (90, 91):
            shutil.copy(path, path.with_name(re.sub(r"\d+\.tiff", f"{number:06d}.tiff", path.name)))


FILES = {
    "missing file": lambda run: run.paths[-1].unlink(),
    "short file": lambda run: os.truncate(run.paths[-1], run.paths[-1].stat().st_size // 2),
    "unreadable": lambda run: run.paths[-1].write_bytes(bytes(run.paths[-1].stat().st_size)),
    "frame never written": lose_chunk,
    "wrong dtype": lambda run: change(run.paths[-1], lambda values: values.astype("<f4"), "<f4"),
    "extra frames": add_frames,
    "fewer frames": lambda run: change(run.paths[-1], lambda values: values[:1]),
    "files of another run": lambda run: [change(path, lambda values: values[::-1] + 1) for path in run.paths],
    "files or frames exchanged": exchange,
    "flipped byte": lambda run: in_place(between(run)[0], lambda values: values ^ 4, between(run)[1]),
    "frame of zeros": lambda run: in_place(between(run)[0], np.zeros_like, between(run)[1]),
    "moved root": lambda run: shutil.rmtree(run.directory),
}
ROWS = {
    "duplicate row": lambda rows: [*rows[:2], *rows[1:]],
    "missing row": lambda rows: [rows[0], *rows[2:]],
    "shifted rows": lambda rows: [rows[1], rows[0], *rows[2:]],
}


def judged(report, good):
    """The word of the table for a report; what is not found by it is so for the reason that the table gives."""
    if report.exit_code == 0:
        told = {finding.words for finding in report.findings} - {finding.words for finding in good.findings}
        return "told" if any("belong to no event" in words for words in told) else "not found"
    lines = report.problems if report.exit_code == 1 else [each for each in report.findings if each.ok is None]
    assert all(finding.advice for finding in lines), str(report)
    assert any(finding.file or finding.events or finding.stream or finding.check == "end" for finding in lines)
    return "found" if report.exit_code == 1 else "asked"


@pytest.mark.parametrize("name", RUNS)
def test_damage(catalog, data_directory, name):
    """What the table says, of one run in turn; it is good before and behind each damage, and nothing is changed."""
    run = Written(catalog, data_directory, name)
    good = run.verify()
    assert good.exit_code == 0, str(good)
    found = {}
    for damage, do in FILES.items():
        if table()[damage][name] == "-":
            continue
        with run.copied():
            do(run)
            found[damage] = run.verify()
    for damage, order_of in ROWS.items():
        if name != "flown":
            with run.with_rows(order_of):
                found[damage] = run.verify()
    found["missing stop"] = verify_run([pair for pair in run.documents if pair[0] != "stop"])
    again = run.verify()
    assert again.exit_code == 0, str(again)
    expected = {damage: NOT_FOUND.get(cells[name], cells[name]) for damage, cells in table().items()}
    words = {damage: judged(report, good) for damage, report in found.items()}
    words |= dict.fromkeys(set(expected) - set(words), "-")
    wrong = {damage: (words[damage], word) for damage, word in expected.items() if words[damage] != word}
    assert not wrong, "\n".join(f"{damage}: {wrong[damage]}\n{found.get(damage)}" for damage in wrong)


def test_moved(catalog, data_directory):
    """A run whose directory was moved is whole again for who says where it is."""
    run = Written(catalog, data_directory, "HDF5")
    moved = run.directory.with_name("moved")
    run.directory.rename(moved)
    assert run.verify().exit_code == 2
    # The server has no way to them.
    report = verify_run(run.documents, root_map={str(run.directory): str(moved)})
    assert report.exit_code == 0, str(report)

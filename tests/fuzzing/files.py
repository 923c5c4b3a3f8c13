"""Data files of each kind, read straight and as the server reads them."""

import contextlib
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import h5py
import hdf5plugin
import numpy as np
import tifffile
from fastapi import HTTPException
from PIL import Image
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.array_in_files import ArrayInFiles
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.files.registered import Registered
from bluesky_filestore.model.addressing import FILE_SERIES, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.serving import reader_process
from bluesky_filestore.serving.adapters import adapters
from bluesky_filestore.serving.confined import ConfinedThreads

from .mutations import Original, changed, checksummed

FRAMES = (np.arange(4 * 24, dtype="<u2").reshape(4, 4, 6) * 683) | 1
DATASET = "/entry/data/data"


IN_HDF5 = frozenset({"hang", "crash"})
"""What a server has another process for; in a process of one's own HDF5 does it there."""


class HTTPStatusError(FileStoreError):
    """The server's answer, which says whose fault it is."""


@dataclass
class Input:
    """Files of which some were changed."""

    files: dict[str, bytes]
    """The bytes of each by its name."""
    untouched: list[int]
    """The frames of which no byte was changed."""


@dataclass
class FileTarget:
    """Files of one kind, read in one way.

    Parameters
    ----------
    name
        Of the target.
    make
        Makes the good files in a directory; the names of those that are changed.
    mimetype, parameters
        As they are registered.
    read
        Reads what is registered, whole.
    """

    name: str
    make: Callable[[Path], dict[str, Original]]
    mimetype: str
    parameters: Mapping[str, Any]
    read: "Way"
    dtype: str = "<u2"
    """Of what is registered."""
    is_exact: bool = True
    """Whether the good files hold just `FRAMES`."""
    bears: frozenset[str] = frozenset()
    """What is HDF5's own."""
    originals: dict[str, Original] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)
    good: np.ndarray = field(default_factory=lambda: FRAMES)

    def prepare(self, directory: Path) -> None:
        there = directory / "good"
        there.mkdir()
        self.originals = self.make(there)
        self.others = {path.name: path.read_bytes() for path in there.iterdir() if path.name not in self.originals}
        self.good = self._read(there, sorted(self.originals), straight)
        if self.is_exact:
            np.testing.assert_array_equal(self.good, FRAMES)
        shared_files().close()

    def case(self, rng: random.Random, number: int) -> Input:
        data = {name: original.data for name, original in self.originals.items()}
        untouched = set(range(len(self.good)))
        for name in rng.sample(sorted(data), rng.choice((1, 1, min(2, len(data))))):
            original = self.originals[name]
            new = changed(rng, original, data[name][:2] == b"MM")
            data[name] = bytes(new.data)
            untouched -= {number for number, ranges in enumerate(original.frames) if new.is_touched(ranges)}
        return Input(data, sorted(untouched))

    def attempt(self, case: Input, directory: Path) -> str | None:
        for name, data in {**self.others, **case.files}.items():
            (directory / name).write_bytes(data)
        try:
            values = self._read(directory, sorted(case.files), self.read)
        finally:
            shared_files().close()
        other = [number for number in case.untouched if values[number].tobytes() != self.good[number].tobytes()]
        return f"frames: {other} differ" if other else None

    def paths(self, directory: Path, names: Sequence[str]) -> list[str]:
        """What is registered as the assets."""
        if self.mimetype == FILE_SERIES:
            return [str(directory)]
        return [str(directory / name) for name in (names[:1] if self.mimetype in (HDF5, HDF5_ROWS) else names)]

    def _read(self, directory: Path, names: Sequence[str], read: "Way") -> np.ndarray:
        paths = self.paths(directory, names)
        registered = Registered(self.mimetype, self.parameters, {}, paths, FRAMES.shape, np.dtype(self.dtype))
        # Where the pixels of HDF5 files are in others, these are looked for from the working directory.
        with contextlib.chdir(directory):
            return read(registered, directory)


Way: TypeAlias = Callable[[Registered, Path], np.ndarray]


def straight(registered: Registered, directory: Path) -> np.ndarray:
    """As `open_array` reads it."""
    return ArrayInFiles(registered).read()


def served(registered: Registered, directory: Path) -> np.ndarray:
    """As the server does, in a thread that is confined, after a process that opens HDF5 files first."""
    return _confined(directory.parent, os.getpid()).run(_served, registered, directory)


@cache
def _confined(root: Path, _: int) -> ConfinedThreads:
    """The threads of this process: a copy of it has none of them."""
    # What a server waits for is no hang.
    reader_process.SECONDS = 1  # type: ignore[misc]
    return ConfinedThreads(Roots.of([root]))


def _served(registered: Registered, directory: Path) -> np.ndarray:

    structure = ArrayStructure(
        shape=registered.shape,
        chunks=tuple((size,) for size in registered.shape),
        data_type=BuiltinDtype.from_numpy_dtype(registered.dtype),
    )
    assets = [
        Asset(data_uri=f"file://localhost{path}", is_directory=False, parameter="data_uris", num=number)
        for number, path in enumerate(registered.paths)
    ]
    source = DataSource(
        structure_family="array",
        structure=structure,
        mimetype=registered.mimetype,
        parameters=dict(registered.parameters),
        management=Management.external,
        assets=assets,
    )
    node = SimpleNamespace(metadata_={}, specs=[])
    try:
        maker = adapters(Roots.of([directory]))[registered.mimetype]
        adapter = maker.from_catalog(source, node, **registered.parameters)
        adapter.metadata()
        return adapter.read()
    except HTTPException as error:
        if not 400 <= error.status_code < 500 or not isinstance(
            error.__cause__ or error, FileStoreError | HTTPException
        ):
            raise
        raise HTTPStatusError(str(error.detail)) from error


def _places(path: Path, dataset: str = DATASET) -> list[list[tuple[int, int]]]:
    """Where each frame's bytes are."""
    with h5py.File(path) as file:
        found = file[dataset]
        if found.chunks is None:
            size = FRAMES[0].nbytes
            begin = found.id.get_offset()
            return [[(begin + number * size, begin + (number + 1) * size)] for number in range(len(FRAMES))]
        chunks = [found.id.get_chunk_info(number) for number in range(found.id.get_num_chunks())]
        return [
            [
                (chunk.byte_offset, chunk.byte_offset + chunk.size)
                for chunk in chunks
                if chunk.chunk_offset[0] <= number < chunk.chunk_offset[0] + found.chunks[0]
            ]
            for number in range(len(FRAMES))
        ]


def _hdf5(**options: Any) -> Callable[[Path], dict[str, Original]]:
    """Makes a file with a dataset that was made so."""
    is_marked, libver = options.pop("is_marked", False), options.pop("libver", None)

    def make(directory: Path) -> dict[str, Original]:
        path = directory / "a.h5"
        with h5py.File(path, "w", libver=libver) as file:
            file.create_dataset(DATASET, data=FRAMES, **options)
        places = _places(path)
        if is_marked:
            _mark(path)
        return {path.name: _original(path, places)}

    return make


def _mark(path: Path) -> None:
    """Leave a file as a writer in SWMR mode does that was killed."""
    from .mutations import lookup3

    data = bytearray(path.read_bytes())
    data[11] = 5
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data)


def _original(path: Path, frames: list[list[tuple[int, int]]]) -> Original:
    data = path.read_bytes()
    names = (b"OHDR", b"OCHK", b"TREE", b"HEAP", b"SNOD", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"BTHD", b"BTLF", b"GCOL")
    fields = [0, 8, 9, 13, 14, 24, 40]
    for name in names:
        begin = data.find(name)
        while begin >= 0:
            fields += range(begin, min(begin + 160, len(data)), 4)
            begin = data.find(name, begin + 1)
    # The addresses of what is in the file.
    fields += [at for at in range(len(data) - 8) if 0 < int.from_bytes(data[at : at + 8], "little") < len(data)]
    pixels = [each for frame in frames for each in frame]
    outside = [at for at in fields if not any(begin <= at < end for begin, end in pixels)]
    return Original(data, frames, checksummed(data), outside)


def _virtual(directory: Path) -> dict[str, Original]:
    path = directory / "a.h5"
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    for number in range(2):
        with h5py.File(directory / f"source{number}.h5", "w") as file:
            file["d"] = FRAMES[2 * number : 2 * number + 2]
        layout[2 * number : 2 * number + 2] = h5py.VirtualSource(f"source{number}.h5", "d", (2, 4, 6))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.create_virtual_dataset(DATASET, layout, fillvalue=9)
    # What a part of it is, it says itself: no bytes are those of a frame.
    return {path.name: _original(path, [[] for _ in FRAMES])}


def _linked(directory: Path) -> dict[str, Original]:
    path = directory / "a.h5"
    with h5py.File(directory / "far.h5", "w") as file:
        file["d"] = FRAMES
    with h5py.File(path, "w") as file:
        file[DATASET] = h5py.ExternalLink("far.h5", "/d")
    return {path.name: _original(path, [[] for _ in FRAMES])}


def _raw(directory: Path) -> dict[str, Original]:
    """A dataset whose pixels are in a file beside."""
    path = directory / "a.h5"
    (directory / "a.raw").write_bytes(FRAMES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset(DATASET, FRAMES.shape, FRAMES.dtype, external=[("a.raw", 0, FRAMES.nbytes)])
    return {path.name: _original(path, [[] for _ in FRAMES])}


def _tiff(**options: Any) -> Callable[[Path], dict[str, Original]]:
    def make(directory: Path) -> dict[str, Original]:
        made = {}
        for number, frame in enumerate(FRAMES):
            path = directory / f"f_{number}.tif"
            data = frame.astype(">u2") if options.get("byteorder") == ">" else frame
            tifffile.imwrite(path, data, **options)
            made[path.name] = _original_tiff(path, number)
        return made

    return make


def _original_tiff(path: Path, number: int) -> Original:
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        ranges = list(
            zip(page.dataoffsets, map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), strict=True)
        )
        fields = [4, *(at for tag in page.tags for at in (tag.offset, tag.offset + 2, tag.offset + 4, tag.offset + 8))]
        fields += [tag.valueoffset for tag in page.tags]
    frames: list[list[tuple[int, int]]] = [[] for _ in FRAMES]
    frames[number] = ranges
    return Original(data, frames, fields=fields)


def _npy(directory: Path) -> dict[str, Original]:
    made = {}
    for number, frame in enumerate(FRAMES):
        path = directory / f"f_{number}.npy"
        np.save(path, frame)
        data = path.read_bytes()
        frames: list[list[tuple[int, int]]] = [[] for _ in FRAMES]
        frames[number] = [(len(data) - frame.nbytes, len(data))]
        made[path.name] = Original(data, frames, fields=list(range(80)))
    return made


def _jpeg(directory: Path) -> dict[str, Original]:
    made = {}
    for number, frame in enumerate(FRAMES):
        path = directory / f"f_{number}.jpg"
        Image.fromarray((frame % 256).astype("u1")).save(path)
        data = path.read_bytes()
        begin = data.index(b"\xff\xda")
        frames: list[list[tuple[int, int]]] = [[] for _ in FRAMES]
        frames[number] = [(0, len(data))]
        made[path.name] = Original(data, frames, fields=list(range(begin + 14)))
    return made


_ROWS = HDF5Rows(DATASET, 1, (RowSpan(0, 0, 3, 1), RowSpan(0, 3, 1, 1))).to_parameters()
_WHOLE = {"dataset": DATASET}
_CHUNKS = {"chunks": (1, 4, 6)}
_NEW = {"libver": "latest", "maxshape": (None, 4, 6), **_CHUNKS}
_TYPES = {"tif": TIFF_SERIES, "npy": NPY_SERIES, "jpg": JPEG_SERIES, "h5": HDF5}


def _series(suffix: str, dataset: str = "") -> dict[str, Any]:
    span = RowSpan(0, 0, len(FRAMES), 1)
    return FileSeries(_TYPES[suffix], (f"f_%d.{suffix}",), 1, (span,), dataset).to_parameters()


def _hdf5_series(directory: Path) -> dict[str, Original]:
    made = {}
    for number in range(len(FRAMES)):
        path = directory / f"f_{number}.h5"
        with h5py.File(path, "w") as file:
            file["d"] = FRAMES[number : number + 1]
            begin = file["d"].id.get_offset()
        frames: list[list[tuple[int, int]]] = [[] for _ in FRAMES]
        frames[number] = [(begin, begin + FRAMES[0].nbytes)]
        made[path.name] = _original(path, frames)
    return made


KINDS: dict[str, tuple[Any, ...]] = {
    "hdf5 plain": (_hdf5(), HDF5_ROWS, _ROWS),
    "hdf5 chunked": (_hdf5(**_CHUNKS), HDF5_ROWS, _ROWS),
    "hdf5 packed": (_hdf5(compression="gzip", shuffle=True, **_CHUNKS), HDF5_ROWS, _ROWS),
    "hdf5 lz4": (_hdf5(**hdf5plugin.Bitshuffle(cname="lz4"), **_CHUNKS), HDF5_ROWS, _ROWS),
    "hdf5 newest": (_hdf5(**_NEW), HDF5_ROWS, _ROWS),
    "hdf5 newest packed": (_hdf5(compression="gzip", **_NEW), HDF5_ROWS, _ROWS),
    "hdf5 swmr": (_hdf5(is_marked=True, **_NEW), HDF5_ROWS, {**_ROWS, "swmr": True}),
    "hdf5 virtual": (_virtual, HDF5_ROWS, _ROWS),
    "hdf5 linked": (_linked, HDF5_ROWS, _ROWS),
    "hdf5 raw": (_raw, HDF5_ROWS, _ROWS),
    "hdf5 whole": (_hdf5(**_CHUNKS), HDF5, _WHOLE),
    "hdf5 series": (_hdf5_series, FILE_SERIES, _series("h5", "d")),
    "tiff": (_tiff(), TIFF_SERIES, {}),
    "tiff big-endian": (_tiff(byteorder=">"), TIFF_SERIES, {}),
    "tiff bigtiff": (_tiff(bigtiff=True), TIFF_SERIES, {}),
    "tiff strips": (_tiff(rowsperstrip=1), TIFF_SERIES, {}),
    "tiff packed": (_tiff(compression="zlib", predictor=True), TIFF_SERIES, {}),
    "tiff tiles": (_tiff(tile=(16, 16), compression="zlib"), TIFF_SERIES, {}),
    "tiff series": (_tiff(), FILE_SERIES, _series("tif")),
    "npy": (_npy, NPY_SERIES, {}),
    "npy series": (_npy, FILE_SERIES, _series("npy")),
    "jpeg": (_jpeg, JPEG_SERIES, {}, "|u1"),
}


def targets() -> list[FileTarget]:
    """Each kind of files, read in each way."""
    ways: dict[str, Way] = {"": straight, "served ": served}
    return [
        FileTarget(
            f"{prefix}{name}",
            make,
            mimetype,
            parameters,
            read,
            *(more or ["<u2"]),
            is_exact=name != "jpeg",
            bears=IN_HDF5 if name.startswith("hdf5") and read is straight else frozenset(),
        )
        for prefix, read in ways.items()
        for name, (make, mimetype, parameters, *more) in KINDS.items()
    ]

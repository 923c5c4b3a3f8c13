"""What our adapters find in files, held against what is registered by the validator of bluesky-tiled-plugins."""

import h5py
import numpy as np
import pytest
import tifffile
from bluesky_tiled_plugins.writing.validator import StructureValidationException, validate_data_source
from fastapi import HTTPException
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.chunks import chunks_for_reading
from bluesky_filestore.model.specs import HDF5, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.serving.adapters import HandledAdapters, adapters

# Some events make a chunk, so that chunks are not all alike.
SHAPE = (1000, 800)
FRAMES = np.arange(12, dtype="<u2")[:, np.newaxis, np.newaxis] * np.ones(SHAPE, "<u2")
OURS = adapters()
IRREGULAR = (RowSpan(0, 2, 2, 1), RowSpan(1, 4, 2, -3), RowSpan(0, 1, 1, 0))
BACK_AND_FORTH = (RowSpan(0, 10, 3, -4), RowSpan(0, 1, 2, 2))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Files of all kinds with the same frames."""
    directory = tmp_path_factory.mktemp("found")
    for name, some in (("all", FRAMES), ("first", FRAMES[:5]), ("second", FRAMES[5:])):
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file.create_dataset("d", data=some, chunks=(1, *SHAPE))
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(directory / f"{number:02}.tiff", frame)
        np.save(directory / f"{number:02}.npy", frame)
    return directory


def registered(directory, kind, files, shape, dtype="<u2", **parameters):
    """A data source as the writer registers it."""
    structure = ArrayStructure(
        shape=shape, chunks=chunks_for_reading(shape, dtype), data_type=BuiltinDtype.from_numpy_dtype(np.dtype(dtype))
    )
    assets = [
        Asset(data_uri=f"file://localhost{directory / file}", is_directory=False, parameter="data_uris", num=num)
        for num, file in enumerate(files)
    ]
    return DataSource(
        structure_family="array",
        structure=structure,
        mimetype=kind,
        parameters=parameters,
        management=Management.external,
        assets=assets,
    )


def notes_of(data_source, makers=OURS, **how):
    """What the validator has to say."""
    frames = data_source.structure.shape[1] if len(data_source.structure.shape) == 4 else None
    metadata = {"frame_per_point": frames} if frames else {}
    return validate_data_source(data_source, metadata=metadata, adapters_by_mimetype=makers, **how)[1]


def series(suffix):
    """The files of a series."""
    return [f"{number:02}.{suffix}" for number in range(12)]


def rows(kind, frames, spans):
    """The parameters of rows in HDF5 files, or in files of their own."""
    if kind == HDF5_ROWS:
        return HDF5Rows("d", frames, spans).to_parameters()
    return FileSeries(TIFF_SERIES, ("%02d.tiff",), frames, spans).to_parameters()


CASES = {
    "whole file": (HDF5, ["all.h5"], (12, *SHAPE), {"dataset": "d"}),
    "an axis for the frame": (HDF5, ["all.h5"], (12, 1, *SHAPE), {"dataset": "d"}),
    "path in parts": (HDF5, ["all.h5"], (12, *SHAPE), {"dataset": ["", "d"]}),
    "two files sliced": (HDF5, ["first.h5", "second.h5"], (5, *SHAPE), {"dataset": "d", "slice": "2:11:2"}),
    "TIFF": (TIFF_SERIES, series("tiff"), (12, 1, *SHAPE), {}),
    "NPY": (NPY_SERIES, series("npy"), (12, *SHAPE), {}),
    "rows": (HDF5_ROWS, ["first.h5", "second.h5"], (5, 1, *SHAPE), rows(HDF5_ROWS, 1, IRREGULAR)),
    "rows of two": (HDF5_ROWS, ["first.h5", "second.h5"], (5, 2, *SHAPE), rows(HDF5_ROWS, 2, IRREGULAR)),
    "files": (FILE_SERIES, ["."], (5, 1, *SHAPE), rows(FILE_SERIES, 1, BACK_AND_FORTH)),
    "files of two": (FILE_SERIES, ["."], (5, 2, *SHAPE), rows(FILE_SERIES, 2, BACK_AND_FORTH)),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_mend(directory, name):
    """The validator agrees with what is registered, chunks and all."""
    kind, files, shape, parameters = CASES[name]
    assert notes_of(registered(directory, kind, files, shape, **parameters)) == []


@pytest.mark.parametrize("name", CASES)
def test_all_is_read(directory, name):
    """The adapter of what was found gives the frames one after the other."""
    kind, files, shape, parameters = CASES[name]
    data_source = registered(directory, kind, files, shape, **parameters)
    found = OURS[kind].from_uris(*(asset.data_uri for asset in data_source.assets), **parameters)
    expected = OURS[kind].from_catalog(data_source, Node, **parameters).read()
    np.testing.assert_array_equal(found.read(), expected.reshape(-1, *SHAPE))


class Node:
    """What there is of a node."""

    metadata_ = {}
    specs = ()


def test_a_wrong_shape_is_found(directory):
    """What is registered otherwise than the files are is said, and mended where that is asked for."""
    data_source = registered(directory, FILE_SERIES, ["."], (5, 7, 6), **rows(FILE_SERIES, 1, BACK_AND_FORTH))
    with pytest.raises(StructureValidationException, match=r"Shape mismatch: \(5, 7, 6\) != \(5, 1000, 800\)"):
        notes_of(data_source)
    data_source = registered(directory, HDF5_ROWS, ["all.h5"], (2, *SHAPE), "<f4", **rows(HDF5_ROWS, 1, IRREGULAR[:1]))
    assert notes_of(data_source, fix_errors=True)[0] == "Fixed dtype mismatch: float32 -> uint16"


def test_frames_that_are_not_there(directory):
    """A file that lacks rows that are registered is named, though it is not the first."""
    spans = (RowSpan(0, 0, 5, 1), RowSpan(1, 5, 4, 1))
    data_source = registered(directory, HDF5_ROWS, ["first.h5", "second.h5"], (9, *SHAPE), **rows(HDF5_ROWS, 1, spans))
    with pytest.raises(HTTPException, match=r"422: file .*second.h5 holds 7 frames in dataset d; frame 8"):
        notes_of(data_source)
    data_source = registered(
        directory, FILE_SERIES, ["."], (1, *SHAPE), **rows(FILE_SERIES, 1, (RowSpan(0, 50, 1, 1),))
    )
    with pytest.raises(HTTPException, match=r"404: file .*50.tiff is not there"):
        notes_of(data_source)


def test_two_frames_an_event_of_stock_registrations(directory):
    """From the files alone nobody can tell how many frames an event has, and the chunks are taken for other ones."""
    data_source = registered(directory, HDF5, ["all.h5"], (6, 2, *SHAPE), dataset="d")
    with pytest.raises(StructureValidationException, match="Chunk shape mismatch"):
        notes_of(data_source)
    assert notes_of(data_source, fix_errors=True) == [
        "Fixed chunk shape mismatch: (1, 2, 1000, 800) -> (2, 2, 1000, 800)"
    ]


class Rows:
    """A handler of a spec that nobody knows."""

    def __init__(self, path):
        self._values = np.load(path)

    def __call__(self, row):
        """A row of a file."""
        return self._values[row]


def test_handled(directory):
    """Events of a handler are as the first of them is."""
    makers = {HANDLED: HandledAdapters(handlers={"ROWS": Rows})}
    parameters = {"spec": "ROWS", "resource_kwargs": {}, "datum_kwargs": [{"row": 3}, {"row": 0}]}
    assert notes_of(registered(directory, HANDLED, ["00.npy"], (2, 800), **parameters), makers) == []
    found = makers[HANDLED].from_uris(f"file://localhost{directory}/07.npy", **parameters)
    np.testing.assert_array_equal(found.read(), FRAMES[7][[3, 0]])

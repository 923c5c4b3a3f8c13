"""Our adapters beside Tiled's own: the same answers from the same data sources."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tifffile
from fastapi import HTTPException
from PIL import Image
from tiled.adapters.utils import ShapeMismatchError
from tiled.mimetypes import DEFAULT_ADAPTERS_BY_MIMETYPE
from tiled.ndslice import NDBlock, NDSlice
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.container import ContainerStructure
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS, FileSeries, HDF5Rows, RowSpan
from bluesky_filestore.model.specs import HDF5, JPEG_SERIES, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.serving.adapters import HandledAdapters, adapters

FRAMES = np.random.default_rng(0).integers(0, 60000, (12, 8, 6), dtype="u2")
NODE = SimpleNamespace(metadata_={"a": 1}, specs=[])
OURS = adapters()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Files of all kinds with the same frames."""
    directory = tmp_path_factory.mktemp("adapters")
    for name, some in (("all", FRAMES), ("first", FRAMES[:5]), ("second", FRAMES[5:])):
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file.create_dataset("d", data=some, chunks=(1, 8, 6)).attrs["units"] = "counts"
            file["packed"] = some.astype(">f8")
            file["bits"] = some > 30000
            file["one"] = some[:, :1, :1]
            file["line"] = some[:, 0, 0]
            file["scalar"] = 5.0
            file["empty"] = some[:0]
            file["words"] = ["a", "bc"]
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(directory / f"{number:02}.tiff", frame)
        np.save(directory / f"{number:02}.npy", frame)
        Image.fromarray((frame >> 8).astype("u1")).save(directory / f"{number:02}.jpg")
        with h5py.File(directory / f"{number:02}.h5", "w") as file:
            file["d"] = frame[np.newaxis]
    return directory


def source(
    directory, kind, files, shape, dtype="u2", *, chunks=None, properties=None, is_directory=False, **parameters
):
    """A data source as it comes from the catalog."""
    structure = ArrayStructure(
        shape=shape,
        chunks=chunks or tuple((size,) for size in shape),
        data_type=BuiltinDtype.from_numpy_dtype(np.dtype(dtype)),
    )
    assets = [
        Asset(data_uri=f"file://localhost{directory / file}", is_directory=is_directory, parameter="data_uris", num=num)
        for num, file in enumerate(files)
    ]
    return DataSource(
        structure_family="array",
        structure=structure,
        mimetype=kind,
        parameters=parameters,
        properties=properties or {},
        management=Management.external,
        assets=assets,
    )


def made(makers, data_source):
    """The adapter that one of the two sides makes."""
    return makers[data_source.mimetype].from_catalog(data_source, NODE, **data_source.parameters)


HDF5_CASES = {
    "whole": (["all.h5"], (12, 8, 6), "u2", {"dataset": "d"}),
    "path in parts": (["all.h5"], (12, 8, 6), "u2", {"dataset": ["", "d"]}),
    "a point of two": (["all.h5"], (6, 2, 8, 6), "u2", {"dataset": "d"}),
    "an axis more": (["all.h5"], (12, 1, 8, 6), "u2", {"dataset": "d"}),
    "flat": (["all.h5"], (12 * 48,), "u2", {"dataset": "d"}),
    "two files": (["first.h5", "second.h5"], (12, 8, 6), "u2", {"dataset": "d"}),
    "two files sliced": (["first.h5", "second.h5"], (5, 8, 6), "u2", {"dataset": "d", "slice": "2:11:2"}),
    "backwards": (["first.h5", "second.h5"], (3, 8, 6), "u2", {"dataset": "d", "slice": "8:2:-2"}),
    "to the first": (["all.h5"], (4, 8, 6), "u2", {"dataset": "d", "slice": "9::-3"}),
    "part of a frame": (["all.h5"], (4, 3, 2), "u2", {"dataset": "d", "slice": "0:4,1:4,::3"}),
    "a line of a frame": (["all.h5"], (12, 6), "u2", {"dataset": "d", "slice": ":,3"}),
    "one frame": (["all.h5"], (8, 6), "u2", {"dataset": "d", "slice": "7"}),
    "squeezed": (["all.h5"], (12,), "u2", {"dataset": "one", "squeeze": True}),
    "shorter than the file": (["all.h5"], (9, 8, 6), "u2", {"dataset": "d"}),
    "big-endian floats": (["all.h5"], (12, 8, 6), ">f8", {"dataset": "packed"}),
    "bits": (["all.h5"], (12, 8, 6), "?", {"dataset": "bits"}),
    "numbers": (["first.h5", "second.h5"], (12,), "u2", {"dataset": "line"}),
    "SWMR": (["all.h5"], (12, 8, 6), "u2", {"dataset": "d", "swmr": True}),
    "a file a frame": ([f"{n:02}.h5" for n in range(12)], (12, 8, 6), "u2", {"dataset": "d"}),
    "two files a point": ([f"{n:02}.h5" for n in range(12)], (6, 2, 8, 6), "u2", {"dataset": "d"}),
    "scalar": (["all.h5"], (1,), "f8", {"dataset": "scalar"}),
}
SERIES = {TIFF_SERIES: ("tiff", "u2"), NPY_SERIES: ("npy", "u2"), JPEG_SERIES: ("jpg", "u1")}
SHAPES = {
    "frames": (12, 8, 6),
    "an axis more": (12, 1, 8, 6),
    "two a point": (6, 2, 8, 6),
    "on end": (6, 16, 6),
    "flat": (12 * 48,),
}
INDICES = [
    (),
    (2,),
    (-1,),
    (slice(1, 4),),
    (slice(None, None, 2),),
    (slice(0, 3), slice(1, 2)),
    (1, slice(None), slice(0, 3)),
    (slice(None), 0),
    (0, 0),
]


def same_answers(ours, stock):
    """Whether both answer alike, whatever is asked."""
    shape = stock.structure().shape
    assert ours.structure() == stock.structure()
    dtype = stock.structure().data_type.to_numpy_dtype()
    for index in INDICES:
        if len(index) > len(shape) or not NDSlice(*index).is_valid_for_shape(shape):
            continue
        asked = NDSlice(*index) if index else NDSlice(...)
        expected = np.asarray(stock.read(asked), dtype=dtype)
        found = ours.read(asked)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), index
        assert (found == expected).all(), index


class TestHDF5:
    """Of ``application/x-hdf5``."""

    @pytest.mark.parametrize("name", HDF5_CASES)
    def test_like_stock(self, directory, name):
        """Any registration of an array gives what Tiled's adapter gives."""
        files, shape, dtype, parameters = HDF5_CASES[name]
        data_source = source(directory, HDF5, files, shape, dtype, **parameters)
        ours, stock = made(OURS, data_source), made(DEFAULT_ADAPTERS_BY_MIMETYPE, data_source)
        same_answers(ours, stock)
        assert ours.metadata() == stock.metadata()

    def test_frames_on_end(self, directory):
        """Frames of an event may lie on end, which Tiled's adapter cannot do."""
        data_source = source(directory, HDF5, ["all.h5"], (6, 16, 6), dataset="d")
        found = made(OURS, data_source).read(NDSlice(slice(1, 3), slice(4, 12)))
        assert (found == FRAMES.reshape(6, 16, 6)[1:3, 4:12]).all()

    def test_blocks(self, directory):
        """Chunks, and parts of them, are those of the structure."""
        data_source = source(directory, HDF5, ["all.h5"], (12, 8, 6), chunks=((5, 5, 2), (4, 4), (6,)), dataset="d")
        ours, stock = made(OURS, data_source), made(DEFAULT_ADAPTERS_BY_MIMETYPE, data_source)
        for block in [(0, 0, 0), (2, 1, 0)]:
            expected = stock.read_block(NDBlock(*block), NDSlice(...))
            assert (ours.read_block(NDBlock(*block), NDSlice(...)) == expected).all()
            part = NDSlice(slice(None, None, -1), 1)
            assert (ours.read_block(NDBlock(*block), part) == expected[::-1, 1]).all()
        with pytest.raises(IndexError, match=r"there is no chunk 3; expected one of 3"):
            ours.read_block(NDBlock(3, 0, 0))

    def test_what_tiled_serves_itself(self, directory):
        """Whole files, and datasets that are no frames, go to Tiled's adapter."""
        whole = source(directory, HDF5, ["all.h5"], (1,))
        whole = DataSource(
            structure_family="container",
            structure=ContainerStructure(keys=[]),
            mimetype=HDF5,
            parameters={},
            management=Management.external,
            assets=whole.assets,
        )
        assert made(OURS, whole)["d"].read(NDSlice(3)).tolist() == FRAMES[3].tolist()

    def test_fewer_frames_than_registered(self, directory):
        """A file with too few frames is named, with the frame that is not there; so is one of another shape."""
        for shape in ((13, 8, 6), (12, 9, 6)):
            data_source = source(directory, HDF5, ["all.h5"], shape, dataset="d")
            with pytest.raises(ShapeMismatchError):
                made(DEFAULT_ADAPTERS_BY_MIMETYPE, data_source).read(NDSlice(0))
            with pytest.raises(HTTPException) as caught:
                made(OURS, data_source).read(NDSlice(0))
            assert caught.value.status_code == 422
            assert "all.h5" in caught.value.detail
        data_source = source(directory, HDF5, ["all.h5"], (13, 8, 6), dataset="d")
        with pytest.raises(HTTPException, match=r"has 12 frames to give; frame 12 \(counted from 0\) of 13"):
            made(OURS, data_source).read(NDSlice(0))

    def test_other_numbers_than_registered(self, directory):
        """Numbers that do not fit what is registered are not cut to fit."""
        data_source = source(directory, HDF5, ["all.h5"], (12, 8, 6), "u1", dataset="d")
        with pytest.raises(HTTPException, match=r"422: the files hold uint16; expected uint8"):
            made(OURS, data_source).read(NDSlice(0))


class TestSeries:
    """Of ``multipart/related``, one asset a frame."""

    @pytest.mark.parametrize("mimetype", SERIES)
    @pytest.mark.parametrize("name", SHAPES)
    def test_like_stock(self, directory, mimetype, name):
        """Any shape of the frames gives what Tiled's adapter gives."""
        suffix, dtype = SERIES[mimetype]
        files = [f"{number:02}.{suffix}" for number in range(12)]
        chunks = {"chunks": [[12], [8], [6]]}
        data_source = source(directory, mimetype, files, SHAPES[name], dtype, properties=chunks)
        same_answers(made(OURS, data_source), made(DEFAULT_ADAPTERS_BY_MIMETYPE, data_source))

    def test_without_properties(self, directory):
        """Who registers without saying how the files are chunked is served as well."""
        files = [f"{number:02}.tiff" for number in range(12)]
        data_source = source(directory, TIFF_SERIES, files, (12, 8, 6))
        same_answers(made(OURS, data_source), made(DEFAULT_ADAPTERS_BY_MIMETYPE, data_source))

    def test_only_some_assets(self, directory):
        """Tiled may look up only the files that a request needs."""
        files = [f"{number:02}.tiff" for number in range(12)]
        data_source = source(directory, TIFF_SERIES, files, (6, 2, 8, 6), properties={"chunks": [[12], [8], [6]]})
        maker = OURS[TIFF_SERIES]
        assert maker.supports_lazy_assets
        needed = maker.file_indices_for_slice(data_source.structure, 12, NDSlice(2))
        uris = [asset.data_uri if num in needed else None for num, asset in enumerate(data_source.assets)]
        adapter = maker.from_catalog(data_source, NODE, data_uris=uris)
        assert (adapter.read(NDSlice(2)) == FRAMES[4:6]).all()
        with pytest.raises(HTTPException, match=r"422: the file of frame 0 is not registered"):
            adapter.read(NDSlice(0))


class TestOwn:
    """Of our own mimetypes."""

    SPANS = (RowSpan(0, 3, 2, 1), RowSpan(1, 6, 3, -3), RowSpan(0, 1, 2, 0))

    @pytest.mark.parametrize("inner", ["", "1:4,::3", "...,2"])
    def test_rows_of_hdf5(self, directory, inner):
        """Rows in any order of two files, and a part of each frame."""
        expected = np.concatenate([FRAMES[3:5], FRAMES[5:][[6, 3, 0]], FRAMES[[1, 1]]])
        if inner:
            expected = expected[:, 1:4, ::3] if inner.startswith("1") else expected[..., 2]
        parameters = HDF5Rows("d", 1, self.SPANS, inner).to_parameters()
        data_source = source(directory, HDF5_ROWS, ["first.h5", "second.h5"], expected.shape, **parameters)
        assert (made(OURS, data_source).read(NDSlice(...)) == expected).all()
        assert (made(OURS, data_source).read(NDSlice(4)) == expected[4]).all()

    @pytest.mark.parametrize("mimetype", [TIFF_SERIES, NPY_SERIES, HDF5])
    def test_rows_of_files(self, directory, mimetype):
        """Events of two files, in any order."""
        suffix = {TIFF_SERIES: "tiff", NPY_SERIES: "npy", HDF5: "h5"}[mimetype]
        rows = (RowSpan(0, 10, 3, -4), RowSpan(0, 1, 2, 2))
        expected = FRAMES[[10, 11, 6, 7, 2, 3, 1, 2, 3, 4]].reshape(5, 2, 8, 6)
        dataset = "d" if mimetype == HDF5 else ""
        parameters = FileSeries(mimetype, (f"%02d.{suffix}",), 2, rows, dataset).to_parameters()
        data_source = source(directory, FILE_SERIES, ["."], expected.shape, is_directory=True, **parameters)
        assert (made(OURS, data_source).read(NDSlice(...)) == expected).all()

    def test_parameters_that_mean_nothing(self, directory):
        """Rows in files that are not there, and templates that lead elsewhere, are refused."""
        with pytest.raises(HTTPException, match=r"422: rows are in file number 1; expected one of 1 assets"):
            made(
                OURS,
                source(directory, HDF5_ROWS, ["all.h5"], (7, 8, 6), **HDF5Rows("d", 1, self.SPANS).to_parameters()),
            )
        good = FileSeries(TIFF_SERIES, ("%02d.tiff",), 1, (RowSpan(0, 0, 3, 1),)).to_parameters()
        for template in ("../%02d.tiff", "/etc/%d"):
            with pytest.raises(HTTPException, match=r"422: template .* leads into another directory"):
                made(OURS, source(directory, FILE_SERIES, ["."], (3, 8, 6), **(good | {"templates": [template]})))
        with pytest.raises(HTTPException, match=r"422: there are 2 templates for 1 directories"):
            made(OURS, source(directory, FILE_SERIES, ["."], (3, 8, 6), **(good | {"templates": ["%d", "%d"]})))


class Doubling:
    """A handler of a spec that nobody knows."""

    def __init__(self, path, factor=1):
        self._values, self._factor = np.load(path), factor

    def __call__(self, row):
        """Twice the row of a file."""
        return self._values[row] * self._factor


class TestHandled:
    """Of specs that there is a handler for."""

    def test_any_handler(self, directory):
        """Each event is what the handler answers, in the dtype and shape that is registered."""
        maker = HandledAdapters(handlers={"DOUBLE": Doubling})
        parameters = {
            "spec": "DOUBLE",
            "resource_kwargs": {"factor": 2},
            "datum_kwargs": [{"row": n} for n in (5, 0, 3)],
        }
        data_source = source(directory, HANDLED, ["00.npy"], (3, 1, 6), "u4", **parameters)
        adapter = maker.from_catalog(data_source, NODE, **parameters)
        expected = 2 * FRAMES[0][[5, 0, 3]]
        assert (adapter.read(NDSlice(...))[:, 0] == expected).all()
        assert (adapter.read(NDSlice(1, 0, slice(2, 4))) == expected[1, 2:4]).all()
        data_source = source(directory, HANDLED, ["00.npy"], (3, 7), **parameters)
        with pytest.raises(
            HTTPException, match=r"422: the handler of spec 'DOUBLE' answers with shape \[6\] .* event 0"
        ):
            maker.from_catalog(data_source, NODE, **parameters).read(NDSlice(0))
        data_source = source(directory, HANDLED, ["99.npy"], (3, 6), **parameters)
        with pytest.raises(HTTPException, match=r"404: file .*99.npy is not there"):
            maker.from_catalog(data_source, NODE, **parameters).read(NDSlice(0))

    def test_registered_handlers(self, directory):
        """The handlers of the registry are used, and a spec without one is named."""
        data_source = source(directory, HANDLED, ["all.h5"], (2, 8, 6), spec="NOBODYS", datum_kwargs=[{}, {}])
        with pytest.raises(HTTPException, match=r"422: .*NOBODYS"):
            made(OURS, data_source)
        with pytest.raises(HTTPException, match=r"422: parameters \['spec'\] do not say what"):
            made(OURS, source(directory, HANDLED, ["all.h5"], (2, 8, 6), spec="AD_HDF5"))
        parameters = {"spec": "AD_HDF5", "resource_kwargs": {}, "datum_kwargs": [{"point_number": 0}]}
        adapter = made(OURS, source(directory, HANDLED, ["all.h5"], (1, 8, 6), **parameters))
        with pytest.raises(HTTPException, match=r"422: .*all.h5"):
            adapter.read(NDSlice(0))


class TestRoots:
    """Of what lies elsewhere."""

    @pytest.mark.parametrize("path", ["../outside/all.h5", "link.h5", "door/all.h5"])
    def test_paths_that_lead_out(self, directory, tmp_path, path):
        """Neither dots nor links lead out of the roots."""
        inside, outside = tmp_path / "inside", tmp_path / "outside"
        inside.mkdir()
        outside.mkdir()
        (outside / "all.h5").write_bytes((directory / "all.h5").read_bytes())
        (inside / "link.h5").symlink_to(outside / "all.h5")
        (inside / "door").symlink_to(outside)
        data_source = source(inside, HDF5, ["all.h5"], (12, 8, 6), dataset="d")
        data_source.assets[0].data_uri = f"file://localhost{inside}/{path}"
        with pytest.raises(HTTPException, match=r"403: file .* (outside the directories|by '\.\.')"):
            made(adapters(Roots.of([inside])), data_source).read(NDSlice(0))

    def test_whole_files_with_links_out(self, directory, tmp_path):
        """A whole file is refused if one of its links leads out."""
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["deep/out"] = h5py.ExternalLink(str(directory / "all.h5"), "/d")
        data_source = DataSource(
            structure_family="container",
            structure=ContainerStructure(keys=[]),
            mimetype=HDF5,
            parameters={},
            management=Management.external,
            assets=source(tmp_path, HDF5, ["a.h5"], (1,)).assets,
        )
        with pytest.raises(HTTPException, match=r"403: file .*all.h5 is outside the directories"):
            made(adapters(Roots.of([tmp_path])), data_source)
        assert made(adapters(Roots.of([tmp_path, directory])), data_source)["deep"]["out"].read(NDSlice(0)).shape == (
            8,
            6,
        )

    def test_what_is_no_file(self, directory):
        """An asset elsewhere than on a disk is refused."""
        data_source = source(directory, HDF5, ["all.h5"], (12, 8, 6), dataset="d")
        data_source.assets[0].data_uri = "s3://bucket/all.h5"
        with pytest.raises(HTTPException, match=r"422: asset s3://bucket/all.h5 is not a file"):
            made(OURS, data_source)
        data_source.assets.clear()
        with pytest.raises(HTTPException, match=r"422: the data source has no assets"):
            made(OURS, data_source)

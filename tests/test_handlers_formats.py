"""Our handlers: each spec passes the contract, and has some ways of its own."""

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from area_detector_handlers import handlers as public
from contracts import HandlerContract, WrittenFiles
from ophyd.sim import NumpySeqHandler

from bluesky_filestore.errors import DocumentError, LockedFileError, TruncatedFileError, UnreadableFileError
from bluesky_filestore.handlers.hdf5 import AreaDetectorHDF5Handler, HDF5DatasetHandler
from bluesky_filestore.handlers.hdf5_series import AreaDetectorHDF5SeriesHandler
from bluesky_filestore.handlers.hdf5_time import AreaDetectorTimeHandler
from bluesky_filestore.handlers.npy import NumpySequenceHandler
from bluesky_filestore.handlers.spe import AreaDetectorSPEHandler
from bluesky_filestore.handlers.tiff import AreaDetectorTIFFHandler
from bluesky_filestore.handlers.xspress3 import Xspress3Handler
from bluesky_filestore.sim import pattern
from bluesky_filestore.sim.file_formats import TiffFile
from bluesky_filestore.sim.frame import Frame
from bluesky_filestore.sim.hdf5_file import Hdf5File, Hdf5Options

SHAPE = (6, 8)
DATUMS = 4
TIME = 631152000.0 + 1000.25
"""A quarter of a second after 1000 s of EPICS time."""


def taken(number: int, dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> Frame:
    """A frame as the simulated IOC's plugins get it."""
    return Frame(pattern.frame(number, shape, dtype), number, TIME + number, 0 if len(shape) == 2 else 2)


def arrays(frames: int) -> list[np.ndarray]:
    """The frames of each datum."""
    return [np.stack([taken(datum * frames + n).array for n in range(frames)]) for datum in range(DATUMS)]


def points() -> list[dict[str, int]]:
    """The arguments of most handlers."""
    return [{"point_number": number} for number in range(DATUMS)]


def write_hdf5(path: Path, count: int, *, swmr: bool = False, compression: str = "None") -> None:
    """A file as the simulated IOC writes it."""
    file = Hdf5File(path, taken(0), Hdf5Options(swmr=swmr, compression=compression), stream=True)
    for number in range(count):
        file.write(taken(number))
    file.close()


class InOneHDF5File(HandlerContract):
    """What the handlers of one HDF5 file have in common."""

    swmr = False

    def kwargs(self, frames: int) -> dict:
        """The ``resource_kwargs``."""
        return {"frame_per_point": frames}

    def arrays(self, frames: int) -> list[np.ndarray]:
        """What is to be read."""
        return arrays(frames)

    def write(self, directory, frames):
        """A file of the simulated IOC."""
        path = directory / "a.h5"
        write_hdf5(path, DATUMS * frames, swmr=self.swmr)

        def cut() -> str:
            path.unlink()
            write_hdf5(path, DATUMS * frames - 1, swmr=self.swmr)
            left = DATUMS * frames - 1
            return f"holds {left} frames in .* at least {left + 1}, since frames {left + 1 - frames} to {left} are"

        return WrittenFiles(path, self.kwargs(frames), points(), self.arrays(frames), [[path]] * DATUMS, cut)


class TestAreaDetectorHDF5(InOneHDF5File):
    """AD_HDF5."""

    handler_class, public, spec = AreaDetectorHDF5Handler, public.AreaDetectorHDF5Handler, "AD_HDF5"


class TestAreaDetectorSWMR(InOneHDF5File):
    """AD_HDF5_SWMR; the public handler fails at its second call, so that it can't be asked."""

    handler_class, spec, swmr = AreaDetectorHDF5Handler, "AD_HDF5_SWMR", True


class TestHDF5Dataset(InOneHDF5File):
    """HDF5, with the words in which documents say where the frames are."""

    handler_class, spec = HDF5DatasetHandler, "HDF5"

    def kwargs(self, frames):
        """As some write them."""
        return {"dataset": "/entry/data/data", "frames_per_point": frames}


class TestHDF5Slice(InOneHDF5File):
    """HDF5, of which a part of each frame is taken."""

    handler_class, spec = HDF5DatasetHandler, "HDF5"

    def kwargs(self, frames):
        """With a slice, as StreamResources have them."""
        return {"key": "/entry/data/data", "frame_per_point": frames, "slice": ":, 1:3, 5"}

    def arrays(self, frames):
        """The part."""
        return [array[:, 1:3, 5] for array in arrays(frames)]


class TestAreaDetectorTime(InOneHDF5File):
    """AD_HDF5_TS."""

    handler_class, public, spec = AreaDetectorTimeHandler, public.AreaDetectorHDF5TimestampHandler, "AD_HDF5_TS"

    def arrays(self, frames):
        """EPICS time, of which one alone has no axis."""
        return [1000.25 + np.arange(n * frames, (n + 1) * frames).squeeze() for n in range(DATUMS)]


class TestAreaDetectorSWMRTime(TestAreaDetectorTime):
    """AD_HDF5_SWMR_TS; the public handler fails at its second call, so that it can't be asked."""

    handler_class, public, spec, swmr = AreaDetectorTimeHandler, None, "AD_HDF5_SWMR_TS", True


class InSeries(HandlerContract):
    """What the handlers of a frame a file have in common."""

    template = "%s%s_%6.6d.dat"

    def write_file(self, path: Path, number: int) -> None:
        """One file."""
        raise NotImplementedError

    def write(self, directory, frames):
        """Numbered files."""
        files = [directory / f"a_{number:06d}{self.template[-4:]}" for number in range(DATUMS * frames)]
        for number, path in enumerate(files):
            self.write_file(path, number)
        kwargs = {"template": self.template, "filename": "a", "frame_per_point": frames}
        groups = [files[n * frames : (n + 1) * frames] for n in range(DATUMS)]

        def cut() -> str:
            files[-1].unlink()
            return "is not there" if frames == 1 else f"of the {frames} frames of point 3 there are {frames - 1}"

        return WrittenFiles(directory, kwargs, points(), arrays(frames), groups, cut)


class TestAreaDetectorTIFF(InSeries):
    """AD_TIFF."""

    handler_class, public, spec = AreaDetectorTIFFHandler, public.AreaDetectorTiffHandler, "AD_TIFF"
    template = "%s%s_%6.6d.tif"

    def write_file(self, path, number):
        """As the simulated IOC writes it."""
        TiffFile(path).write(taken(number))


class TestAreaDetectorHDF5Series(InSeries):
    """AD_HDF5_SINGLE."""

    handler_class, spec = AreaDetectorHDF5SeriesHandler, "AD_HDF5_SINGLE"
    public = public.AreaDetectorHDF5SingleHandler
    template = "%s%s_%6.6d.hd5"

    def write_file(self, path, number):
        """As the simulated IOC writes it in Single mode."""
        file = Hdf5File(path, taken(number), Hdf5Options(), stream=False)
        file.write(taken(number))
        file.close()


class TestAreaDetectorSPE(HandlerContract):
    """AD_SPE."""

    handler_class, public, spec = AreaDetectorSPEHandler, public.AreaDetectorSPEHandler, "AD_SPE"

    def write(self, directory, frames):
        """A file a datum, by the few fields of its header that say how it is laid out."""
        files = [directory / f"a_{number}.spe" for number in range(DATUMS)]
        for path, values in zip(files, arrays(frames), strict=True):
            write_spe(path, values)

        def cut() -> str:
            write_spe(files[-1], arrays(frames)[-1][:-1])
            return f"a_3.spe holds {frames - 1} frames; expected {frames}"

        kwargs = {"template": "%s%s_%d.spe", "filename": "a", "frame_per_point": frames}
        expected = [values.squeeze() for values in arrays(frames)]
        return WrittenFiles(directory, kwargs, points(), expected, [[path] for path in files], cut)

    def test_more_frames_than_said(self, tmp_path):
        """A file with more frames than a point has is refused: nobody knows which are meant."""
        write_spe(tmp_path / "a_0.spe", arrays(3)[0])
        handler = AreaDetectorSPEHandler(str(tmp_path), "%s%s_%d.spe", "a", 2)
        with pytest.raises(DocumentError, match="holds 3 frames; expected 2"):
            handler(point_number=0)


def write_spe(path: Path, frames: np.ndarray) -> None:
    """A file of Princeton Instruments' format 2: 4100 bytes of header, then the frames."""
    header = bytearray(4100)
    header[20:30], header[172:178] = b"22Nov2026\0", b"120000"
    struct.pack_into("<h", header, 42, frames.shape[2])
    struct.pack_into("<h", header, 656, frames.shape[1])
    struct.pack_into("<I", header, 1446, frames.shape[0])
    struct.pack_into("<h", header, 108, 3)
    path.write_bytes(bytes(header) + frames.astype("<u2").tobytes())


class TestNumpySequence(HandlerContract):
    """NPY_SEQ."""

    handler_class, public, spec = NumpySequenceHandler, NumpySeqHandler, "NPY_SEQ"
    frame_counts = (1,)

    def write(self, directory, frames):
        """As ophyd's simulated detectors write them."""
        expected = [taken(number).array for number in range(DATUMS)]
        files = [directory / f"a_{number}.npy" for number in range(DATUMS)]
        for path, values in zip(files, expected, strict=True):
            np.save(path, values)
        datums = [{"index": number} for number in range(DATUMS)]
        return WrittenFiles(directory / "a", {}, datums, expected, [[path] for path in files])

    def test_root_as_an_argument(self, tmp_path):
        """Old resources have the root among their arguments."""
        np.save(tmp_path / "a_5.npy", taken(5).array)
        np.testing.assert_array_equal(NumpySequenceHandler("a", root=str(tmp_path))(index=5), taken(5).array)


class TestXspress3(HandlerContract):
    """XSP3."""

    handler_class, public, spec = Xspress3Handler, public.Xspress3HDF5Handler, "XSP3"
    frame_counts = (1,)

    def write(self, directory, frames):
        """Four frames of three channels of a small spectrum."""
        path, values = directory / "a.h5", np.arange(4 * 3 * 16, dtype="<u4").reshape(4, 3, 16)

        def write(count: int) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("/entry/instrument/detector/data", data=values[:count], chunks=(1, 3, 16))

        def cut() -> str:
            write(3)
            return "holds 3 frames"

        write(4)
        datums = [{"frame": number, "channel": number % 3 + 1} for number in range(DATUMS)]
        expected = [values[datum["frame"], datum["channel"] - 1] for datum in datums]
        return WrittenFiles(path, {}, datums, expected, [[path]] * DATUMS, cut)

    @pytest.mark.parametrize("channel", [0, 4])
    def test_no_such_channel(self, tmp_path, channel):
        """Channels are counted from 1; 0 is not the last one."""
        written = self.write(tmp_path, 1)
        with pytest.raises(DocumentError, match=f"channel {channel} is asked .* expected 1 to 3"):
            self.make(written)(frame=0, channel=channel)


@pytest.mark.parametrize("compression", ["zlib", "Blosc", "BSLZ4", "LZ4"])
def test_compressed_hdf5(tmp_path, compression):
    """The filters that areaDetector compresses with are there."""
    write_hdf5(tmp_path / "a.h5", 3, compression=compression)
    values = AreaDetectorHDF5Handler(str(tmp_path / "a.h5"))(point_number=2)
    np.testing.assert_array_equal(values, taken(2).array[np.newaxis], strict=True)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_compressed_tiff(tmp_path, compression):
    """TIFF files of other writers are read too, as far as tifffile decodes them here."""
    tifffile.imwrite(tmp_path / "a_0.tif", taken(0).array, compression=compression)
    values = AreaDetectorTIFFHandler(str(tmp_path), "%s%s_%d.tif", "a")(point_number=0)
    np.testing.assert_array_equal(values, taken(0).array[np.newaxis], strict=True)


def test_tiff_of_several_pages(tmp_path):
    """A file of several pages is an array of its own, as the public handler gives it."""
    tifffile.imwrite(tmp_path / "a_0.tif", arrays(3)[0], photometric="minisblack")
    args = (str(tmp_path), "%s%s_%d.tif", "a", 1)
    values = AreaDetectorTIFFHandler(*args)(point_number=0)
    np.testing.assert_array_equal(values, public.AreaDetectorTiffHandler(*args)(point_number=0), strict=True)


@pytest.mark.parametrize("shape", [(6, 8, 3), (3, 6, 8)])
def test_colour_hdf5(tmp_path, shape):
    """Colour frames keep their axes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/entry/data/data"] = np.arange(5 * 144, dtype="u2").reshape(5, *shape)
    ours = AreaDetectorHDF5Handler(str(tmp_path / "a.h5"), 2)(point_number=1)
    theirs = public.AreaDetectorHDF5Handler(str(tmp_path / "a.h5"), 2)(point_number=1).compute()
    np.testing.assert_array_equal(ours, theirs, strict=True)


def test_series_of_files_with_an_axis_of_one(tmp_path):
    """A frame stored as (1, y, x) is a frame; several in a file are refused."""
    for number, count in enumerate((1, 1, 2)):
        with h5py.File(tmp_path / f"a_{number}.h5", "w") as file:
            file["/entry/data/data"] = np.zeros((count, *SHAPE))
    handler = AreaDetectorHDF5SeriesHandler(str(tmp_path), "%s%s_%d.h5", "a", 2)
    assert handler(point_number=0).shape == (2, *SHAPE)
    with pytest.raises(UnreadableFileError, match=r"a_2.h5 holds 2 frames; expected one"):
        handler(point_number=1)


def test_frames_that_differ_within_a_point(tmp_path):
    """Files of one point that differ in shape are an error that names both shapes."""
    tifffile.imwrite(tmp_path / "a_0.tif", np.zeros((4, 6), "u2"))
    tifffile.imwrite(tmp_path / "a_1.tif", np.zeros((6, 4), "u2"))
    handler = AreaDetectorTIFFHandler(str(tmp_path), "%s%s_%d.tif", "a", 2)
    with pytest.raises(
        UnreadableFileError, match=r"a_1.tif holds a frame of \[6, 4\] uint16; expected \[4, 6\] uint16"
    ):
        handler(point_number=0)


def test_swmr_while_it_is_written(tmp_path):
    """Frames are read as they come; one that is not there yet is an OSError, until it is."""
    path = tmp_path / "a.h5"
    writer = Hdf5File(path, taken(0), Hdf5Options(swmr=True), stream=True)
    frames, times = AreaDetectorHDF5Handler(str(path)), AreaDetectorTimeHandler(str(path))
    for number in range(4):
        with pytest.raises(TruncatedFileError, match=f"holds {number} frames"):
            times(point_number=number)
        writer.write(taken(number))
        np.testing.assert_array_equal(frames(point_number=number), taken(number).array[np.newaxis])
        assert times(point_number=number) == 1000.25 + number
    writer.close()


WRITER = """
import sys, h5py
with h5py.File(sys.argv[1], "w") as file:
    file["/entry/data/data"] = [[[7]]]
    file.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_hdf5_while_it_is_written(tmp_path):
    """A file that its writer has locked is an OSError that says so, until it is closed."""
    path = tmp_path / "a.h5"
    handler = AreaDetectorHDF5Handler(str(path))
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(LockedFileError, match=r"a.h5 is .*(writes|writing)"):
            handler(point_number=0)
        writer.stdin.write("\n")
    np.testing.assert_array_equal(handler(point_number=0), [[[7]]])


def test_swmr_file_of_a_dead_writer(tmp_path):
    """What a killed writer left behind is read as far as it goes: HDF5 takes it for a file still being written."""
    path = tmp_path / "a.h5"
    code = WRITER.replace('"w"', '"w", libver="latest"').replace(
        'file["/entry/data/data"] = [[[7]]]',
        'file.create_dataset("/entry/data/data", data=[[[7]]], maxshape=(None, 1, 1)); file.swmr_mode = True',
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        writer.kill()
    np.testing.assert_array_equal(AreaDetectorHDF5Handler(str(path))(point_number=0), [[[7]]])
    with pytest.raises(TruncatedFileError, match="holds 1 frames"):
        AreaDetectorHDF5Handler(str(path))(point_number=1)


def test_file_that_this_process_has_open_otherwise(tmp_path):
    """Whoever has the file open already, with or without SWMR, is not in the way."""
    path = tmp_path / "a.h5"
    write_hdf5(path, 3)
    handler = AreaDetectorHDF5Handler(str(path))
    with h5py.File(path):
        np.testing.assert_array_equal(handler(point_number=1)[0], taken(1).array)
    handler.close()
    np.testing.assert_array_equal(handler(point_number=2)[0], taken(2).array)
    handler.close()
    with h5py.File(path, swmr=True, libver="latest"):
        np.testing.assert_array_equal(handler(point_number=1)[0], taken(1).array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "has no dataset /entry/data/data"),
        ({"/entry/data/data/x": [1]}, "a group of 1 .x. at /entry/data/data"),
        ({"/entry/data/data": 1.0}, "without an axis that counts frames"),
    ],
)
def test_hdf5_without_frames(tmp_path, content, words):
    """A file that has something else where the frames should be says what."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in content.items():
            file[name] = value
    with pytest.raises(UnreadableFileError, match=words):
        AreaDetectorHDF5Handler(str(tmp_path / "a.h5"))(point_number=0)


def test_filter_that_is_not_there(tmp_path):
    """A compression that nobody can undo here is named by its number and its writer's name for it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, *SHAPE))
        settings.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1, *SHAPE))
        group = file.create_group("/entry/data")
        dataset = h5py.h5d.create(group.id, b"data", h5py.h5t.STD_U16LE, space, settings)
        dataset.write_direct_chunk((0, 0, 0), b"compressed beyond recognition", filter_mask=0)
    with pytest.raises(UnreadableFileError, match="compressed by HDF5 filter 31999"):
        AreaDetectorHDF5Handler(str(path))(point_number=0)
    assert hdf5plugin.FILTERS


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HDF5DatasetHandler("/a.h5"), "no dataset of file /a.h5 is named"),
        (lambda: HDF5DatasetHandler("/a.h5", "d", slice="0:2"), "expected ':' for the first axis"),
        (lambda: HDF5DatasetHandler("/a.h5", "d", slice="what"), "slice 'what' cannot be understood"),
        (lambda: AreaDetectorHDF5Handler("/a.h5", frame_per_point=0), "frame_per_point is 0"),
        (lambda: AreaDetectorTIFFHandler("/a", "%s%s.tif", "a"), "template '%s%s.tif' can't be filled in"),
        (lambda: AreaDetectorTIFFHandler("/a", "%s%s_%d.tif", "a", 1.5), "frame_per_point is 1.5"),
    ],
)
def test_arguments_that_make_no_sense(make, words):
    """They are refused before a file is opened."""
    with pytest.raises(ValueError, match=words):
        make()

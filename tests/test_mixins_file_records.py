"""Two runs that are given the same name: the second one writes to a file of its own, or is refused."""

import shutil

import numpy as np
import pytest
from mixin_detectors import Detectors, OurHDF5, OurHDF5Single, OurTIFF, documented_file, frames_in, point, staged

from bluesky_filestore.errors import FileExistsAlreadyError, PathError, StageError
from bluesky_filestore.mixins import PathInfo
from bluesky_filestore.mixins.file_records import _name_pattern


@pytest.fixture
def small(ioc):
    """A function that makes detectors with small frames."""
    detectors = Detectors(ioc)
    yield detectors
    detectors.close()


def same_name(ioc, name="sample", **more):
    """A path provider that gives this name each time, in a directory that is empty at first."""
    directory = ioc.directory / f"same-{name}"
    shutil.rmtree(directory, ignore_errors=True)
    return lambda _: PathInfo(directory, name, **more)


def files_of_runs(detector, plugin, count):
    """The documented file of each of so many stages with a point, and its frames as they were right after it."""
    seen = []
    for _ in range(count):
        with staged(detector):
            point(detector)
            documents = list(plugin.collect_asset_docs())
        path = documented_file(documents)
        seen.append((path, frames_in(path)))
    return seen


@pytest.mark.parametrize("by_hook", [False, True])
@pytest.mark.parametrize("lazy", ["No", "Yes"])
def test_hdf5_goes_on_with_a_free_number(ioc, small, lazy, by_hook):
    """The first run's file is left as it was, and the second run's documents name another."""
    provider = same_name(ioc)
    detector = small(hdf5=(OurHDF5, {"path_provider": provider}))
    if by_hook:
        directory = str(provider("").directory_path)
        detector.hdf5.make_filename = lambda: ("sample", directory, directory)
    detector.hdf5.stage_sigs["lazy_open"] = lazy
    runs = files_of_runs(detector, detector.hdf5, 3)
    assert [path.name for path, _ in runs] == [f"sample_{number:06d}.h5" for number in range(3)]
    for path, frames in runs:
        assert np.array_equal(frames_in(path), frames)
    assert not np.array_equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("plugin", [OurTIFF, OurHDF5Single], ids=lambda cls: cls.__name__)
def test_series_is_refused(ioc, small, plugin):
    """A series can't begin at another number, so the second run is refused, and the files of the first stay."""
    detector = small(files=(plugin, {"path_provider": same_name(ioc)}))
    with staged(detector):
        point(detector)
    directory = ioc.directory / "same-sample"
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(FileExistsAlreadyError, match=r"sample_000000\..* of another run is there already") as caught:
        detector.stage()
    assert isinstance(caught.value, StageError)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_template_without_a_number(ioc, small):
    """One file of one name is written once; a series of one name is refused at once."""
    detector = small(hdf5=(OurHDF5, {"path_provider": same_name(ioc)}), tiff=(OurTIFF, {}))
    detector.hdf5.stage_sigs["file_template"] = "%s%s.h5"
    detector.tiff.stage_sigs["enable"] = 0
    with staged(detector):
        point(detector)
    with pytest.raises(FileExistsAlreadyError, match=r"sample\.h5 of another run .* has no place for a number"):
        detector.stage()
    detector.hdf5.stage_sigs["file_template"] = "%s%s_%6.6d.h5"
    detector.tiff.stage_sigs.update(enable=1, file_template="%s%s.tiff")
    with pytest.raises(StageError, match="each frame would overwrite the one before"):
        detector.stage()


def test_directory_out_of_sight(ioc, small):
    """Where the readers' directory is not here, the IOC's FullFileName and this session's memory say what is taken."""
    provider = same_name(ioc, name="far", read_directory_path=ioc.directory / "not-mounted")
    other = same_name(ioc, name="other", read_directory_path=ioc.directory / "not-mounted")
    detector = small(hdf5=(OurHDF5, {"path_provider": provider}))
    for now, number in ((provider, 0), (provider, 1), (other, 0), (provider, 2)):
        detector.hdf5._path_provider = now
        with staged(detector):
            point(detector)
            assert detector.hdf5._fn.endswith(f"_{number:06d}.h5")
    assert sorted(path.name for path in (ioc.directory / "same-far").iterdir()) == [
        f"far_{number:06d}.h5" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("template", "name", "flavour", "yes", "no"),
    [
        ("%s%s_%6.6d.h5", "a", "posix", "a_000012.h5", "b_000012.h5"),
        ("%s%s_%d.h5", "a.b", "posix", "a.b_12.h5", "aXb_12.h5"),
        ("%s/run/%s-%3d%%.h5", "a", "posix", "a- 12%.h5", "a-12.h5"),
        (r"%s%s_%6.6d.h5", "a", "windows", "A_000012.H5", "a_x.h5"),
    ],
)
def test_pattern_of_names(template, name, flavour, yes, no):
    """Numbers are found in the names that the template makes, and in no others."""
    pattern = _name_pattern(template, name, flavour)
    assert int(pattern.fullmatch(yes).group(1)) == 12
    assert pattern.fullmatch(no) is None


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (PathInfo(r"Z:\data\visit", "a"), "is not under root"),
        (PathInfo(r"Z:\data\visit", "a", directory_uri="https://host/data"), "is not a file's"),
        (PathInfo(r"Z:\data\visit", "a", directory_uri="file://localhost/elsewhere/"), "is not under root"),
    ],
)
def test_directory_of_the_ioc_alone_is_refused(ioc, small, info, words):
    """A run never points at a directory that only the IOC knows."""
    detector = small(hdf5=(OurHDF5, {"path_provider": lambda _: info}))
    with pytest.raises(PathError, match=words):
        detector.hdf5.make_filename()


def test_fields_of_ophyd_async(ioc, small):
    """directory_uri is where readers look, and create_dir_depth is put to CreateDirectory."""
    info = PathInfo(
        ioc.directory / "deep" / "er", "a", create_dir_depth=-5, directory_uri=(ioc.directory / "seen here").as_uri()
    )
    detector = small(hdf5=(OurHDF5, {"path_provider": lambda _: info}))
    with staged(detector):
        assert detector.hdf5.create_directory.get() == -5
        point(detector)
        assert documented_file(list(detector.hdf5.collect_asset_docs())).parent == ioc.directory / "seen here"
    windows = PathInfo(r"Z:\data", "a", directory_uri=(ioc.directory / "seen").as_uri())
    assert detector.hdf5._ask_provider(windows) == ("a", f"{ioc.directory}/seen/", "Z:\\data")


def test_swmr(ioc, small):
    """With swmr=True the file grows before its readers' eyes, and the spec says so."""
    detector = small(hdf5=(OurHDF5, {"swmr": True}))
    with staged(detector):
        assert detector.hdf5.swmr_mode.get() == "On"
        assert detector.hdf5.num_frames_flush.get() == 1
        point(detector)
        (resource, _) = list(detector.hdf5.collect_asset_docs())
        assert resource[1]["spec"] == "AD_HDF5_SWMR"

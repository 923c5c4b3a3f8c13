"""What a handler reads for a server: nothing outside of where files may lie."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from bluesky_filestore.errors import ForbiddenFileError
from bluesky_filestore.files.readable import ANYWHERE, Roots
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.handled_frames import HandledFrames


@pytest.mark.parametrize("how", ["inside", "filename", "template", "link"])
def test_files_lie_below_the_roots(tmp_path, how):
    """A file name that leads out of the directory, an absolute template and a link are refused."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        directory.mkdir()
        tifffile.imwrite(directory / "a_000000.tiff", np.full((2, 2), 7, "u2"))
    (inside / "linked_000000.tiff").symlink_to(outside / "a_000000.tiff")
    filename = {"inside": "a", "filename": "../outside/a", "template": "a", "link": "linked"}[how]
    template = "%s%s_%6.6d.tiff"
    if how == "template":
        template = f"%.0s{outside}/%s_%6.6d.tiff"
    parameters = {
        "spec": "AD_TIFF",
        "resource_kwargs": {"template": template, "filename": filename},
        "datum_kwargs": [{"point_number": 0}],
    }
    frames = HandledFrames.from_parameters(
        parameters, [str(inside)], (1, 2, 2), np.dtype("u2"), handlers=handler_registry, roots=Roots.of([inside])
    )
    if how == "inside":
        assert (frames.read([0]) == 7).all()
        return
    for read in (lambda: frames.read([0]), lambda: frames.answer_of(0)):
        with pytest.raises(ForbiddenFileError, match="outside the directories"):
            read()


class Silent:
    """A handler that does not say what it reads."""

    def __init__(self, path):
        self._path = path

    def __call__(self, **_):
        """The dataset of the file, or of one in the directory."""
        path = Path(self._path)
        with h5py.File(path if path.is_file() else path / "a.h5") as file:
            return file["d"][()]


@pytest.mark.parametrize("handler", ["HDF5", "Silent"])
@pytest.mark.parametrize("how", ["plain", "external link", "virtual", "storage", "link beside"])
def test_links_in_a_file_lead_below_the_roots(tmp_path, how, handler):
    """Whatever handler opens a file of HDF5: none of its links leads to a file that the server may not read."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        directory.mkdir()
    values = np.full((1, 2, 2), 7, "u2")
    with h5py.File(outside / "secret.h5", "w") as file:
        file["d"] = values
    (outside / "secret.raw").write_bytes(values.tobytes())
    with h5py.File(inside / "a.h5", "w") as file:
        match how:
            case "external link":
                file["d"] = h5py.ExternalLink("../outside/secret.h5", "d")
            case "virtual":
                layout = h5py.VirtualLayout(values.shape, "u2")
                layout[...] = h5py.VirtualSource(str(outside / "secret.h5"), "d", values.shape)
                file.create_virtual_dataset("d", layout)
            case "storage":
                raw = [(str(outside / "secret.raw"), 0, values.nbytes)]
                file.create_dataset("d", values.shape, "u2", external=raw)
            case "link beside":
                file["d"], file["other"] = values, h5py.ExternalLink("../outside/secret.h5", "d")
            case "plain":
                file["d"] = values
    is_ours = handler == "HDF5"
    chosen = {"S": handler_registry["HDF5"] if is_ours else Silent}
    parameters = {
        "spec": "S",
        "resource_kwargs": {"key": "d"} if is_ours else {},
        "datum_kwargs": [{"point_number": 0} if is_ours else {}],
    }
    frames = HandledFrames.from_parameters(
        parameters,
        [str(inside / "a.h5")],
        (1, 2, 2),
        np.dtype("u2"),
        handlers=chosen,
        roots=Roots.of([inside]),
    )
    if how == "plain":
        assert (np.asarray(frames.answer_of(0)) == 7).all()
        return
    with pytest.raises(ForbiddenFileError, match="outside the directories"):
        frames.answer_of(0)


@pytest.mark.parametrize("name", ["a.h5", "/entry/data", "../a.h5", "/etc/%s", "sub/../../a.h5", ".."])
def test_a_handler_that_does_not_say_what_it_reads(tmp_path, name):
    """It gets no paths in its arguments where not all may be read: they could lead anywhere."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = np.ones((1, 2, 2))
    parameters = {"spec": "S", "resource_kwargs": {}, "datum_kwargs": [{"name": name}]}
    for roots in (Roots.of([tmp_path]), ANYWHERE):
        frames = HandledFrames.from_parameters(
            parameters, [str(tmp_path)], (1, 2, 2), np.dtype("f8"), handlers={"S": Silent}, roots=roots
        )
        if name not in ("a.h5", "/entry/data") and roots is not ANYWHERE:
            with pytest.raises(ForbiddenFileError, match="does not say which files it reads"):
                frames.answer_of(0)
        else:
            assert (frames.answer_of(0) == 1).all()

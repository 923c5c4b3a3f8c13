"""What a handler reads for a server: nothing outside of where files may lie."""

import numpy as np
import pytest
import tifffile

from bluesky_filestore.errors import ForbiddenFileError
from bluesky_filestore.handlers import handler_registry
from bluesky_filestore.handlers.handled_frames import HandledFrames
from bluesky_filestore.reading.files import Roots


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

"""From the detector to the array, read back by somebody else: another process with nothing but the Tiled client."""

import subprocess
import sys

import numpy as np
import pytest
from effort import some

READER = """
import sys
import numpy as np
from tiled.client import from_uri

uri, api_key, uid, target = sys.argv[1:]
np.save(target, from_uri(uri, api_key=api_key)[uid]["primary"]["det_image"].read())
"""


def read_elsewhere(catalog, uid, tmp_path):
    """The array as a new process gets it."""
    target = tmp_path / "read.npy"
    subprocess.run(
        [sys.executable, "-c", READER, catalog.uri, catalog.api_key, uid, str(target)], check=True, timeout=60
    )
    return np.load(target)


@pytest.mark.parametrize(
    ("kind", "frames_per_point"),
    some([("SimDetectorHDF5", 5), ("SimDetectorHDF5", 1), ("SimDetectorTIFF", 3), ("SimDetectorTIFF", 1)]),
)
def test_read_back_in_another_process(ioc, catalog, run_engine, tmp_path, kind, frames_per_point):
    """Each event's frames are those that were taken for it, bit by bit."""
    from bluesky.plans import count

    from bluesky_filestore import CatalogWriter, sim
    from bluesky_filestore.sim import pattern

    detector = getattr(sim, kind)(ioc.prefix, name="det", write_path_template=f"{ioc.directory}/%Y", root=ioc.directory)
    detector.wait_for_connection(timeout=10)
    detector.cam.stage_sigs["num_images"] = frames_per_point
    with CatalogWriter(catalog.client) as writer:
        run_engine.subscribe(writer)
        (uid,) = run_engine(count([detector], num=4))
    detector.destroy()

    array = read_elsewhere(catalog, uid, tmp_path)
    assert array.shape[:2] == (4, frames_per_point)
    frames = array.reshape(-1, *array.shape[2:])
    numbers = [pattern.number(frame) for frame in frames]
    assert np.diff(numbers).tolist() == [1] * (len(frames) - 1)
    for number, frame in zip(numbers, frames, strict=True):
        np.testing.assert_array_equal(frame, pattern.frame(number, frame.shape, frame.dtype))

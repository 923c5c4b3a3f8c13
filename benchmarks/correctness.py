"""Which frames come back for which event: bluesky-tiled-plugins' TiledWriter and ours, into one stock Tiled server.

Run as ``python benchmarks/correctness.py``. The documents are those that plain ophyd and the RunEngine emit; the answer
is what the stock client reads for the arrays.
"""

import copy
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# The client would ask ten times for what the server cannot read; once is too few for a connection just timed out.
os.environ.setdefault("TILED_RETRY_ATTEMPTS", "3")

import event_model
import h5py
import numpy as np
import tifffile

SHAPE = (4, 6)
Documents = list[tuple[str, Any]]
Expected = dict[str, list[int]]
FRAMES = (np.arange(24).reshape(SHAPE) + 300 * np.arange(10)[:, None, None]).astype("<u2")
"""No two frames of a case are alike."""


class Story:
    """A run with one camera, and the frames that its events took."""

    def __init__(self, directory: Path, dtype: str = "<u2") -> None:
        self.directory, self.dtype = directory, dtype
        self.run = event_model.compose_run()
        self.documents: Documents = [("start", self.run.start_doc)]
        self.expected: Expected = {}
        self.streams: dict[str, Any] = {}
        self.announced: set[str] = set()

    def file(self, name: str, frames: Iterable[int]) -> Any:
        """A resource in one HDF5 file with these frames."""
        with h5py.File(self.directory / f"{name}.h5", "w") as file:
            file["/entry/data/data"] = FRAMES[list(frames)]
        return self._resource("AD_HDF5", f"{self.directory.name}/{name}.h5", {"frame_per_point": 1})

    def series(self, spec: str, suffix: str, frames: Iterable[int]) -> Any:
        """A resource in a series of files, each with one of these frames."""
        for number, frame in enumerate(frames):
            path = self.directory / f"cam_{number:06d}.{suffix}"
            if suffix == "tiff":
                tifffile.imwrite(path, FRAMES[frame])
            else:
                with h5py.File(path, "w") as file:
                    file["/entry/data/data"] = FRAMES[frame][None]
        kwargs = {"template": f"%s%s_%6.6d.{suffix}", "filename": "cam", "frame_per_point": 1}
        return self._resource(spec, self.directory.name, kwargs)

    def _resource(self, spec: str, path: str, kwargs: dict[str, Any]) -> Any:
        return self.run.compose_resource(
            spec=spec, root=str(self.directory.parent), resource_path=path, resource_kwargs=kwargs
        )

    def event(
        self,
        resource: Any,
        point: int,
        frame: int,
        stream: str = "primary",
        seq_num: int | None = None,
        late: bool = False,
    ) -> None:
        """An event whose datum is a point of a resource, where the frame is."""
        if stream not in self.streams:
            key = {"source": "cam", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": self.dtype}
            bundle = self.run.compose_descriptor(
                name=stream, data_keys={"cam_image": {**key, "external": "FILESTORE:"}}
            )
            self.streams[stream] = bundle
            self.documents.append(("descriptor", bundle.descriptor_doc))
        if resource.resource_doc["uid"] not in self.announced:
            self.announced.add(resource.resource_doc["uid"])
            self.documents.append(("resource", resource.resource_doc))
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        event = self.streams[stream].compose_event(
            data={"cam_image": datum["datum_id"]},
            timestamps={"cam_image": 1.0},
            filled={"cam_image": False},
            **({} if seq_num is None else {"seq_num": seq_num}),
        )
        pairs = [("datum", datum), ("event", event)]
        self.documents += pairs[::-1] if late else pairs
        self.expected.setdefault(stream, []).append(frame)

    def stop(self) -> "Story":
        """The end of the run."""
        self.documents.append(("stop", self.run.compose_stop()))
        return self


def interleaved(directory: Path) -> Story:
    """Light, dark, light, dark in one HDF5 file."""
    story = Story(directory)
    resource = story.file("both", range(4))
    for point in range(4):
        story.event(resource, point, point, ("light", "dark")[point % 2])
    return story.stop()


def one_resource(directory: Path) -> Story:
    """Dark, then primary, on one HDF5 resource."""
    story = Story(directory)
    resource = story.file("both", range(5))
    for point in range(5):
        story.event(resource, point, point, "dark" if point < 2 else "primary")
    return story.stop()


def staged_again(directory: Path) -> Story:
    """A detector staged twice in one run."""
    story = Story(directory)
    for staging in (0, 1):
        resource = story.file(f"staging_{staging}", range(2 * staging, 2 * staging + 2))
        for point in range(2):
            story.event(resource, point, 2 * staging + point)
    return story.stop()


def rewound(directory: Path) -> Story:
    """A scan that was paused and rewound."""
    story = Story(directory)
    resource = story.file("all", range(5))
    for point, seq_num in enumerate([1, 2, 2, 3, 4]):
        story.event(resource, point, point, seq_num=seq_num)
    return story.stop()


def thrown_away(directory: Path) -> Story:
    """Paused between trigger and save: a frame without an event."""
    story = Story(directory)
    resource = story.file("all", range(5))
    for point in (0, 1, 3, 4):
        story.event(resource, point, point)
    return story.stop()


def cut_short(directory: Path) -> Story:
    """A run cut short by one frame."""
    story = Story(directory)
    resource = story.file("short", range(3))
    for point in range(4):
        story.event(resource, point, point)
    return story.stop()


def wrong_dtype(directory: Path) -> Story:
    """16 bits in the files, 8 in the descriptor."""
    story = Story(directory, dtype="|u1")
    resource = story.file("wide", range(3))
    for point in range(3):
        story.event(resource, point, point)
    return story.stop()


def tiff_series(directory: Path) -> Story:
    """TIFF series as plain ophyd documents it."""
    return _series(directory, "AD_TIFF", "tiff")


def hdf5_series(directory: Path) -> Story:
    """HDF5 files of one frame, as plain ophyd documents them."""
    return _series(directory, "AD_HDF5_SINGLE", "h5")


def _series(directory: Path, spec: str, suffix: str) -> Story:
    story = Story(directory)
    resource = story.series(spec, suffix, range(3))
    for point in range(3):
        story.event(resource, point, point)
    return story.stop()


def late_datum(directory: Path) -> Story:
    """A datum that comes after its event."""
    story = Story(directory)
    resource = story.file("late", range(3))
    for point in range(3):
        story.event(resource, point, point, late=True)
    return story.stop()


CASES: tuple[Callable[[Path], Story], ...] = (
    interleaved, one_resource, staged_again, rewound, thrown_away, cut_short, wrong_dtype, tiff_series, hdf5_series,
    late_datum,
)  # fmt: skip


def answer(client: Any, story: Story, failure: str) -> tuple[str, bool]:
    """What the stock client reads for a case, in words, and whether that is right or said not to be."""
    try:
        run = client[story.run.start_doc["uid"]]
    except KeyError:
        return f"no run: {failure}", False
    words, good = [f"run ended by {failure}"] if failure else [], not failure
    for stream, frames in story.expected.items():
        text, is_good = _array_answer(run, stream, FRAMES[frames], frames)
        words.append(text if len(story.expected) == 1 else f"{stream} {text}")
        good = good and is_good
    return "; ".join(words), good


def _array_answer(run: Any, stream: str, expected: np.ndarray, frames: list[int]) -> tuple[str, bool]:
    said = run.metadata.get("filestore", {})
    if stream not in run or "cam_image" not in run[stream]:
        reason = said.get("refused", {}).get(stream, {}).get("cam_image")
        return ("not registered, with the reason", True) if reason else ("not registered, without a word", False)
    try:
        array = run[stream]["cam_image"].read().reshape(-1, *SHAPE)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is the answer
        code = getattr(getattr(error, "response", None), "status_code", "")
        return f"cannot be read ({code or type(error).__name__})", False
    if array.shape == expected.shape and np.array_equal(array, expected):
        return f"{frames} right", True
    named = said.get("missing", {}).get(stream, {}).get("cam_image")
    if named and np.array_equal(array, expected[: len(array)]):
        return f"{frames[: len(array)]} right, event {named['events']} named as missing", True
    found = [next((n for n, one in enumerate(FRAMES) if np.array_equal(one, frame)), "?") for frame in array]
    return f"{found} WRONG for {frames}", False


def fed(make: Callable[[], Any], documents: Documents) -> str:
    """Give a writer its own copies of documents; the words of what it raised."""
    writer = make()
    try:
        for name, doc in documents:
            writer(name, copy.deepcopy(doc))
    except Exception as error:  # noqa: BLE001 - what would end the plan
        return type(error).__name__
    finally:
        if hasattr(writer, "close"):
            writer.close()
    return ""


def main() -> int:
    """Print the table; fail if one of our answers is not right."""
    from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter
    from tiled.client import from_uri
    from tiled.server import SimpleTiledServer

    from bluesky_filestore import CatalogWriter

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    print(f"{'case':62} | {'TiledWriter':60} | ours")
    all_good, peers_good = True, 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        SimpleTiledServer(Path(scratch, "server"), readable_storage=[scratch]) as server,
    ):
        client = from_uri(server.uri)
        for number, case in enumerate(CASES):
            answers = []
            for who, make in enumerate((lambda: TiledWriter(client), lambda: CatalogWriter(client, settle=0.0))):
                directory = Path(scratch, f"case_{number}_{who}")
                directory.mkdir()
                story = case(directory)
                failure = fed(make, story.documents)
                answers.append(answer(client, story, failure))
            print(f"{case.__doc__:62} | {answers[0][0]:60} | {answers[1][0]}")
            peers_good += answers[0][1]
            all_good = all_good and answers[1][1]
        client.context.close()
    ours = "all" if all_good else "NOT all"
    print(f"right, or said not to be: TiledWriter {peers_good} of {len(CASES)}, ours {ours}")
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())

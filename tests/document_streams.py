"""Legal document streams together with the real files they speak of, and what a reader must get from them.

A case is a small plan: cameras of several kinds, streams that read some of them, stagings in which events of the
streams follow one another in any order, frames that were taken and thrown away, rewinds, datums that come late, pages,
and a file that lacks its last frames.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import event_model
import h5py
import numpy as np
import tifffile
from hypothesis import strategies as st

SHAPE = (4, 6)
Kind = Literal["AD_HDF5", "AD_TIFF", "AD_HDF5_SINGLE", "stream HDF5", "stream TIFF"]
KINDS: tuple[Kind, ...] = ("AD_HDF5", "AD_TIFF", "AD_HDF5_SINGLE", "stream HDF5", "stream TIFF")


@dataclass(frozen=True)
class Camera:
    """A detector with one file plugin."""

    key: str
    kind: Kind
    frames: int
    dtype: str


@dataclass(frozen=True)
class Step:
    """What happens next in a staging."""

    stream: str
    action: Literal["event", "thrown away", "late datum", "rewind"] = "event"


@dataclass(frozen=True)
class Case:
    """One run."""

    cameras: tuple[Camera, ...]
    streams: dict[str, tuple[int, ...]]
    stagings: tuple[tuple[Step, ...], ...]
    paged: bool = False
    frames_cut: int = 0
    stopped: bool = True
    varies: bool = False
    """Whether events have frames of varying number: from staging to staging, or in stream documents each."""


@dataclass
class Built:
    """The documents of a case, with what is to be read for them."""

    uid: str
    documents: list[tuple[str, Any]] = field(default_factory=list)
    rows: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    frames: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    places: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)


@st.composite
def cases(draw: st.DrawFn, varies: bool = False) -> Case:
    """Any small run."""
    cameras = tuple(
        Camera(f"cam{n}_image", draw(st.sampled_from(KINDS)), draw(st.integers(1, 3)), draw(dtypes))
        for n in range(draw(st.integers(1, 2)))
    )
    names = draw(st.sampled_from([("primary",), ("primary", "dark")]))
    indices = list(range(len(cameras)))
    streams = {name: tuple(draw(st.lists(st.sampled_from(indices), min_size=1, unique=True))) for name in names}
    actions = st.sampled_from(["event", "event", "event", "event", "thrown away", "late datum", "rewind"])
    steps = st.builds(Step, st.sampled_from(names), actions)
    stagings = tuple(
        tuple(draw(st.lists(steps, min_size=1, max_size=6))) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))
    )
    return Case(
        cameras,
        streams,
        stagings,
        paged=draw(st.booleans()),
        frames_cut=0 if varies else draw(st.sampled_from([0, 0, 0, 1, 4])),
        stopped=draw(st.sampled_from([True, True, True, False])),
        varies=varies,
    )


dtypes = st.sampled_from(["|u1", "<u2", "<i4", "<f4", "<f8"])


def frame(number: int, dtype: str) -> np.ndarray:
    """A frame that no other number (below 250) has."""
    return (np.arange(24).reshape(SHAPE) + number * 5 % 251).astype(dtype) % 251


class Builder:
    """Plays a case: composes documents as the RunEngine would emit them, and writes the files."""

    def __init__(self, case: Case, directory: Path) -> None:
        self.case, self.directory = case, directory
        self.run = event_model.compose_run(metadata={"plan_name": "case"})
        self.built = Built(self.run.start_doc["uid"])
        self.number = 0
        self.seq_nums: dict[str, int] = dict.fromkeys(case.streams, 1)
        self.descriptors: dict[str, Any] = {}
        self.late: list[tuple[str, Any]] = []
        self.spoken_of: set[tuple[str, int]] = set()
        self.late_numbers: set[tuple[str, int]] = set()

    def emit(self, name: str, doc: Any) -> None:
        self.built.documents.append((name, doc))

    def build(self) -> Built:
        """Play it all."""
        self.emit("start", self.run.start_doc)
        for staging, steps in enumerate(self.case.stagings):
            detectors = [Detector(self, camera, staging) for camera in self.case.cameras]
            for step in steps:
                self.take(step, detectors)
            last = staging == len(self.case.stagings) - 1
            for detector in detectors:
                detector.write(self.case.frames_cut if last and detector is detectors[0] else 0)
        self.built.documents += self.late
        if self.case.stopped:
            self.emit("stop", self.run.compose_stop())
        if self.case.paged:
            self.built.documents = list(paged(self.built.documents))
        return self.built

    def take(self, step: Step, detectors: list["Detector"]) -> None:
        """One step of a staging."""
        used = [detectors[index] for index in self.case.streams[step.stream]]
        if step.action == "rewind":
            # The RunEngine goes back to a checkpoint: the sequence number is used again, the frames are new ones.
            before = max(1, self.seq_nums[step.stream] - 1)
            # Left out: back to an event whose stream_datum is still to come. Nobody can tell whose the next one is.
            if (step.stream, before) not in self.late_numbers:
                self.seq_nums[step.stream] = before
            return
        if step.stream not in self.descriptors:
            self.descriptors[step.stream] = self.describe(step.stream, used)
        seq_num = self.seq_nums[step.stream]
        for detector in used:
            detector.trigger()
        documents = [pair for detector in used for pair in detector.documents(self.descriptors[step.stream], seq_num)]
        event = self.event(step.stream, used, seq_num, documents)
        number = (step.stream, seq_num)
        if step.action == "thrown away":
            # Paused between trigger and save: the datums were announced or not, the event never.
            self.built.documents += [pair for pair in documents if pair[0] != "datum"]
            self.spoken_of.add(number)
            return
        names: tuple[str, ...] = ("datum", "stream_datum")
        if number in self.spoken_of:
            # Left out: a stream_datum after its event, where another came before it: nobody can tell them apart.
            names = ("datum",)
        late = [pair for pair in documents if step.action == "late datum" and pair[0] in names]
        self.spoken_of.add(number)
        if any(name == "stream_datum" for name, _ in late):
            self.late_numbers.add(number)
        self.built.documents += [pair for pair in documents if pair not in late]
        self.emit("event", event)
        if seq_num % 2:
            self.built.documents += late
        else:
            self.late += late
        self.seq_nums[step.stream] += 1
        self.built.rows[step.stream].append((seq_num, event["data"]["motor"]))
        for detector in used:
            name = (step.stream, detector.camera.key)
            self.built.frames[name].append(detector.frames[-1])
            self.built.places[name].append((detector.name, len(detector.frames) - 1))

    def describe(self, stream: str, used: list["Detector"]) -> Any:
        """The descriptor of a stream, emitted at its first event."""
        data_keys: dict[str, Any] = {"motor": {"source": "sim", "dtype": "number", "shape": [], "dtype_numpy": "<f8"}}
        for detector in used:
            camera = detector.camera
            data_keys[camera.key] = {
                "source": "sim",
                "dtype": "array",
                "shape": [None if self.case.varies else camera.frames, *SHAPE],
                "dtype_numpy": camera.dtype,
                "external": "STREAM:" if camera.kind.startswith("stream") else "FILESTORE:",
            }
        bundle = self.run.compose_descriptor(name=stream, data_keys=data_keys)
        self.emit("descriptor", bundle.descriptor_doc)
        return bundle

    def event(self, stream: str, used: list["Detector"], seq_num: int, documents: list[tuple[str, Any]]) -> Any:
        """The event that names the datums."""
        datums = iter([doc["datum_id"] for name, doc in documents if name == "datum"])
        data: dict[str, Any] = {"motor": float(self.number)}
        data |= {one.camera.key: next(datums) for one in used if not one.camera.kind.startswith("stream")}
        return self.descriptors[stream].compose_event(
            data=data,
            timestamps=dict.fromkeys(data, 1.0),
            filled={key: False for key in data if key != "motor"},
            seq_num=seq_num,
        )


class Detector:
    """A camera, staged: one resource."""

    def __init__(self, builder: Builder, camera: Camera, staging: int) -> None:
        self.builder, self.camera, self.staging = builder, camera, staging
        self.name = f"{camera.key}_{staging}"
        self.frames: list[np.ndarray] = []
        self.announced = False
        run, directory = builder.run, builder.directory
        series = {"template": "%s%s_%6.6d." + ("tiff" if "TIFF" in camera.kind else "h5"), "filename": self.name}
        per_point = {"frame_per_point": self.count()}
        if camera.kind.startswith("stream"):
            tiff = camera.kind == "stream TIFF"
            self.resource = run.compose_stream_resource(
                mimetype="multipart/related;type=image/tiff" if tiff else "application/x-hdf5",
                uri=f"file://localhost{directory}/" + ("" if tiff else f"{self.name}.h5"),
                data_key=camera.key,
                parameters={"chunk_shape": (1, *SHAPE)}
                | ({"template": self.name + "_{:06d}.tiff"} if tiff else {"dataset": "/entry/data/data"}),
            )
        else:
            whole = camera.kind == "AD_HDF5"
            self.resource = run.compose_resource(
                spec=camera.kind,
                root=str(directory.parent),
                resource_path=directory.name + (f"/{self.name}.h5" if whole else ""),
                resource_kwargs=per_point if whole else series | per_point,
            )

    def count(self) -> int:
        """How many frames the next point has."""
        if not self.builder.case.varies:
            return self.camera.frames
        changes = len(self.frames) if self.camera.kind.startswith("stream") else self.staging
        return 1 + (self.camera.frames + changes) % 3

    def trigger(self) -> None:
        """Take the frames of one point."""
        first, self.builder.number = self.builder.number, self.builder.number + self.count()
        self.frames.append(np.stack([frame(n, self.camera.dtype) for n in range(first, self.builder.number)]))

    def documents(self, descriptor: Any, seq_num: int) -> list[tuple[str, Any]]:
        """What collect_asset_docs would give after the trigger."""
        index = len(self.frames) - 1
        if self.camera.kind.startswith("stream"):
            doc = self.resource.compose_stream_datum(
                event_model.StreamRange(start=index, stop=index + 1),
                event_model.StreamRange(start=seq_num, stop=seq_num + 1),
                descriptor.descriptor_doc,
            )
            if self.builder.case.varies:
                before = sum(map(len, self.frames[:-1]))
                doc["indices"] = {"start": before, "stop": before + len(self.frames[-1])}
            announced = ("stream_resource", self.resource.stream_resource_doc), ("stream_datum", doc)
        else:
            doc = self.resource.compose_datum({"point_number": index})
            announced = ("resource", self.resource.resource_doc), ("datum", doc)
        first, self.announced = not self.announced, True
        return list(announced if first else announced[1:])

    def write(self, frames_cut: int) -> None:
        """Write the files, less some frames at the end."""
        if not self.frames:
            return
        frames = np.concatenate(self.frames)
        frames = frames[: max(1, len(frames) - frames_cut)]
        self.builder.built.counts[self.name] = len(frames) // self.camera.frames
        if self.camera.kind in ("AD_HDF5", "stream HDF5"):
            write_hdf5(self.builder.directory / f"{self.name}.h5", frames)
        for number, one in enumerate(frames):
            if "TIFF" in self.camera.kind:
                tifffile.imwrite(self.builder.directory / f"{self.name}_{number:06d}.tiff", one)
            elif self.camera.kind == "AD_HDF5_SINGLE":
                write_hdf5(self.builder.directory / f"{self.name}_{number:06d}.h5", one)


def write_hdf5(path: Path, data: np.ndarray) -> None:
    """A file laid out as areaDetector's."""
    with h5py.File(path, "w") as file:
        file.create_dataset("/entry/data/data", data=data, chunks=(1, *SHAPE) if data.ndim == 3 else None)


def paged(documents: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The same documents with neighbours packed into pages, as collect and databroker's exports do."""
    groups: list[tuple[str, Any, list[Any]]] = []
    for name, doc in documents:
        owner = doc.get("descriptor") if name == "event" else doc.get("resource") if name == "datum" else None
        if owner is not None and groups and groups[-1][:2] == (name, owner):
            groups[-1][2].append(doc)
        else:
            groups.append((name, owner, [doc]))
    for name, _, docs in groups:
        if name == "event":
            yield "event_page", event_model.pack_event_page(*docs)
        elif name == "datum":
            yield "datum_page", event_model.pack_datum_page(*docs)
        else:
            yield name, docs[0]


def build(case: Case, directory: Path) -> Built:
    """The documents and files of a case."""
    directory.mkdir(parents=True)
    return Builder(case, directory).build()


def complete_rows(built: Built, stream: str, key: str) -> int:
    """How many rows from the first on have all their frames on disk."""
    places = built.places[stream, key]
    return next((row for row, (name, index) in enumerate(places) if index >= built.counts[name]), len(places))


def expressible(built: Built, camera: Camera, stream: str) -> bool:
    """Whether a stock adapter can address just these rows: any files, but of HDF5 one slice of all files in a row."""
    if camera.kind not in ("AD_HDF5", "stream HDF5"):
        return True
    places = built.places[stream, camera.key]
    files = list(dict.fromkeys(name for name, _ in places))
    before = dict(zip(files, np.cumsum([0, *(built.counts[name] for name in files)]).tolist(), strict=False))
    positions = [before[name] + index for name, index in places]
    steps = set(np.diff(positions).tolist())
    return not steps or steps == {1} or (len(steps) == 1 and steps.pop() > 0 and camera.frames == 1)

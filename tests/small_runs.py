"""Small runs with all that goes to a catalog in different ways, and whether a catalog has them just as they were."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np

from bluesky_filestore import documents

SHAPE = (3, 4)
COUNT = {"source": "s", "dtype": "integer", "shape": []}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}
WAVE = {"source": "s", "dtype": "array", "shape": [3]}
PAIR = {"source": "s", "dtype": "array", "shape": [2]}


@dataclass
class SmallRun:
    """The documents of a run with a count that becomes a fraction, small arrays, and images in a file."""

    directory: Path
    """Where the file is."""
    number: int
    """Which run it is; its values tell."""
    events: int = 12
    """How many."""
    documents: list[tuple[str, Any]] = field(default_factory=list)
    """In their order."""

    def __post_init__(self) -> None:
        name = f"small {self.number}.h5"
        with h5py.File(self.directory / name, "w") as file:
            file["/entry/data/data"] = self.images
        run = event_model.compose_run(metadata={"number": self.number})
        data_keys = {"x": COUNT, "wave": WAVE, "pair": PAIR, "image": IMAGE}
        bundle = run.compose_descriptor(name="primary", data_keys=data_keys)
        resource = run.compose_resource(
            spec="AD_HDF5", root=str(self.directory), resource_path=name, resource_kwargs={"frame_per_point": 1}
        )
        self.uid = run.start_doc["uid"]
        self.documents += [
            ("start", run.start_doc),
            ("descriptor", bundle.descriptor_doc),
            ("resource", resource.resource_doc),
        ]
        for point in range(self.events):
            datum = resource.compose_datum(datum_kwargs={"point_number": point})
            inline = {"x": self.x[point], "wave": self.waves[point], "pair": self.pairs[point]}
            data = {**inline, "image": datum["datum_id"]}
            event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
            self.documents += [("datum", datum), ("event", event)]
        self.documents.append(("stop", run.compose_stop()))

    @property
    def x(self) -> list[float]:
        """The numbers: whole ones at first, so that the column changes its type."""
        return [point if point < self.events // 2 else point / 4 for point in range(self.events)]

    @property
    def waves(self) -> list[list[float]]:
        """The small arrays."""
        return [[self.number, point, 7.5] for point in range(self.events)]

    @property
    def pairs(self) -> list[list[float]]:
        """Arrays of which a later one is of another type: how they are written depends on which come together."""
        return [[point, 7 if point < self.events // 3 else 7.5] for point in range(self.events)]

    @property
    def images(self) -> np.ndarray:
        """What is in the file."""
        return (np.arange(self.events * 12).reshape(self.events, *SHAPE) + 7 * self.number).astype("<u2")

    def compare(self, client: Any) -> None:
        """Assert that a catalog has each document once, in its order, and arrays that are the files'."""
        run = client[self.uid]
        assert list(plain(documents(run))) == list(plain(self.documents)), f"run {self.number}"
        # The special client of a stream asks for much more than that.
        stream = run["primary"].base
        assert len(stream["internal"].read(["seq_num"])) == self.events
        assert stream["wave"].read().tolist() == self.waves
        np.testing.assert_array_equal(stream["image"].read()[:, 0], self.images)
        assert [note for note in run.metadata["notes"] if "The array 'pair'" not in note] == []


def image_documents(path: Path, spec: str = "AD_HDF5", **datum_kwargs: Any) -> list[tuple[str, Any]]:
    """The documents of a run of one event whose only value is an image in a file."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    resource = run.compose_resource(spec=spec, root=str(path.parent), resource_path=path.name, resource_kwargs={})
    datum = resource.compose_datum(datum_kwargs=datum_kwargs or {"point_number": 0})
    event = bundle.compose_event(data={"image": datum["datum_id"]}, timestamps={"image": 5.0}, filled={"image": False})
    return [
        ("start", run.start_doc),
        ("descriptor", bundle.descriptor_doc),
        ("resource", resource.resource_doc),
        ("datum", datum),
        ("event", event),
        ("stop", run.compose_stop()),
    ]


def plain(pairs: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    """The same, with pages as singles and whatever came as a tuple or array as a list."""
    for name, doc in pairs:
        yield name, _listed(doc)


def _listed(value: Any) -> Any:
    match value:
        case dict():
            return {key: _listed(item) for key, item in value.items()}
        case list() | tuple():
            return [_listed(item) for item in value]
        case np.ndarray():
            return value.tolist()
    return value


def ordered_documents(
    places: Iterable[tuple[Path, int]], image: Any, spec: str = "AD_HDF5", **metadata: Any
) -> list[tuple[str, Any]]:
    """The documents of a scan whose events have, in their order, these frames of these HDF5 files."""
    run = event_model.compose_run(metadata={"hints": {"dimensions": [[["x"], "primary"]]}, **metadata})
    x = {"source": "s", "dtype": "number", "shape": [], "units": "mm", "precision": 3}
    hints = {"x": {"fields": ["x"]}, "image": {"fields": ["image_sum"]}}
    keys = {"x": x, "image_sum": {**x, "units": "counts"}, "image": {**IMAGE, "units": "counts", **image}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, hints=hints)
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    resources: dict[Path, Any] = {}
    for row, (path, number) in enumerate(places):
        if path not in resources:
            resources[path] = run.compose_resource(
                spec=spec, root=str(path.parent), resource_path=path.name, resource_kwargs={"frame_per_point": 1}
            )
            documents.append(("resource", resources[path].resource_doc))
        datum = resources[path].compose_datum(datum_kwargs={"point_number": number})
        data = {"x": row / 4, "image_sum": float(number), "image": datum["datum_id"]}
        event = bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
        documents += [("datum", datum), ("event", event)]
    return [*documents, ("stop", run.compose_stop())]

"""Runs for simulated plans: small ones, with all that goes to a catalog in different ways."""

import random
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np

FRAMES, SHAPE, FILES = 9, (2, 3), 3
COUNT = {"source": "s", "dtype": "integer", "shape": []}
WAVE = {"source": "s", "dtype": "array", "shape": [3]}
IMAGE = {"source": "s", "dtype": "array", "shape": [1, *SHAPE], "dtype_numpy": "<u2", "external": "FILESTORE:"}


class Nameless:
    """What has no words for itself."""

    def __repr__(self) -> str:
        raise ValueError("no words")


ODD = (1 + 2j, np.longdouble(1.5), np.ma.masked, {("a", 1): 2}, Nameless(), 2**70, {1: {2: b"x"}}, float("nan"))
"""Values that no catalog holds just so; of what becomes of them other tests tell."""


def frames(number: int) -> np.ndarray:
    """What is in a file."""
    return (np.arange(FRAMES * 6).reshape(FRAMES, *SHAPE) + 1000 * number).astype("<u2")


def make_files(directory: Path) -> None:
    """The files that the documents of all runs refer to."""
    for number in range(FILES):
        with h5py.File(directory / f"{number}.h5", "w") as file:
            file["/entry/data/data"] = frames(number)


@dataclass
class Planned:
    """What a plan will give: the documents of a run, and which frames belong to its events."""

    uid: str
    documents: list[tuple[str, Any]] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    """The frame of each event; none of a run without images."""


def planned_run(chance: random.Random, files: Path, events: int) -> Planned:
    """A run whose values may change their types when they please."""

    def uid() -> str:
        return str(uuid.UUID(int=chance.getrandbits(128)))

    odd = {"odd": chance.choice(ODD)} if chance.random() < 0.2 else {}
    run = event_model.compose_run(uid=uid(), time=5.0, metadata=odd, validate=False)
    keys: dict[str, Any] = {"x": COUNT}
    keys |= {"wave": WAVE} if chance.random() < 0.5 else {}
    keys |= {"image": IMAGE} if chance.random() < 0.4 else {}
    bundle = run.compose_descriptor(name="primary", data_keys=keys, time=5.0, uid=uid(), validate=False)
    planned = Planned(run.start_doc["uid"], [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)])
    turns = {key: chance.choice((0, events // 2, events)) for key in keys}
    resource, file = None, chance.randrange(FILES)
    order = sorted(chance.sample(range(FRAMES), events)) if chance.random() < 0.5 else list(range(events))
    for point in range(events):
        values: dict[str, Any] = {
            "x": point if point < turns["x"] else point / 4,
            "wave": [point, 5, 7] if point < turns.get("wave", 0) else [point, 5, 7.5],
        }
        data = {key: values[key] for key in keys if key in values}
        if "image" in keys:
            if resource is None:
                kwargs = {"frame_per_point": 1}
                about = {
                    "spec": "AD_HDF5",
                    "root": str(files),
                    "resource_path": f"{file}.h5",
                    "resource_kwargs": kwargs,
                }
                resource = run.compose_resource(**about, uid=uid(), validate=False)
                planned.documents.append(("resource", resource.resource_doc))
            datum = resource.compose_datum(datum_kwargs={"point_number": order[point]}, validate=False)
            planned.documents.append(("datum", datum))
            planned.images.append(frames(file)[order[point]])
            data["image"] = datum["datum_id"]
        about = {"timestamps": dict.fromkeys(data, 5.0), "filled": {"image": False} if "image" in data else {}}
        planned.documents.append(
            ("event", bundle.compose_event(data=data, uid=uid(), time=5.0 + point, validate=False, **about))
        )
    planned.documents.append(("stop", run.compose_stop(uid=uid(), time=50.0, validate=False)))
    return planned

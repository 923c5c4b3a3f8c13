"""Runs for simulated plans: small ones, with all that goes to a catalog in different ways."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np

FRAMES, SHAPE, FILES = 9, (2, 3), 3
SHORT = 2
"""How many frames are in the file that has too few."""
UNREADABLE = ("empty", "text", "cut", "folder", "absent", "scalar")
BAD = (*UNREADABLE, "short", "row")
"""Files that are not as they are told of: of some no frame can be read, of one all are refused for their shape."""
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
        holds: dict[str, Any] = {"": frames(number), "short ": frames(number)[:SHORT]}
        holds |= {"scalar ": np.uint16(5), "row ": np.arange(FRAMES)}
        for name, values in holds.items():
            with h5py.File(directory / f"{name}{number}.h5", "w") as file:
                file["/entry/data/data"] = values
        whole = (directory / f"{number}.h5").read_bytes()
        for name, content in {"empty": b"", "text": b"not HDF5", "cut": whole[: len(whole) // 2]}.items():
            (directory / f"{name} {number}.h5").write_bytes(content)
        (directory / f"folder {number}.h5").mkdir()


@dataclass
class Planned:
    """What a plan will give: the documents of a run, and which frames belong to its events."""

    uid: str
    documents: list[tuple[str, Any]] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    """The frame of each event; none of a run without images."""
    file: Path | None = None
    """Where they are."""
    number: int = 0
    """Which of the files that is, or is to come there."""
    comes_at: float = 0.0
    """When it is there, if it comes late."""

    @property
    def is_bad(self) -> bool:
        """Whether its images cannot be read, or not all of them."""
        return self.file is not None and self.file.name.startswith(BAD)

    @property
    def is_unreadable(self) -> bool:
        """Whether none of its images can be read, which may yet change."""
        return self.file is not None and self.file.name.startswith(UNREADABLE)


def planned_run(chance: random.Random, place: Callable[[int], Path], events: int) -> Planned:
    """A run whose values may change their types when they please; its images are in a numbered file at a place."""

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
    resource, planned.number = None, chance.randrange(FILES)
    order = sorted(chance.sample(range(FRAMES), events)) if chance.random() < 0.5 else list(range(events))
    for point in range(events):
        values: dict[str, Any] = {
            "x": point if point < turns["x"] else point / 4,
            "wave": [point, 5, 7] if point < turns.get("wave", 0) else [point, 5, 7.5],
        }
        data = {key: values[key] for key in keys if key in values}
        if "image" in keys:
            if resource is None:
                planned.file = place(planned.number)
                about = {
                    "spec": "AD_HDF5",
                    "root": str(planned.file.parent),
                    "resource_path": planned.file.name,
                    "resource_kwargs": {"frame_per_point": 1},
                }
                resource = run.compose_resource(**about, uid=uid(), validate=False)
                planned.documents.append(("resource", resource.resource_doc))
            datum = resource.compose_datum(datum_kwargs={"point_number": order[point]}, validate=False)
            planned.documents.append(("datum", datum))
            planned.images.append(frames(planned.number)[order[point]])
            data["image"] = datum["datum_id"]
        about = {"timestamps": dict.fromkeys(data, 5.0), "filled": {"image": False} if "image" in data else {}}
        planned.documents.append(
            ("event", bundle.compose_event(data=data, uid=uid(), time=5.0 + point, validate=False, **about))
        )
    planned.documents.append(("stop", run.compose_stop(uid=uid(), time=50.0, validate=False)))
    return planned

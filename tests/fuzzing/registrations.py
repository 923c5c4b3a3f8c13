"""What is registered with a server, changed: structure, parameters, properties and assets of data sources."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
from fastapi import HTTPException
from tiled.server.schemas import DataSource
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.ragged import RaggedStructure

from bluesky_filestore.errors import FileStoreError
from bluesky_filestore.files.hdf5 import shared_files
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.addressing import HANDLED
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.serving.adapters import adapters

from . import values
from .files import FRAMES, FileTarget, HTTPStatusError
from .files import targets as file_targets

_STRUCTURES = {"array": pydantic.TypeAdapter(ArrayStructure), "ragged": pydantic.TypeAdapter(RaggedStructure)}


class RefusedByTiledError(FileStoreError):
    """What never comes to an adapter of ours."""


@dataclass
class RegistrationTarget:
    """Good registrations of each mimetype, as they are posted."""

    name: str
    posted: list[Any] = field(default_factory=list)
    bears: frozenset[str] = frozenset()

    def prepare(self, directory: Path) -> None:
        self.directory = directory
        for number, target in enumerate(file_targets()):
            if isinstance(target, FileTarget) and target.name.startswith("served") and "hdf5 raw" not in target.name:
                there = directory / f"{number}"
                there.mkdir()
                names = sorted(target.make(there))
                self.posted.append(_posted(target.mimetype, target.parameters, target.paths(there, names)))
        rows = next(each for each in self.posted if each["mimetype"].endswith("-hdf5"))
        kwargs = {"spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}}
        datums = [{"point_number": number} for number in range(len(FRAMES))]
        path = rows["assets"][0]["data_uri"]
        self.posted.append({**rows, "mimetype": HANDLED, "parameters": {**kwargs, "datum_kwargs": datums}})
        part = {"shape": [4, 4, 6], "dtype": "<u2", "assets": [0], "properties": {}}
        part |= {"mimetype": rows["mimetype"], "parameters": rows["parameters"]}
        ragged = {"parts": [part], "order": [[0, 4]]}
        data_type = asdict(BuiltinDtype.from_numpy_dtype(FRAMES.dtype))
        structure = {"data_type": data_type, "shape": [4, None, 6], "size": FRAMES.size, "dims": None}
        structure["chunks"] = [[4], None, [6]]
        self.posted.append({**rows, "mimetype": RAGGED, "parameters": ragged, "structure": structure})
        self.posted[-1] |= {"structure_family": "ragged", "assets": [_asset(path, 0)]}
        for posted in self.posted:
            self.attempt(posted, directory)
        shared_files().close()

    def case(self, rng: random.Random, number: int) -> Any:
        posted = dict(rng.choice(self.posted))
        part = rng.choice(("structure", "parameters", "parameters", "properties", "assets", "mimetype"))
        if part == "mimetype":
            posted["mimetype"] = rng.choice(self.posted)["mimetype"]
        elif part == "properties":
            posted["properties"] = rng.choice((_stamps(rng), {"chunks": [[4], [4], [6]]}, {"parts": [{}]}))
            posted["properties"] = values.changed(rng, posted["properties"], is_json=True)
        else:
            posted[part] = values.changed(rng, posted[part], is_json=True)
        return posted

    def attempt(self, case: Any, directory: Path) -> str | None:
        try:
            source = DataSource[Any](**case)
            posted = _STRUCTURES[case["structure_family"]].validate_python(case["structure"])
            # As it comes out of the catalog's database.
            source.structure = made = type(posted).from_json(json.loads(json.dumps(asdict(posted))))
            made.data_type.to_numpy_dtype()
        except Exception as error:
            raise RefusedByTiledError(str(error)) from error
        node = SimpleNamespace(metadata_={}, specs=[])
        maker = adapters(Roots.of([self.directory])).get(source.mimetype)
        if maker is None:
            raise RefusedByTiledError("no adapter")
        try:
            adapter = maker.from_catalog(source, node, **source.parameters)
            adapter.read((0,))
        except HTTPException as error:
            if not 400 <= error.status_code < 500:
                raise
            raise HTTPStatusError(str(error.detail)) from error
        except (IndexError, NotImplementedError) as error:
            # The server answers with 4xx: the array has no such row, or Tiled's adapter no such way.
            raise HTTPStatusError(str(error)) from error
        finally:
            shared_files().close()
        return None


def _posted(mimetype: str, parameters: Mapping[str, Any], paths: list[str]) -> dict[str, Any]:
    structure = {
        "data_type": asdict(BuiltinDtype.from_numpy_dtype(FRAMES.dtype)),
        "shape": list(FRAMES.shape),
        "chunks": [[size] for size in FRAMES.shape],
        "dims": None,
    }
    structure["data_type"]["endianness"] = "little"
    return {
        "structure_family": "array",
        "structure": structure,
        "mimetype": mimetype,
        "parameters": dict(parameters),
        "properties": {},
        "management": "external",
        "assets": [_asset(f"file://localhost{path}", number) for number, path in enumerate(paths)],
    }


def _asset(uri: str, number: int) -> dict[str, Any]:
    return {"data_uri": uri, "is_directory": False, "parameter": "data_uris", "num": number}


def _stamps(rng: random.Random) -> dict[str, Any]:
    said = {
        "files": [0],
        "sizes": [5],
        "times": [7],
        "samples": [["a", "b"]],
        "frames": [[0]],
        "lengths": [rng.randrange(9)],
    }
    return {"as_registered": said}


def targets() -> list[RegistrationTarget]:
    """All mimetypes in one."""
    return [RegistrationTarget("registrations")]

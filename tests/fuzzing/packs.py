"""Packs of which bytes, names or words were changed: looked through, their documents and manifests read."""

import io
import json
import random
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from bluesky_filestore import open_pack, pack
from bluesky_filestore.model.manifest import Manifest
from tests.small_runs import image_documents

from . import values
from .files import FRAMES
from .mutations import Original, changed

_TEXTS = (".json", ".jsonl")


@dataclass
class PackTarget:
    """A pack of one run, as a folder, a tar or a zip."""

    kind: str
    members: dict[str, bytes] = field(default_factory=dict)
    bears: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """By its kind."""
        return f"pack {self.kind}"

    def prepare(self, directory: Path) -> None:
        path = directory / "a.h5"
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = FRAMES[:1]
        folder = pack(image_documents(path), to=directory / "good").path
        there = sorted(each for each in folder.rglob("*") if each.is_file())
        self.members = {str(each.relative_to(folder)): each.read_bytes() for each in there}

    def case(self, rng: random.Random, number: int) -> tuple[dict[str, bytes], bytes]:
        members = dict(self.members)
        if self.kind == "folder" or rng.random() < 0.5:
            name = rng.choice([name for name in members if name.endswith(_TEXTS)])
            members[name] = _changed_text(rng, name, members[name])
        if rng.random() < 0.2:
            old = rng.choice(sorted(members))
            members[rng.choice(("../out", "/out", f"{old}/x", "files/.", "x" * 300, "a\x00b", "pack.json"))] = members[
                old
            ]
        made = self._as_file(members)
        if made and rng.random() < 0.7:
            # The headers of a tar, the list of a zip.
            heads = list(range(0, len(made), 512)) if self.kind == "tar" else range(len(made) - 900, len(made))
            fields = [at + more for at in heads for more in (0, 100, 124, 148, 156, 257, 345)]
            made = bytes(changed(rng, Original(made, [], fields=[at for at in fields if 0 <= at < len(made)])).data)
        return members, made

    def _as_file(self, members: dict[str, bytes]) -> bytes:
        file = io.BytesIO()
        if self.kind == "tar":
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name, data in members.items():
                    info = tarfile.TarInfo(name)
                    info.size, info.pax_headers = len(data), {"mtime": "1.5"}
                    tar.addfile(info, io.BytesIO(data))
        elif self.kind == "zip":
            with zipfile.ZipFile(file, "w") as archive:
                for name, data in members.items():
                    archive.writestr(zipfile.ZipInfo(name.partition("\0")[0]), data)
        return file.getvalue()

    def attempt(self, case: tuple[dict[str, bytes], bytes], directory: Path) -> str | None:
        members, made = case
        path = directory / f"p.{self.kind}"
        if made:
            path.write_bytes(made)
        else:
            path = _as_folder(directory / "p", members)
        with open_pack(path) as opened:
            for run in opened.values():
                try:
                    list(run)
                finally:
                    for file in run.manifest().entries:
                        opened.member_of(file.path)
        return None


def _as_folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        try:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        except (OSError, ValueError):
            # No file can be called so.
            continue
    return path


def _changed_text(rng: random.Random, name: str, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return bytes(changed(rng, Original(data, [])).data)
    lines = data.decode().splitlines() if name.endswith(".jsonl") else [data.decode()]
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(values.changed(rng, json.loads(lines[at]), is_json=True))
    return "\n".join(lines).encode(errors="surrogatepass")


@dataclass
class ManifestTarget:
    """What a manifest says, in each of its forms."""

    name: str = "manifests"
    said: list[Any] = field(default_factory=list)
    bears: frozenset[str] = frozenset()

    def prepare(self, directory: Path) -> None:
        target = PackTarget("folder")
        target.prepare(directory)
        (name,) = (name for name in target.members if name.endswith("manifest.json"))
        manifest = Manifest.from_json(target.members[name])
        self.said = [manifest.to_json(), manifest.to_columns()]

    def case(self, rng: random.Random, number: int) -> tuple[int, Any]:
        form = rng.randrange(2)
        return form, values.changed(rng, self.said[form], is_json=True)

    def attempt(self, case: tuple[int, Any], directory: Path) -> str | None:
        form, said = case
        manifest = Manifest.from_columns("uid", said) if form else Manifest.from_json(said)
        if not all(isinstance(entry.path, str) for entry in manifest.entries):
            raise TypeError("a path is no text")
        manifest.to_json(), manifest.to_columns()
        return None


def targets() -> list[Any]:
    """Packs of each kind, and manifests."""
    return [PackTarget("folder"), PackTarget("tar"), PackTarget("zip"), ManifestTarget()]

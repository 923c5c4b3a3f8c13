"""Packs of strangers: nothing leads out of one, nothing in it is run or believed, what is refused leaves no trace."""

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_runs import image_documents

from bluesky_filestore import (
    deregister_handler,
    fill,
    open_array,
    open_pack,
    pack,
    register_handler,
    unpack,
    verify_run,
)
from bluesky_filestore.bundles.members import check_name
from bluesky_filestore.errors import FileStoreError, PackError

VALUES = np.arange(24, dtype="<u2").reshape(1, 4, 6)


@pytest.fixture
def good(tmp_path):
    """The members of a pack of a run of one HDF5 file, and what the run is."""
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "a.h5", "w") as file:
        file["/entry/data/data"] = VALUES
    docs = image_documents(tmp_path / "data" / "a.h5")
    folder = pack(docs, to=tmp_path / "good").path
    members = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder)
    return members, docs[0][1]["uid"]


def as_folder(members, path):
    """A pack that is a folder."""
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_tar(members, path, *more):
    """A tar with some members that no file has."""
    with tarfile.open(path, "w") as tar:
        for info, data in [*more, *((tarfile.TarInfo(name), data) for name, data in members.items())]:
            info.size = info.size or len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def as_zip(members, path, *more):
    """A zip with some more members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*members.items(), *more]:
            archive.writestr(name, data)
    return path


def kind(name, kind, target=""):
    """A member of a tar that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def look_through(path):
    """All that there is to read in a pack but the files."""
    with open_pack(path) as opened:
        for run in opened.values():
            assert all(opened.member_of(file.path) for file in run.manifest().entries)
            list(run)


@pytest.fixture
def refused(tmp_path):
    """Expects that nothing can be done with a pack, and that nothing is left of the attempt."""

    class AskedError(Exception):
        """A catalog was asked: nothing has been written yet."""

    class NoCatalog:
        def __getattr__(self, name):
            raise AskedError

    def expect(path, match):
        into = tmp_path / "into" / "data"
        with pytest.raises(PackError, match=match):
            look_through(path)
        with pytest.raises((PackError, AskedError)):
            unpack(path, NoCatalog(), into=into)
        assert not into.exists() or not any(path.is_file() or path.is_symlink() for path in into.parent.rglob("*"))

    return expect


NAMES = [
    "../out",
    "files/../../out",
    "/etc/cron.d/out",
    "files//out",
    "./../out",
    "files/./out",
    "files/..",
    "C:/out",
    "files\\..\\out",
    "files/new\nline",
    "files/\x1b[2Jout",
    "files/" + "n" * 300,
    "/".join("n" * 200 for _ in range(20)),
    "files/\u202eout",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    """A name that would lead out of the pack, or says another thing than it seems, is refused."""
    with pytest.raises(PackError, match="cannot be the name of a member"):
        check_name(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name and not name.startswith("./")])
def test_names_of_members(good, tmp_path, refused, name):
    """So it is among the members of a tar and of a zip, before anything is written."""
    members, _ = good
    refused(as_tar(members, tmp_path / "a.tar", (tarfile.TarInfo(name), b"out")), "name of a member|refused|whose name")
    with zipfile.ZipFile(as_zip(members, tmp_path / "a.zip"), "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"out")
    refused(tmp_path / "a.zip", "name of a member")


@pytest.mark.parametrize(
    "member",
    [
        kind("files/link", tarfile.SYMTYPE, "/etc/passwd"),
        kind("files/link", tarfile.LNKTYPE, "/etc/passwd"),
        kind("files/link", tarfile.LNKTYPE, "pack.json"),
        kind("files/device", tarfile.CHRTYPE),
        kind("files/disk", tarfile.BLKTYPE),
        kind("files/pipe", tarfile.FIFOTYPE),
        kind("files/sparse", tarfile.GNUTYPE_SPARSE),
        kind("files/contiguous", tarfile.CONTTYPE),
        kind("files/other", b"Z"),
    ],
    ids=lambda member: member[0].name + str(member[0].type),
)
def test_members_that_are_no_files(good, tmp_path, refused, member):
    """Links and devices in a tar are refused, whether something uses them or not."""
    members, _ = good
    refused(as_tar(members, tmp_path / "a.tar", member), "is a link, a device, or another thing")


def zip_of_a_link(members, path):
    """A link, as Unix's zips have them."""
    info = zipfile.ZipInfo("files/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return as_zip(members, path, (info, b"/etc/passwd"))


def zip_with_one_name_twice(members, path):
    """One member for who looks, another for who unpacks."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        return as_zip(members, path, ("pack.json", b"{}"))


def zip_packed_otherwise(members, path):
    """Packed with LZMA."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def zip_bomb(members, path):
    """Some kB that become 100 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        with archive.open("files/bomb", "w") as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
    return path


def zip_that_says_more(members, path):
    """The list at the end says that it is longer than the file."""
    data = bytearray(as_zip(members, path).read_bytes())
    at = data.rfind(b"PK\5\6")
    struct.pack_into("<L", data, at + 12, 0x7FFFFFFF)
    path.write_bytes(data)
    return path


def encrypted_zip(members, path):
    """A member is said to be encrypted."""
    data = bytearray(as_zip(members, path).read_bytes())
    at = data.find(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (zip_of_a_link, "is a link, a device"),
        (zip_with_one_name_twice, "two members of the name"),
        (zip_packed_otherwise, "unusual way"),
        (zip_bomb, "says that its members have"),
        (zip_that_says_more, "list of members|cannot be read"),
        (encrypted_zip, "encrypted"),
    ],
)
def test_zips(good, tmp_path, refused, make, match):
    """Zips that would blow up, hide something or lead out are refused."""
    members, _ = good
    refused(make(members, tmp_path / "a.zip"), match)


def tar_that_ends_early(members, path):
    """The last member is cut short."""
    data = as_tar(members, path).read_bytes()
    path.write_bytes(data[: data.rindex(b"ustar") + 600])
    return path


def tar_of_a_large_header(members, path):
    """A header of a megabyte."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 1 << 20
    return as_tar(members, path, (info, bytes(1 << 20)))


def tar_of_a_hidden_size(members, path):
    """A pax header says another size than the member's."""
    info = tarfile.TarInfo("files/x")
    info.pax_headers = {"size": str(1 << 50)}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    return path


def tar_with_one_name_twice(members, path):
    """One member for who looks, another for who unpacks."""
    return as_tar(members, path, (tarfile.TarInfo("pack.json"), b"{}"))


def compressed_tar(members, path):
    """A tar in gzip under the name of one that is not."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def no_tar(members, path):
    """No tar at all."""
    path.write_bytes(b"\1" * 2000)
    return path


def a_pipe(members, path):
    """A pipe, to which nobody writes."""
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (tar_that_ends_early, "ends before|has no member"),
        (tar_of_a_large_header, "header of 1,048,576 bytes"),
        (tar_of_a_hidden_size, "ends before"),
        (tar_with_one_name_twice, "two members of the name"),
        (compressed_tar, "may be compressed"),
        (no_tar, "cannot be read"),
        (a_pipe, "is no file"),
    ],
)
def test_tars(good, tmp_path, refused, make, match):
    """Tars that are cut short, say other sizes than they have, or are none, are refused; nothing is waited for."""
    members, _ = good
    refused(make(members, tmp_path / "a.tar"), match)


def changed(members, name, **values):
    """With other values in a member of JSON."""
    return {**members, name: json.dumps({**json.loads(members[name]), **values}).encode()}


def first_run(members, **values):
    """With other values of the run in the index."""
    run = json.loads(members["pack.json"])["runs"][0]
    return changed(members, "pack.json", runs=[{**run, **values}])


def deep(members):
    """An index that is nested deeply."""
    return {**members, "pack.json": b"[" * 200_000 + b"]" * 200_000}


def with_documents(members, text):
    """With other documents, of which the index has the sum."""
    name = next(name for name in members if name.endswith("documents.jsonl"))
    return {**first_run(members, documents_sha256=hashlib.sha256(text).hexdigest()), name: text}


def start_of(members):
    """The line with the start."""
    name = next(name for name in members if name.endswith("documents.jsonl"))
    return members[name].splitlines(keepends=True)[0]


def a_file_changed(members):
    """Another last byte."""
    name = next(name for name in members if name.endswith(".h5"))
    return {**members, name: members[name][:-1] + b"?"}


def a_file_longer(members):
    """One byte more."""
    name = next(name for name in members if name.endswith(".h5"))
    return {**members, name: members[name] + b"?"}


def entry(members, **values):
    """With other values of the file in the manifest."""
    name = next(name for name in members if name.endswith("manifest.json"))
    file = json.loads(members[name])["files"][0]
    return changed(members, name, files=[{**file, **values}])


SAID = {
    "no index": lambda members: {name: data for name, data in members.items() if name != "pack.json"},
    "no JSON": lambda members: {**members, "pack.json": b"{"},
    "a list": lambda members: {**members, "pack.json": b"[]"},
    "deep": deep,
    "another format": lambda members: changed(members, "pack.json", format="x"),
    "a later version": lambda members: changed(members, "pack.json", version=2),
    "no runs": lambda members: changed(members, "pack.json", runs={}),
    "runs of texts": lambda members: changed(members, "pack.json", runs=["a"]),
    "a run twice": lambda members: changed(members, "pack.json", runs=json.loads(members["pack.json"])["runs"] * 2),
    "no uid": lambda members: first_run(members, uid=None),
    "another uid": lambda members: first_run(members, uid="other"),
    "documents elsewhere": lambda members: first_run(members, documents="../documents.jsonl"),
    "a manifest elsewhere": lambda members: first_run(members, manifest="/etc/passwd"),
    "a manifest of another": lambda members: first_run(members, manifest="pack.json"),
    "directories elsewhere": lambda members: changed(members, "pack.json", directories={"/": "../.."}),
    "directories that are none": lambda members: changed(members, "pack.json", directories={"data": "files"}),
    "directories of documents": lambda members: changed(members, "pack.json", directories={"/": "runs"}),
    "other documents": lambda members: first_run(members, documents_sha256="0" * 64),
    "a pickle": lambda members: with_documents(members, pickle.dumps(["start", {"uid": "x"}])),
    "no documents": lambda members: with_documents(members, b"{}\n"),
    "no start": lambda members: with_documents(members, b'["stop", {"uid": "x"}]\n'),
    "two starts": lambda members: with_documents(members, 2 * start_of(members)),
    "odd bytes": lambda members: with_documents(members, b'["start", {"!bytes": 5}]\n'),
    "odd keys": lambda members: with_documents(members, b'["start", {"!mapping": [[{}, 1]]}]\n'),
    "deep documents": lambda members: with_documents(members, b"[" * 200_000),
    "no sums": lambda members: entry(members, sha256=""),
    "a file outside": lambda members: entry(members, path="relative"),
}


@pytest.mark.parametrize("said", SAID)
def test_what_packs_say(good, tmp_path, refused, said):
    """An index, a manifest or documents that are not what they should be are refused, whatever they are."""
    members, _ = good
    refused(as_tar(SAID[said](members), tmp_path / "a.tar"), "expected")
    refused(as_folder(SAID[said](members), tmp_path / "a"), "expected")


@pytest.mark.parametrize("change", [a_file_changed, a_file_longer, lambda members: entry(members, path="/../../out")])
@pytest.mark.parametrize("as_kind", [as_folder, as_tar, as_zip])
def test_files_that_are_others(catalog, good, tmp_path, data_directory, change, as_kind):
    """A file of other bytes or of another size, or one that would go elsewhere, is not unpacked, and no run with it."""
    members, uid = good
    path = as_kind(change(members), tmp_path / {as_folder: "a", as_tar: "a.tar", as_zip: "a.zip"}[as_kind])
    into = tmp_path / "hostile" / "into"
    with pytest.raises(PackError, match="expected"):
        unpack(path, catalog.client, into=into)
    assert not [each for each in into.parent.rglob("*") if each.is_file()]
    assert uid not in catalog.client


def test_links_in_folders(catalog, good, tmp_path):
    """A folder whose files are links to elsewhere is not read, nor unpacked through a link that was there before."""
    members, uid = good
    folder = as_folder(members, tmp_path / "a")
    name = next(name for name in members if name.endswith(".h5"))
    (folder / name).rename(tmp_path / "secret.h5")
    (folder / name).symlink_to(tmp_path / "secret.h5")
    with open_pack(folder) as opened, pytest.raises(FileStoreError, match="outside the directories that may be read"):
        open_array(opened[uid], "image")
    with pytest.raises(PackError, match="outside the directories"):
        unpack(folder, catalog.client, into=tmp_path / "into")
    into, outside = tmp_path / "into 2", tmp_path / "outside"
    (into / "there").mkdir(parents=True)
    outside.mkdir()
    first = Path(name).parts[1]
    (into / first).symlink_to(outside)
    with pytest.raises(FileStoreError, match="outside the directories"):
        unpack(as_tar(members, tmp_path / "a.tar"), catalog.client, into=into)
    assert not any(path.is_file() for path in outside.rglob("*"))


def link(path, target):
    """An external link."""
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = h5py.ExternalLink(str(target), "/entry/data/data")


def virtual(path, target):
    """A virtual dataset."""
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((1, 4, 6), "<u2")
        layout[:] = h5py.VirtualSource(str(target), "/entry/data/data", (1, 4, 6))
        file.create_virtual_dataset("/entry/data/data", layout)


def storage(path, target):
    """External storage."""
    with h5py.File(path, "w") as file:
        file.create_dataset("/entry/data/data", (1, 4, 6), "<u2", external=[(str(target), 0, 48)])


@pytest.mark.parametrize("make", [link, virtual, storage])
def test_files_that_lead_out(catalog, good, tmp_path, make):
    """An HDF5 file of the pack that leads out of it is not followed, and its run is not delivered."""
    members, uid = good
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["/entry/data/data"] = VALUES + 1
    name = next(name for name in members if name.endswith(".h5"))
    make(tmp_path / "evil.h5", secret)
    data = (tmp_path / "evil.h5").read_bytes()
    members = entry({**members, name: data}, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    folder = as_folder(members, tmp_path / "a")
    for path in (folder, as_tar(members, tmp_path / "a.tar"), as_zip(members, tmp_path / "a.zip")):
        with open_pack(path) as opened:
            with pytest.raises(FileStoreError, match=r"outside the directories that may be read|cannot be read"):
                open_array(opened[uid], "image")[...]
            assert verify_run(opened[uid]).exit_code
            # Handlers read what documents name, and cannot be kept to the pack.
            with pytest.raises(FileStoreError, match="documents of a pack may name any file"):
                list(fill(opened[uid]))
    with pytest.raises(PackError, match=r"is not delivered, since a file outside of .* is named by"):
        unpack(folder, catalog.client, into=tmp_path / "into")
    assert uid not in catalog.client


@pytest.mark.parametrize(
    "resource",
    [
        {"root": "/", "resource_path": "SECRET"},
        {"root": "", "resource_path": "/SECRET"},
        {"root": "/files", "resource_path": "../SECRET"},
        {"root": "/x/../..", "resource_path": "SECRET"},
    ],
)
def test_documents_that_lead_out(catalog, good, tmp_path, resource):
    """A path of the documents is one in the pack, or none: no file of ours is read or registered for it."""
    members, uid = good
    secret = str(tmp_path / "data" / "a.h5")
    said = {key: value.replace("SECRET", secret.lstrip("/")) for key, value in resource.items()}
    docs = next(data for name, data in members.items() if name.endswith("documents.jsonl"))
    lines = [json.loads(line) for line in docs.splitlines()]
    lines = [[name, {**doc, **said} if name == "resource" else doc] for name, doc in lines]
    members = with_documents(members, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    here = next(iter(json.loads(members["pack.json"])["directories"]))
    for directories in ({here: "files"}, {"/elsewhere": "files"}):
        changed_members = changed(members, "pack.json", directories=directories)
        folder = as_folder(changed_members, tmp_path / f"a{len(str(directories))}")
        shutil.rmtree(folder / "files")
        with open_pack(folder) as opened, pytest.raises(FileStoreError, match=r"cannot be read|outside|is not there"):
            open_array(opened[uid], "image")
        with pytest.raises(PackError):
            unpack(folder, catalog.client, into=tmp_path / "into")
    assert uid not in catalog.client


def test_many_members(tmp_path, refused, monkeypatch):
    """A pack of more members than any run has is given up at, and does not fill the memory before."""
    monkeypatch.setattr("bluesky_filestore.bundles.members.MOST_MEMBERS", 1_000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(2_000):
            tar.addfile(tarfile.TarInfo(f"files/{number}"))
    refused(tmp_path / "a.tar", "more than 1,000 members")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(2_000):
            archive.writestr(f"files/{number}", b"")
    refused(tmp_path / "a.zip", "more than 1,000 members")


class OddHandler:
    """Reads what its arguments say, wherever that is."""

    asked = []

    def __init__(self, path, **kwargs):
        self.kwargs = kwargs

    def __call__(self, file="", **kwargs):
        self.asked.append(file)
        return np.load(file or self.kwargs["file"])


@pytest.mark.parametrize("where", ["resource", "datum"])
def test_handlers_that_would_be_led_out(catalog, good, tmp_path, where):
    """The handler of an installed spec is not asked for what its arguments would have it read outside of the pack."""
    members, uid = good
    np.save(tmp_path / "secret.npy", VALUES)
    said = {"file": str(tmp_path / "secret.npy")}
    docs = next(data for name, data in members.items() if name.endswith("documents.jsonl"))
    lines = [json.loads(line) for line in docs.splitlines()]
    for name, doc in lines:
        if name == "resource":
            doc |= {"spec": "ODD"} | ({"resource_kwargs": said} if where == "resource" else {})
        elif name == "datum" and where == "datum":
            doc["datum_kwargs"] = said
    folder = as_folder(
        with_documents(members, b"".join(json.dumps(line).encode() + b"\n" for line in lines)), tmp_path / "a"
    )
    register_handler("ODD", OddHandler)
    try:
        with open_pack(folder) as opened, pytest.raises(FileStoreError, match="outside the directories"):
            open_array(opened[uid], "image")
        with pytest.raises(PackError, match="is not delivered"):
            unpack(folder, catalog.client, into=tmp_path / "into")
    finally:
        deregister_handler("ODD")
    assert OddHandler.asked == []
    assert uid not in catalog.client

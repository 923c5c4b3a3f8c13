"""What a server reads is for the kernel to allow, whatever our own look at paths says."""

import importlib
import logging
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from leaning import logged_anew  # noqa: F401
from test_serving_doors import ROWS, SECRET, SHAPE, Place
from tiled.structures.array import ArrayStructure
from tiled.structures.data_source import Asset, DataSource, Management

from bluesky_filestore import deregister_handler, register_handler
from bluesky_filestore.files import readable
from bluesky_filestore.files.readable import Roots
from bluesky_filestore.model.addressing import HANDLED, HDF5_ROWS
from bluesky_filestore.model.specs import HDF5, NPY_SERIES, TIFF_SERIES
from bluesky_filestore.serving import confined
from bluesky_filestore.serving.catalog import _confine
from bluesky_filestore.serving.confined import ConfinedThreads
from bluesky_filestore.serving.landlock import landlock_version

pytestmark = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One server for all; outside of what it may read are frames of the secret."""
    place = Place(tmp_path_factory.mktemp("confined"))
    with h5py.File(place.outside / "s.h5", "w") as file:
        file["d"] = np.full(SHAPE, SECRET[0], "u1")
    (place.outside / "s.raw").write_bytes(SECRET * 4)
    tifffile.imwrite(place.outside / "s.tif", np.full(SHAPE[1:], SECRET[0], "u1"), metadata=None)
    np.save(place.outside / "s.npy", np.full(SHAPE[1:], SECRET[0], "u1"))
    with place.server:
        yield place


@pytest.fixture
def unchecked(monkeypatch):
    """We do not look at paths ourselves."""
    monkeypatch.setattr(readable.Roots, "_check", lambda *args: None)


def external_storage(place, file):
    """Data that HDF5 opens another file for."""
    file.create_dataset("d", SHAPE, "u1", external=[(str(place.outside / "s.raw"), 0, 16)])


def external_link(place, file):
    """A link into another file."""
    file["d"] = h5py.ExternalLink(str(place.outside / "s.h5"), "d")


def virtual_source(place, file):
    """A dataset made of another file's."""
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource(str(place.outside / "s.h5"), "d", SHAPE)
    file.create_virtual_dataset("d", layout, fillvalue=0x54)


def make_hdf5(make):
    """Makes an HDF5 file that leads outside."""

    def made(place, path):
        with h5py.File(path, "w") as file:
            make(place, file)

    return made


def linked(name):
    """Makes a link to a file outside."""
    return lambda place, path: path.symlink_to(place.outside / name)


LEADS_OUTSIDE = {
    "external storage": (HDF5_ROWS, "h5", make_hdf5(external_storage)),
    "external link": (HDF5_ROWS, "h5", make_hdf5(external_link)),
    "virtual source": (HDF5_ROWS, "h5", make_hdf5(virtual_source)),
    "whole: external storage": (HDF5, "h5", make_hdf5(external_storage)),
    "whole: external link": (HDF5, "h5", make_hdf5(external_link)),
    "whole: virtual source": (HDF5, "h5", make_hdf5(virtual_source)),
    "link to hdf5": (HDF5_ROWS, "h5", linked("s.h5")),
    "link to tiff": (TIFF_SERIES, "tif", linked("s.tif")),
    "link to npy": (NPY_SERIES, "npy", linked("s.npy")),
    "for Tiled's own adapter: link to tiff": ("image/tiff", "tif", linked("s.tif")),
    "for Tiled's own adapter: link to npy": ("application/x-npy", "npy", linked("s.npy")),
}


@pytest.mark.parametrize("kind", LEADS_OUTSIDE)
def test_what_leads_outside(place, unchecked, kind):
    """The kernel refuses what a file leads to, on either way, and the server goes on."""
    mimetype, suffix, make = LEADS_OUTSIDE[kind]
    path = place.data / f"{kind.replace(':', '').replace(' ', '_')}.{suffix}"
    make(place, path)
    parameters = {HDF5_ROWS: ROWS, HDF5: {"dataset": "d"}}.get(mimetype, {})
    if "own adapter" in kind:
        asset = Asset(f"file://localhost{path}", is_directory=False, parameter="data_uri")
        structure = ArrayStructure.from_array(np.zeros(SHAPE[1:], "u1"))
        source = DataSource("array", structure, mimetype=mimetype, management=Management.external, assets=[asset])
        key = place.server.client.new("array", [source]).item["id"]
    else:
        key = place.register(mimetype, [path], parameters)
    for by_tiled in (False, True):
        answer = place.ask(key, by_tiled=by_tiled)
        assert 400 <= answer.status_code < 500, answer.content
        assert SECRET not in answer.content
    assert place.ask(place.good).content == b"\1" * 16


def test_whole_files(place, unchecked):
    """One that leads nowhere else is served as a whole; one that leads outside is not."""
    with h5py.File(place.data / "whole.h5", "w") as file:
        file["group/good"] = np.ones(SHAPE, "u1")
        file["group"].attrs["said"] = "so"
    with h5py.File(place.data / "leads.h5", "w") as file:
        external_link(place, file)
    for name in ("whole", "leads"):
        asset = Asset(data_uri=f"file://localhost{place.data}/{name}.h5", is_directory=False, parameter="data_uris")
        source = DataSource("container", None, mimetype=HDF5, management=Management.external, assets=[asset])
        place.server.client.new("container", [source], key=name)
    whole = place.server.client["whole"]
    assert list(whole) == ["group"]
    assert list(whole["group"]) == ["good"]
    assert whole["group"].metadata["said"] == "so"
    assert whole["group"]["good"][:].tobytes() == b"\1" * 16
    whole.export(str(place.data / "exported.h5"))
    with h5py.File(place.data / "exported.h5") as file:
        assert (file["group/good"][:] == 1).all()
    answer = place.ask("leads/d")
    assert answer.status_code == 403
    assert "may not be read" in answer.json()["detail"]


def opens(place):
    """Open a file that everybody may read."""
    with Path("/etc/passwd").open("rb") as file:
        return np.frombuffer(file.read(16), "u1").reshape(SHAPE[1:])


def writes(place):
    """Write where it may read."""
    (place.data / "written").write_text("by a handler")


def starts(place):
    """Start a program."""
    subprocess.run([sys.executable, "-c", f"open({str(place.data / 'started')!r}, 'w')"], check=True)


def connects(place):
    """Connect to whatever listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        pass


@pytest.mark.parametrize("act", [opens, writes, starts, connects], ids=lambda act: act.__name__)
def test_handlers(place, act):
    """A handler that was registered here reads what is served, and does nothing else in a server."""
    done = []

    class Handler:
        def __init__(self, path, **kwargs):
            pass

        def __call__(self, **kwargs):
            act(place)
            done.append(act)
            return np.ones(SHAPE[1:], "u1")

    register_handler("ACTS", Handler)
    try:
        handled = {"spec": "ACTS", "resource_kwargs": {}, "datum_kwargs": [{}]}
        key = place.register(HANDLED, [place.data / "good.h5"], handled)
        for by_tiled in (False, True):
            answer = place.ask(key, by_tiled=by_tiled)
            assert 400 <= answer.status_code < 500, answer.content
            assert "Permission denied" in answer.json()["detail"] or "may not be read" in answer.json()["detail"]
        assert done == []
        # Whoever has the server in his process may do what he could before, in old threads and new ones.
        act(place)
        acting = threading.Thread(target=lambda: done.append(act(place)))
        acting.start()
        acting.join()
        assert len(done) == 1
    finally:
        deregister_handler("ACTS")


def test_what_is_read_as_before(place):
    """Filters, which are libraries that are loaded when they are needed, and sources of virtual datasets inside."""
    with h5py.File(place.data / "packed.h5", "w") as file:
        file.create_dataset("d", data=np.ones(SHAPE, "u1"), chunks=SHAPE, **hdf5plugin.Bitshuffle())
        file.create_dataset("z", data=np.ones(SHAPE, "u1"), chunks=SHAPE, **hdf5plugin.Zstd())
    with h5py.File(place.data / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(SHAPE, "u1")
        layout[:] = h5py.VirtualSource("packed.h5", "z", SHAPE)
        file.create_virtual_dataset("d", layout)
    for name in ("packed.h5", "virtual.h5"):
        for key in (
            place.register(HDF5_ROWS, [place.data / name], ROWS),
            place.register(HDF5, [place.data / name], {"dataset": "d"}),
        ):
            for by_tiled in (False, True):
                assert place.ask(key, by_tiled=by_tiled).content == b"\1" * 16


def test_a_root_that_is_another_directory_by_now(tmp_path):
    """Where something else was mounted, or a directory was put in place of another, it is read all the same."""
    root = tmp_path / "root"
    threads = ConfinedThreads(Roots.of([root]))
    for value in ("first", "second"):
        root.mkdir()
        (root / "f").write_text(value)
        assert threads.run((root / "f").read_text) == value
        root.rename(tmp_path / value)
    with pytest.raises(PermissionError):
        threads.run((tmp_path / "first" / "f").read_text)
    threads.close()


def test_modules_are_found_after_a_look_from_inside(tmp_path, monkeypatch):
    """That a confined thread may not read in the working directory hides no module there from anybody else."""
    (tmp_path / "lies_here.py").write_text("value = 5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    threads = ConfinedThreads(Roots.of([]))
    with pytest.raises(ModuleNotFoundError):
        threads.run(importlib.import_module, "lies_nowhere")
    with pytest.raises(PermissionError):
        threads.run((tmp_path / "lies_here.py").read_text)
    assert importlib.import_module("lies_here").value == 5
    threads.close()


def test_without_landlock(tmp_path, monkeypatch, caplog, logged_anew):  # noqa: F811
    """A system that has none is told of once, and what we check ourselves stays."""
    monkeypatch.setattr(confined, "landlock_version", lambda: 0)
    (tmp_path / "f").write_text("read")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            threads = ConfinedThreads(Roots.of([]))
            assert threads.run((tmp_path / "f").read_text) == "read"
            threads.close()
    assert [record.message[:27] for record in caplog.records] == ["This system has no Landlock"]


def test_a_tree_that_keeps_its_adapters_elsewhere(caplog, logged_anew):  # noqa: F811
    """It is served as it is, and the log says so."""
    with caplog.at_level(logging.WARNING):
        _confine(SimpleNamespace(context=SimpleNamespace()), Roots.of([]), set())
    assert "what they open is checked by its path only" in caplog.text

"""The simulated IOC as a child process on loopback, as clients of all kinds see it.

Everything that connects does so in a process of its own: a process can reach one IOC only, and the other tests
have theirs.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_running

from bluesky_filestore import sim
from bluesky_filestore.errors import IOCUnreachableError
from bluesky_filestore.sim import SimulatedIOC, client_environment, run_ioc

CONNECT = """
from ophyd import Component, DetectorBase, SimDetector
from ophyd.areadetector import cam, plugins

class Detector(DetectorBase):
    cam = Component(cam.SimDetectorCam, "cam1:")
    hdf = Component(plugins.HDF5Plugin_V34, "HDF1:")
    tiff = Component(plugins.TIFFPlugin_V34, "TIFF1:")
    image = Component(plugins.ImagePlugin_V34, "image1:")
    proc = Component(plugins.ProcessPlugin_V34, "Proc1:")
    roi = Component(plugins.ROIPlugin_V34, "ROI1:")

for kind in (SimDetector, Detector):
    detector = kind(ioc.prefix, name="det")
    detector.wait_for_connection(timeout=20)
    for name in detector.component_names:
        getattr(detector, name).wait_for_connection(timeout=20)
detector.hdf.file_path.set(str(ioc.directory)).wait(timeout=10)
detector.hdf.file_write_mode.set("Stream").wait(timeout=10)
detector.cam.image_mode.set("Single").wait(timeout=10)
detector.hdf.enable.set(1).wait(timeout=10)
detector.cam.acquire.put(1)
deadline = time.monotonic() + 10
while detector.cam.array_counter.get() < 1 and time.monotonic() < deadline:
    time.sleep(0.01)
found = {
    "path": detector.hdf.file_path.get(),
    "exists": detector.hdf.file_path_exists.get(),
    "modes": list(detector.hdf.file_write_mode.enum_strs),
    "counter": detector.cam.array_counter.get(),
    "units": detector.hdf.execution_time.metadata["units"],
    "dtype": detector.dtype_numpy,
}
"""

PUTS = """
import threading
import epics

def put(name, value):
    done = threading.Event()
    epics.PV(ioc.prefix + name).put(value, wait=False, use_complete=True, callback=lambda **_: done.set())
    return done

found = {}
epics.caput(ioc.prefix + "HDF1:FileName", "x" * 300, wait=True)
found["name"] = len(epics.caget(ioc.prefix + "HDF1:FileName_RBV", as_string=True))
template = epics.PV(ioc.prefix + "HDF1:FileTemplate")
for text in ("abc", ""):
    template.put(text, wait=True)
    found[f"template {text!r}"] = template.get(as_string=True)
epics.caput(ioc.prefix + "HDF1:FilePath", "relative", wait=True)
found["path"] = epics.caget(ioc.prefix + "HDF1:FilePath_RBV", as_string=True)
epics.caput(ioc.prefix + "cam1:ImageMode", "Continuous", wait=True)
first, second = put("cam1:Acquire", 1), put("cam1:Acquire", 0)
found["while one is under way"] = [first.wait(0.3), second.wait(0.3)]
epics.caput(ioc.prefix + "cam1:Acquire", 0)
found["after a plain stop"] = [first.wait(5), second.wait(5)]
found["message"] = epics.caget(ioc.prefix + "cam1:StatusMessage_RBV", as_string=True)
"""

SCRIPT = """
import json, sys, time
from bluesky_filestore.sim import SimulatedIOC
with SimulatedIOC({directory!r}) as ioc:
    {body}
    print(json.dumps(found))
"""


def run_client(body: str, directory: Path, **environment: str) -> dict[str, object]:
    """What a client finds that starts an IOC in a process of its own."""
    script = SCRIPT.format(directory=str(directory), body="\n    ".join(body.splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("layer", ["pyepics", "caproto"])
def test_ophyd_connects(tmp_path: Path, layer: str) -> None:
    """Stock ophyd detectors and plugins connect, set, wait and read under both control layers."""
    found = run_client(CONNECT, tmp_path, OPHYD_CONTROL_LAYER=layer)
    assert found["path"] == f"{tmp_path}/"
    assert found["exists"] == 1
    assert found["modes"] == ["Single", "Capture", "Stream"]
    assert found["counter"] == 1
    assert found["units"] == "ms"
    assert found["dtype"] == "|u1"


@pytest.mark.parametrize("layer", ["pyepics", "caproto"])
def test_ophyd_was_imported_before(tmp_path: Path, layer: str) -> None:
    """Who has imported ophyd already, as everybody has in IPython, still reaches an IOC that is started later."""
    script = f"""
import ophyd
from bluesky_filestore.sim import SimDetectorHDF5, SimulatedIOC
with SimulatedIOC({str(tmp_path)!r}) as ioc:
    model = ophyd.EpicsSignalRO(ioc.prefix + "cam1:Model_RBV", name="model", string=True)
    model.wait_for_connection(timeout=20)
    print(model.get())
"""
    environment = os.environ | {"OPHYD_CONTROL_LAYER": layer}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.strip() == "Basic simulator", done.stderr


def test_puts(tmp_path: Path) -> None:
    """Long strings are cut, empty ones taken; put-callbacks of one record wait for each other, plain puts do not."""
    found = run_client(PUTS, tmp_path)
    assert found == {
        "name": 255,
        "template 'abc'": "abc",
        "template ''": "",
        "path": "relative/",
        "while one is under way": [False, False],
        "after a plain stop": [True, True],
        "message": "Acquisition stopped",
    }


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the block clients are led to the IOC on loopback; afterwards all is as it was."""
    monkeypatch.setenv("EPICS_CA_ADDR_LIST", "192.0.2.1")
    monkeypatch.delenv("EPICS_CA_SERVER_PORT", raising=False)
    with SimulatedIOC() as ioc:
        directory = ioc.directory
        assert directory.is_dir()
        assert {name: os.environ[name] for name in client_environment(ioc.port)} == client_environment(ioc.port)
        assert os.environ["EPICS_CA_ADDR_LIST"] == f"127.0.0.1:{ioc.port}"
        assert os.environ["EPICS_CA_AUTO_ADDR_LIST"] == "NO"
    assert os.environ["EPICS_CA_ADDR_LIST"] == "192.0.2.1"
    assert "EPICS_CA_SERVER_PORT" not in os.environ
    assert not directory.exists()


def test_same_port_again() -> None:
    """One IOC after the other, in one process, has the same port: the client libraries read theirs once."""
    script = """
from bluesky_filestore.sim import SimulatedIOC
with SimulatedIOC() as first:
    pass
with SimulatedIOC() as second:
    import epics
    assert first.port == second.port
    assert epics.caget("13SIM1:cam1:MaxSizeX_RBV") == 1024
with SimulatedIOC(prefix="OTHER:") as third:
    assert first.port == third.port
    assert epics.caget("OTHER:cam1:MaxSizeX_RBV", timeout=10) == 1024
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_port_taken(tmp_path: Path) -> None:
    """A port that somebody has is refused, in the foreground and with the child's words from the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        words = f"port {port} on 127.0.0.1 is taken, probably by another IOC; stop that or choose another port"
        with pytest.raises(IOCUnreachableError, match=words):
            run_ioc(tmp_path, port=port)
        with pytest.raises(IOCUnreachableError, match=rf"was not ready on 127.0.0.1:{port}[\s\S]*{words}"):
            SimulatedIOC(tmp_path, port=port).__enter__()


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A data directory that can't be made is told before anything runs."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_ioc(tmp_path / "file" / "below")


def test_no_orphan(tmp_path: Path) -> None:
    """The IOC ends with its parent, even if that is killed."""
    script = """
import os, signal, sys
from bluesky_filestore.sim import SimulatedIOC
ioc = SimulatedIOC(sys.argv[1]).__enter__()
print(ioc._child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    deadline = time.monotonic() + 20
    while is_running(child):
        assert time.monotonic() < deadline, f"process {child} outlives its parent"
        time.sleep(0.05)


def test_light_import() -> None:
    """Importing the package loads neither ophyd nor caproto nor what writes files."""
    script = """
import sys
import bluesky_filestore.sim
loaded = {"ophyd", "caproto", "h5py", "tifffile", "PIL"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_unknown_name() -> None:
    """A name that the package does not have is an AttributeError."""
    with pytest.raises(AttributeError, match="no attribute 'NoSuchDetector'"):
        _ = sim.NoSuchDetector


def test_shows_itself(ioc):
    """An IOC says what and where it is, and the detectors are offered before they are loaded."""
    import bluesky_filestore.sim

    assert repr(ioc) == f"<SimulatedIOC 13SIM1: on port {ioc.port}, writes to {ioc.directory}>"
    assert {"SimDetectorHDF5", "SimDetectorTIFF"} < set(dir(bluesky_filestore.sim))

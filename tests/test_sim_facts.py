"""What a real IOC does when something is wrong (facts 12 to 21), over real Channel Access.

Each scenario runs in a process of its own, with an IOC that has just been started.
"""

import time

import epics
import h5py
import hdf5plugin  # noqa: F401 - so that h5py can read what is compressed
import pytest
import tifffile
from mixin_detectors import in_fresh_ioc

from bluesky_filestore.sim import pattern

HEADER = 4000
"""Bytes of an HDF5 file of one frame that are not pixels, at least."""

FRAME = 32 * 48
"""Bytes of a frame."""

LAYOUT = """<hdf5_layout><group name="exchange">
<dataset name="frames" source="detector" det_default="true"/>
<group name="of frame" ndattr_default="true"/><group name="also"><hardlink name="frames" target="/exchange/frames"/>
</group></group></hdf5_layout>"""


class Client:
    """Puts and gets by a record's name, puts with put-callback."""

    def __init__(self, ioc):
        self.ioc = ioc
        for name, value in (
            ("SizeX", 48), ("SizeY", 32), ("AcquireTime", 0.005), ("AcquirePeriod", 0.005), ("ImageMode", "Multiple"),
            ("WaitForPlugins", 1),
        ):  # fmt: skip
            self.put(f"cam1:{name}", value)

    def put(self, name, value):
        """Put, and wait for completion."""
        assert epics.caput(self.ioc.prefix + name, value, wait=True, timeout=20) == 1, name

    def get(self, name):
        """A record's value, long strings as text."""
        pv = epics.get_pv(self.ioc.prefix + name, connect=True, timeout=10)
        return pv.get(as_string=pv.type == "time_char" or pv.type == "time_string", timeout=10, use_monitor=False)

    def begin(self, name, value):
        """Put with put-callback, without waiting; a function that says whether it is complete."""
        pv = epics.get_pv(self.ioc.prefix + name, connect=True, timeout=10)
        done = []
        pv.put(value, wait=False, use_complete=True, callback=lambda **_: done.append(True))
        return lambda: bool(done)

    def open(self, plugin, extension, mode, **values):
        """Set a file plugin up for files f_000000 and so on in the IOC's directory."""
        values = {
            "EnableCallbacks": 1, "AutoIncrement": 1, "AutoSave": 1, "FilePath": str(self.ioc.directory),
            "FileName": "f", "FileTemplate": f"%s%s_%6.6d.{extension}", "FileWriteMode": mode, **values,
        }  # fmt: skip
        for name, value in values.items():
            self.put(f"{plugin}:{name}", value)

    def take(self, count):
        """Take frames, and wait for the plugins."""
        self.put("cam1:NumImages", count)
        self.put("cam1:Acquire", 1)

    def state(self, plugin):
        """What the plugin tells of its writing."""
        names = ("FileNumber_RBV", "WriteStatus", "WriteMessage", "NumCaptured_RBV", "DroppedArrays_RBV")
        return {name: self.get(f"{plugin}:{name}") for name in names}


def series(ioc, plugin, extension, gone):
    """Six frames of a series, the last ones onto a full disk or into a removed directory."""
    client = Client(ioc)
    directory = ioc.directory / "series"
    directory.mkdir()
    client.open(plugin, extension, "Single", FilePath=str(directory))
    if gone:
        directory.rmdir()
    client.take(6)
    return client.state(plugin), {path.name: path.stat().st_size for path in sorted(directory.glob("*"))}


def full_tiff(ioc):
    """TIFF, two and a half files of room."""
    return series(ioc, "TIFF1", "tiff", gone=False)


def full_hdf5(ioc):
    """HDF5 in Single mode, the same."""
    return series(ioc, "HDF1", "h5", gone=False)


def gone_tiff(ioc):
    """TIFF into a directory that was removed."""
    return series(ioc, "TIFF1", "tiff", gone=True)


def gone_hdf5(ioc):
    """HDF5 in Single mode, the same."""
    return series(ioc, "HDF1", "h5", gone=True)


@pytest.mark.parametrize(("scenario", "room"), [(full_tiff, 5000), (full_hdf5, 80_000)])
def test_full_disk_in_a_series(tmp_path, scenario, room):
    """Fact 12: the file number goes on, WriteStatus and WriteMessage tell; cut-off and empty files are left."""
    state, sizes = in_fresh_ioc(scenario, tmp_path, disk_space=room)
    assert state["FileNumber_RBV"] == 6
    assert state["WriteStatus"] == 1
    assert "No space left" in state["WriteMessage"]
    assert len(sizes) == 6
    assert sum(sizes.values()) == room
    whole = max(sizes.values())
    assert [sizes[name] for name in sizes][-1] == 0
    assert any(0 < size < whole for size in sizes.values())


@pytest.mark.parametrize("scenario", [gone_tiff, gone_hdf5])
def test_removed_directory_in_a_series(tmp_path, scenario):
    """Fact 12: the same with a directory that was removed, and nothing is left."""
    state, sizes = in_fresh_ioc(scenario, tmp_path)
    assert (state["FileNumber_RBV"], state["WriteStatus"], sizes) == (6, 1, {})
    assert "Error opening file" in state["WriteMessage"]


def stream(ioc, swmr):
    """56 frames in chunks of 16 into one file, with room for 48."""
    client = Client(ioc)
    client.put("HDF1:EnableCallbacks", 1)
    client.take(1)
    client.open("HDF1", "h5", "Stream", NumCapture=0, NumFramesChunks=16, SWMRMode=swmr)
    client.begin("HDF1:Capture", 1)
    wait_for(lambda: client.get("HDF1:Capture_RBV") == 1)
    client.take(56)
    state = client.state("HDF1")
    epics.caput(ioc.prefix + "HDF1:Capture", 0)
    wait_for(lambda: client.get("HDF1:Capture_RBV") == 0)
    return state


def wait_for(condition):
    """Wait until something is so, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def swmr_stream(ioc):
    """With SWMR."""
    return stream(ioc, 1)


def plain_stream(ioc):
    """Without SWMR."""
    return stream(ioc, 0)


def test_full_disk_in_a_stream(tmp_path):
    """Fact 13: no record tells; with SWMR the last chunk was never allocated, and without the file can't be opened."""
    expected = {"FileNumber_RBV": 1, "WriteStatus": 0, "WriteMessage": "", "NumCaptured_RBV": 56}
    for scenario in (swmr_stream, plain_stream):
        directory = tmp_path / scenario.__name__
        state = in_fresh_ioc(scenario, directory, disk_space=48 * FRAME + HEADER)
        assert {name: state[name] for name in expected} == expected
    with h5py.File(tmp_path / "swmr_stream" / "f_000000.h5") as file:
        data = file["entry/data/data"]
        assert data.shape == (56, 32, 48)
        assert data.id.get_num_chunks() == 3
        assert [frame.any() for frame in data] == [True] * 48 + [False] * 8
    with pytest.raises(OSError, match="truncated"):
        h5py.File(tmp_path / "plain_stream" / "f_000000.h5")


def flush(ioc):
    """What NumFramesFlush reads back after puts, below and above NumFramesChunks."""
    client = Client(ioc)
    client.put("HDF1:NumFramesChunks", 4)
    seen = []
    for value in (3, 4, 8, 0):
        client.put("HDF1:NumFramesFlush", value)
        seen.append((client.get("HDF1:NumFramesFlush"), client.get("HDF1:NumFramesFlush_RBV")))
    return seen


def test_flush_below_chunks(tmp_path):
    """Fact 14: a value below NumFramesChunks is not taken; the put completes, the readback stays."""
    assert in_fresh_ioc(flush, tmp_path) == [(3, 0), (4, 4), (8, 8), (0, 8)]


def acquire_twice(ioc):
    """Acquire=1 while the camera acquires, the first time begun with and without put-callback."""
    client = Client(ioc)
    counts = []
    for first in (client.begin, lambda name, value: epics.caput(ioc.prefix + name, value)):
        before = client.get("cam1:ArrayCounter_RBV")
        client.put("cam1:NumImages", 5)
        client.put("cam1:AcquirePeriod", 0.1)
        first("cam1:Acquire", 1)
        wait_for(lambda before=before: client.get("cam1:ArrayCounter_RBV") > before)
        second = client.begin("cam1:Acquire", 1)
        early = second()
        wait_for(second)
        counts.append((early, client.get("cam1:Acquire_RBV"), client.get("cam1:ArrayCounter_RBV") - before))
        time.sleep(0.3)
        counts.append(client.get("cam1:ArrayCounter_RBV") - before)
    return counts


def test_acquire_while_acquiring(tmp_path):
    """Fact 15: no further frames come, and the put completes with the acquisition that was running."""
    assert in_fresh_ioc(acquire_twice, tmp_path) == [(False, 0, 5), 5, (False, 0, 5), 5]


def min_callback_time(ioc):
    """Ten frames in 0.1 s to a plugin that takes one every 10 s."""
    client = Client(ioc)
    client.open("TIFF1", "tiff", "Single", MinCallbackTime=10)
    client.take(10)
    return client.state("TIFF1")


def test_min_callback_time(tmp_path):
    """Fact 16: frames that come sooner are skipped, and not counted as dropped."""
    state = in_fresh_ioc(min_callback_time, tmp_path)
    assert (state["FileNumber_RBV"], state["DroppedArrays_RBV"], state["WriteStatus"]) == (1, 0, 0)


def late_outputs(ioc):
    """Size and type at the file plugin behind ROI, Proc and Trans, before and after the frame that follows a change."""
    client = Client(ioc)
    client.put("HDF1:EnableCallbacks", 1)
    seen = []
    changes = {
        "ROI1": (("EnableX", 1), ("SizeX", 20)),
        "Proc1": (("DataTypeOut", "UInt16"),),
        "Trans1": (("Type", "Rot90"),),
    }
    for plugin, settings in changes.items():
        client.put("HDF1:NDArrayPort", client.get(f"{plugin}:PortName_RBV"))
        client.put(f"{plugin}:EnableCallbacks", 1)
        client.put(f"{plugin}:ArrayCallbacks", 1)
        client.put(f"{plugin}:NDArrayPort", client.get("cam1:PortName_RBV"))
        client.take(1)
        for name, value in settings:
            client.put(f"{plugin}:{name}", value)
        for _ in range(2):
            names = ("ArraySize0_RBV", "ArraySize1_RBV", "DataType_RBV")
            seen.append(tuple(client.get(f"HDF1:{name}") for name in names))
            client.take(1)
    return seen


def test_outputs_show_with_the_next_frame(tmp_path):
    """Fact 17: until the next frame the file plugin shows size and type of the last one."""
    expected = [(48, 32, 1), (20, 32, 1), (48, 32, 1), (48, 32, 3), (48, 32, 1), (32, 48, 1)]
    assert in_fresh_ioc(late_outputs, tmp_path) == expected


def codecs(ioc):
    """What is written of frames with each codec, into both formats."""
    client = Client(ioc)
    client.put("Codec1:EnableCallbacks", 1)
    client.put("Codec1:ArrayCallbacks", 1)
    client.put("Codec1:NDArrayPort", client.get("cam1:PortName_RBV"))
    seen = {}
    for codec in ("None", "JPEG", "Blosc", "LZ4", "BSLZ4"):
        client.put("Codec1:Compressor", codec)
        for plugin, extension in (("TIFF1", "tiff"), ("HDF1", "h5")):
            name = f"{codec}_{extension}"
            client.open(plugin, extension, "Single", FileName=name, FileNumber=0, NDArrayPort="CODEC1")
        client.take(2)
        for plugin, extension in (("TIFF1", "tiff"), ("HDF1", "h5")):
            files = len(list(ioc.directory.glob(f"{codec}_{extension}*")))
            seen[codec, extension] = (files, client.get(f"{plugin}:WriteMessage"), client.get(f"{plugin}:Codec_RBV"))
    return seen


def test_codec(tmp_path):
    """Fact 18: with a codec that the plugin can't write no frame is written, and no word said."""
    seen = in_fresh_ioc(codecs, tmp_path)
    expected = {(codec, "tiff"): 0 for codec in ("JPEG", "Blosc", "LZ4", "BSLZ4")} | {
        ("None", "tiff"): 2, ("None", "h5"): 2, ("JPEG", "h5"): 0, ("Blosc", "h5"): 2, ("LZ4", "h5"): 2,
        ("BSLZ4", "h5"): 2,
    }  # fmt: skip
    assert {key: files for key, (files, _, _) in seen.items()} == expected
    assert {message for _, message, _ in seen.values()} == {""}
    assert [seen[codec, "h5"][2] for codec in ("None", "JPEG", "LZ4")] == ["", "jpeg", "lz4"]
    with h5py.File(tmp_path / "Blosc_h5_000000.h5") as file:
        assert pattern.number(file["entry/data/data"][:]) > 0


def position_mode(ioc):
    """Capture with PositionMode left on."""
    client = Client(ioc)
    client.put("HDF1:EnableCallbacks", 1)
    client.take(1)
    client.open("HDF1", "h5", "Stream", PositionMode=1)
    client.put("HDF1:Capture", 1)
    return client.get("HDF1:Capture_RBV"), client.get("HDF1:WriteStatus"), len(list(ioc.directory.iterdir()))


def test_position_mode(tmp_path):
    """Fact 18: the capture fails at once."""
    assert in_fresh_ioc(position_mode, tmp_path) == (0, 1, 0)


def layouts(ioc):
    """A layout as XML, as a file, one that can't be read, and none; with a capture after each."""
    client = Client(ioc)
    client.put("HDF1:EnableCallbacks", 1)
    client.take(1)
    (ioc.directory / "layout.xml").write_text(LAYOUT)
    valid = []
    for number, text in enumerate((LAYOUT, str(ioc.directory / "layout.xml"), "<hdf5_layout>", "")):
        client.put("HDF1:XMLFileName", text)
        valid.append(client.get("HDF1:XMLValid_RBV"))
        client.open("HDF1", "h5", "Stream", FileName=f"layout{number}", NumCapture=0)
        client.begin("HDF1:Capture", 1)
        wait_for(lambda: client.get("HDF1:Capture_RBV") == 1)
        client.take(2)
        epics.caput(ioc.prefix + "HDF1:Capture", 0)
        wait_for(lambda: client.get("HDF1:Capture_RBV") == 0)
    return valid


def test_layout(tmp_path):
    """Fact 19: a layout puts the frames elsewhere."""
    assert in_fresh_ioc(layouts, tmp_path) == [1, 1, 0, 1]
    for number in (0, 1):
        (path,) = tmp_path.glob(f"layout{number}_*.h5")
        with h5py.File(path) as file:
            assert file["exchange/frames"].shape == (2, 32, 48)
            assert file["exchange/also/frames"] == file["exchange/frames"]
            assert len(file["exchange/of frame/NDArrayUniqueId"]) == 2
            assert "entry" not in file
    (path,) = tmp_path.glob("layout3_*.h5")
    with h5py.File(path) as file:
        assert file["entry/data/data"].shape == (2, 32, 48)


def rgb2(ioc):
    """An RGB2 frame as TIFF; the sizes of the array."""
    client = Client(ioc)
    client.put("cam1:ColorMode", "RGB2")
    client.open("TIFF1", "tiff", "Single")
    client.take(1)
    return [client.get(f"TIFF1:ArraySize{axis}_RBV") for axis in range(3)]


def test_rgb2_tiff(tmp_path):
    """Fact 20: the file's pages are (3, y, x), while the array was (y, 3, x)."""
    assert in_fresh_ioc(rgb2, tmp_path) == [48, 3, 32]
    assert tifffile.imread(tmp_path / "f_000000.tiff").shape == (3, 32, 48)


def death(ioc):
    """An IOC that dies in an exposure, and is rebooted."""
    client = Client(ioc)
    client.put("cam1:AcquireTime", 30)
    client.begin("cam1:Acquire", 1)
    wait_for(lambda: client.get("cam1:Acquire_RBV") == 1)
    disconnected = []
    pv = epics.get_pv(ioc.prefix + "cam1:AcquireTime_RBV", connect=True, timeout=10)
    pv.connection_callbacks.append(lambda conn=None, **_: disconnected.append(not conn))
    ioc.kill()
    wait_for(lambda: True in disconnected)
    ioc.reboot()
    wait_for(lambda: pv.connected)
    return client.get("cam1:AcquireTime_RBV"), client.get("cam1:Acquire_RBV"), pv.connected


def test_death_and_reboot(tmp_path):
    """Fact 21: clients lose an IOC that dies in an exposure; a rebooted one has lost all settings."""
    assert in_fresh_ioc(death, tmp_path) == (0.001, 0, True)

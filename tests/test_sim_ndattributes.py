"""NDAttributes of the simulated IOC, in the words of areaDetector's XML."""

import asyncio

import h5py
import numpy as np
import pytest

from bluesky_filestore.sim.ndattributes import AttributesError, read_attributes
from bluesky_filestore.sim.records import Records, load_records
from bluesky_filestore.sim.simulator import Simulator

CAMERA = """<Attributes>
<Attribute name="temperature" type="EPICS_PV" source="13SIM1:cam1:Temperature_RBV" dbrtype="DBR_DOUBLE"/>
<Attribute name="count" type="PARAM" source="ARRAY_COUNTER" datatype="INT"/>
</Attributes>"""
PLUGIN = """<Attributes>
<Attribute name="model" type="PARAM" source="PLUGIN_TYPE" datatype="STRING"/>
<Attribute name="mode" source="X:cam1:ImageMode" dbrtype="DBR_STRING"/>
<Attribute name="away" source="OTHER:m1.RBV" dbrtype="DBR_DOUBLE"/>
</Attributes>"""


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ('source="13SIM1:cam1:Gain" dbrtype="DBR_FLOAT"', np.float32(1)),
        ('source="cam1:NumImages"', np.int32(100)),
        ('source="cam1:ImageMode" dbrtype="DBR_ENUM"', np.int16(2)),
        ('source="cam1:ImageMode" dbrtype="DBR_STRING"', np.bytes_(b"Continuous")),
        ('type="PARAM" source="ACQ_TIME" datatype="DOUBLE"', np.float64(0.001)),
        ('type="PARAM" source="Gain" datatype="INT64"', np.int64(1)),
        ('type="CONST" source="7" datatype="INT"', np.int32(7)),
        ('type="FUNCT" source="time64" param="x"', None),
        ('source="13SIM1:cam1:NoSuchRecord" dbrtype="DBR_LONG"', None),
    ],
)
def test_values(element, value):
    """Each kind of source has its value and type; what is not connected has none."""
    records = Records(load_records())
    (attribute,) = read_attributes(f'<Attributes><Attribute name="a" {element}/></Attributes>', "cam1:", records)
    found = attribute.value(records)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "status"),
    [("/no/such/file.xml", 1), ("<Attributes><", 2), ("<!DOCTYPE a><Attributes>", 2), ("<Attributes>$(P)", 3)],
)
def test_what_cannot_be_read(text, status):
    """The status is the real one's."""
    with pytest.raises(AttributesError) as caught:
        read_attributes(text, "cam1:", Records(load_records()))
    assert caught.value.status == status


def test_in_a_file(tmp_path):
    """What camera and plugin add is in the file, a value a frame, of the moment in which it was taken."""
    (tmp_path / "plugin.xml").write_text(PLUGIN)

    async def take():
        async with Simulator() as simulator:
            for name, value in (
                ("cam1:NDAttributesFile", CAMERA), ("HDF1:NDAttributesFile", str(tmp_path / "plugin.xml")),
                ("cam1:SizeX", 6), ("cam1:SizeY", 4), ("cam1:ImageMode", "Single"), ("cam1:WaitForPlugins", 1),
                ("HDF1:EnableCallbacks", 1), ("HDF1:FilePath", str(tmp_path)), ("HDF1:FileName", "a"),
                ("HDF1:FileTemplate", "%s%s.h5"), ("HDF1:FileWriteMode", "Stream"), ("HDF1:LazyOpen", 1),
                ("HDF1:NumCapture", 0), ("HDF1:Capture", 1),
            ):  # fmt: skip
                simulator.put(name, value)
            for degrees in (20, 21.5):
                simulator.put("cam1:Temperature", degrees)
                simulator.put("cam1:Acquire", 1)
                await simulator.until_done("cam1:Acquire")
            simulator.put("HDF1:Capture", 0)
            return simulator.records["cam1:NDAttributesStatus"], simulator.records["HDF1:NDAttributesStatus"]

    assert asyncio.run(take()) == (0, 0)
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["entry/instrument/NDAttributes"]
        assert list(group["temperature"]) == [20, 21.5]
        assert list(group["count"]) == [1, 2]
        assert (list(group["mode"]), group["mode"].dtype) == ([b"Single"] * 2, "S256")
        assert "away" not in group
        assert group["temperature"].attrs["NDAttrSource"] == "13SIM1:cam1:Temperature_RBV"
        assert list(group["NDArrayUniqueId"]) == [1, 2]

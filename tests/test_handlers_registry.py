"""Which handler reads which spec."""

import logging
import re
import sys
import textwrap
from pathlib import Path

import event_model
import numpy as np
import pytest

from bluesky_filestore import handler_registry, handlers
from bluesky_filestore.errors import DuplicateHandlerError, HandlerNotFoundError
from bluesky_filestore.handlers import HandlerRegistry
from bluesky_filestore.handlers.hdf5 import AreaDetectorHDF5Handler

OURS = {"AD_HDF5", "AD_HDF5_SINGLE", "AD_HDF5_SWMR", "AD_HDF5_TS", "AD_SPE", "AD_TIFF", "HDF5", "NPY_SEQ", "XSP3"}


class Mine:
    """A beamline's own handler."""

    def __init__(self, path, factor=1):
        self._path, self._factor = path, factor

    def __call__(self, number):
        return np.full((2, 2), number * self._factor)


class Other(Mine):
    """Another one."""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs a package, as far as its metadata and one module go."""

    def install(name: str, group: str, entries: dict[str, str], code: str = "") -> None:
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(f"{spec} = {value}" for spec, value in entries.items())
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for path in Path(tmp_path).glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_ours_are_preferred():
    """Where the public package has a handler, too, ours is taken; what only others have is there."""
    found = HandlerRegistry().discover()
    assert set(found) >= OURS
    assert {found[spec].__module__.split(".")[0] for spec in OURS} == {"bluesky_filestore"}
    assert found["AD_CBF"].__module__ == "area_detector_handlers.handlers"


def test_is_a_read_only_mapping():
    """It is what event-model and databroker take, and nobody changes it by accident."""
    registry = HandlerRegistry()
    assert registry["AD_HDF5"] is AreaDetectorHDF5Handler
    assert "AD_HDF5" in registry
    assert "AD_GIF" not in registry
    assert registry.get("AD_GIF") is None
    assert dict(registry) == dict(registry.items())
    assert len(registry) == len(list(registry))
    assert "AD_HDF5, " in repr(registry)
    with pytest.raises(TypeError, match="does not support item assignment"):
        registry["AD_HDF5"] = Mine


def test_imports_what_is_asked_for_alone(packages):
    """Asking for one spec imports one handler: others may be slow, or broken."""
    packages("slow_package", "databroker.handlers", {"SLOW": "slow_package:Handler"}, "class Handler: pass")
    registry = HandlerRegistry()
    assert registry["AD_HDF5"] is AreaDetectorHDF5Handler
    assert "slow_package" not in sys.modules
    assert registry["SLOW"].__name__ == "Handler"


def test_package_that_registers_while_it_is_imported(packages):
    """An import that registers handlers, in another thread, does not stop the registry."""
    code = """
        import threading
        from bluesky_filestore import register_handler
        class Handler: pass
        thread = threading.Thread(target=register_handler, args=("OTHER", Handler))
        thread.start()
        thread.join()
    """
    packages("registering", "databroker.handlers", {"REGISTERING": "registering:Handler"}, code)
    handlers.discover_handlers()
    try:
        assert handler_registry["REGISTERING"] is handler_registry["OTHER"]
    finally:
        handlers.deregister_handler("OTHER")
        sys.path_importer_cache.clear()
        handlers.deregister_handler("REGISTERING")


def test_register(packages):
    """A spec gets a handler; another one needs overwrite; the same again is nothing new."""
    registry = HandlerRegistry()
    registry.register("MINE", Mine)
    registry.register("MINE", Mine)
    assert registry["MINE"] is Mine
    with pytest.raises(
        DuplicateHandlerError, match=r"spec 'MINE' is read by .*\.Mine already.* .*\.Other with overwrite"
    ):
        registry.register("MINE", Other)
    with pytest.raises(DuplicateHandlerError, match="AreaDetectorHDF5Handler already"):
        registry.register("AD_HDF5", Mine)
    registry.register("AD_HDF5", Mine, overwrite=True)
    assert registry["AD_HDF5"] is Mine
    with pytest.raises(TypeError, match="handler 'Mine' cannot be called"):
        registry.register("MINE", "Mine")


def test_deregister():
    """Nobody reads the spec then, until it is registered or discovered again."""
    registry = HandlerRegistry()
    assert registry.deregister("AD_HDF5") is AreaDetectorHDF5Handler
    assert "AD_HDF5" not in registry
    assert registry.deregister("AD_HDF5") is None
    assert registry.discover()["AD_HDF5"] is AreaDetectorHDF5Handler


def test_discover_keeps_what_was_registered():
    """What a user has registered stays in its place."""
    registry = HandlerRegistry()
    registry.register("AD_HDF5", Mine, overwrite=True)
    registry.register("MINE", Mine)
    assert registry.discover()["AD_HDF5"] is Mine
    assert registry["MINE"] is Mine


def test_broken_package(packages, caplog):
    """A handler that cannot be imported is told to the log, once and by name; the next one for the spec is taken."""
    packages(
        "broken_package", "bluesky_filestore.handlers", {"BROKEN": "broken_package:Handler"}, "raise ValueError(5)"
    )
    packages("absent", "databroker.handlers", {"ABSENT": "no_such_module:Handler"})
    packages("works", "databroker.handlers", {"BROKEN": "works:Handler"}, "class Handler: pass")
    registry = HandlerRegistry()
    with caplog.at_level(logging.WARNING, logger="bluesky_filestore"):
        found = registry.discover()
        registry.discover()
        assert "ABSENT" not in registry
    assert found["BROKEN"].__module__ == "works"
    assert sorted(record.getMessage().split(" cannot ")[0] for record in caplog.records) == [
        "handler bluesky_filestore.handlers: BROKEN = broken_package:Handler of package broken_package",
        "handler databroker.handlers: ABSENT = no_such_module:Handler of package absent",
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("AD_GIF", r"no handler for spec 'AD_GIF'; expected one of AD_CBF, .*XSP3.*\. Install the package that brings"),
        (
            "MultiKeySlice",
            r"Install splash-ingest, which brings one, or give yours to register_handler\('MultiKeySlice'",
        ),
    ],
)
def test_unknown_spec(spec, words):
    """The error names the spec, those that are known, and what would bring it; it is a KeyError, too."""
    with pytest.raises(HandlerNotFoundError, match=words) as caught:
        HandlerRegistry()[spec]
    assert isinstance(caught.value, KeyError)


def test_spec_of_a_package_that_is_not_installed():
    """Of a plain dict of handlers it is said what is in it, and what would bring the spec."""
    from bluesky_filestore.handlers.registry import find_handler

    with pytest.raises(HandlerNotFoundError, match=r"'AD_CBF'; expected one of MINE\. Install area-detector-handlers"):
        find_handler("AD_CBF", {"MINE": Mine})
    with pytest.raises(HandlerNotFoundError, match="expected one of none at all"):
        find_handler("AD_CBF", {})


def test_functions_of_the_package():
    """register_handler, deregister_handler and discover_handlers work on handler_registry."""
    handlers.register_handler("MINE", Mine)
    try:
        assert handlers.discover_handlers()["MINE"] is handler_registry["MINE"] is Mine
    finally:
        assert handlers.deregister_handler("MINE") is Mine
    assert "MINE" not in handler_registry


def test_public_filler():
    """event-model's Filler takes the registry as it is, and what was registered is in it."""
    registry = HandlerRegistry()
    registry.register("MINE", Mine)
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": [2, 2], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    resource = run.compose_resource(spec="MINE", root="/", resource_path="x", resource_kwargs={"factor": 3})
    datum = resource.compose_datum({"number": 4})
    event = stream.compose_event(data={"image": datum["datum_id"]}, timestamps={"image": 1}, filled={"image": False})
    with event_model.Filler(registry, inplace=False) as filler:
        for name, doc in (("descriptor", stream.descriptor_doc), ("resource", resource.resource_doc), ("datum", datum)):
            filler(name, doc)
        _, filled = filler("event", event)
    np.testing.assert_array_equal(filled["data"]["image"], np.full((2, 2), 12))


def test_handler_of_the_how_to(tmp_path):
    """The handler that the documentation shows reads what it says, and says what it can't read."""
    page = Path(__file__).parent.parent / "docs" / "how-to" / "register-a-handler.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    names: dict = {}
    try:
        exec(code, names)  # noqa: S102 - our own page
        np.arange(24, dtype="<u2").tofile(tmp_path / "a.raw")
        handler = handler_registry["MY_RAW"](str(tmp_path / "a.raw"), shape=[2, 3], frame_per_point=2)
        np.testing.assert_array_equal(handler(point_number=1), np.arange(12, 24).reshape(2, 2, 3))
        with pytest.raises(OSError, match="ends within point 2"):
            handler(point_number=2)
    finally:
        handlers.deregister_handler("MY_RAW")


def test_databroker(tmp_path):
    """The MongoDB adapter of databroker takes the registry as it is, and serves what our handlers read."""
    databroker = pytest.importorskip("databroker.mongo_normalized")
    pytest.importorskip("mongomock")

    adapter = databroker.MongoAdapter.from_mongomock(handler_registry=HandlerRegistry())
    np.save(tmp_path / "a_0.npy", np.arange(6).reshape(2, 3))
    run = event_model.compose_run()
    key = {"source": "s", "dtype": "array", "shape": [2, 3], "external": "FILESTORE:", "dtype_str": "<i8"}
    stream = run.compose_descriptor(name="primary", data_keys={"image": key})
    resource = run.compose_resource(spec="NPY_SEQ", root=str(tmp_path), resource_path="a", resource_kwargs={})
    datum = resource.compose_datum({"index": 0})
    event = stream.compose_event(data={"image": datum["datum_id"]}, timestamps={"image": 1.0}, filled={"image": False})
    database = adapter._run_start_collection.database
    for collection, doc in [
        ("run_start", run.start_doc),
        ("event_descriptor", stream.descriptor_doc),
        ("resource", resource.resource_doc),
        ("datum", datum),
        ("event", event),
        ("run_stop", run.compose_stop()),
    ]:
        database[collection].insert_one(dict(doc))
    values = adapter[run.start_doc["uid"]]["primary"]["data"]["image"].read()
    np.testing.assert_array_equal(values, [[[0, 1, 2], [3, 4, 5]]])

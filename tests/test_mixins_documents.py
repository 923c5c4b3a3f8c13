"""The documents of a file store, and the names that subclasses in the wild rely on, without any records."""

import re

import event_model
import pytest
from ophyd import Device

from bluesky_filestore import FileStoreBase, FileStoreIterativeWrite
from bluesky_filestore.errors import PathError, StageError


class Store(Device, FileStoreIterativeWrite):
    """A file store that knows its file at once."""

    filestore_spec = "AD_HDF5"

    def stage(self):
        staged = super().stage()
        self._fn = "/data/2026/a.h5"
        self._generate_resource({"frame_per_point": 2})
        return staged


class Detector(Device):
    """As much of a detector as `describe` asks for."""

    def make_data_key(self):
        return {"source": "PV:", "dtype": "array", "shape": [2, 3, 4], "external": "FILESTORE:"}


class Registry:
    """What filestore's registry was like."""

    def __init__(self):
        self.resources, self.datums = [], []

    def register_resource(self, spec, root, rpath, rkwargs, path_semantics):
        self.resources.append((spec, root, rpath, rkwargs, path_semantics))
        return "resource-of-registry"

    def register_datum(self, resource_uid, datum_kwargs):
        self.datums.append((resource_uid, datum_kwargs))
        return f"datum-{len(self.datums)}"


def make(cls=Store, **options):
    """A store on a detector."""
    return cls(
        "", name="store", parent=Detector("", name="det"), write_path_template="/data/%Y", root="/data", **options
    )


def test_documents():
    """A Resource a stage, a Datum a point, each handed out once and valid."""
    store = make()
    store.stage()
    first = store.generate_datum("image", 1.0, {})
    second = store.generate_datum("image", 2.0, {"extra": True})
    documents = list(store.collect_asset_docs())
    assert [name for name, _ in documents] == ["resource", "datum", "datum"]
    resource = documents[0][1]
    assert (resource["root"], resource["resource_path"], resource["path_semantics"]) == ("/data", "2026/a.h5", "posix")
    assert [doc["datum_kwargs"] for name, doc in documents if name == "datum"] == [
        {"point_number": 0},
        {"point_number": 1, "extra": True},
    ]
    assert [doc["datum_id"] for name, doc in documents if name == "datum"] == [first, second]
    assert store.read()["image"] == {"value": second, "timestamp": 2.0}
    assert store.describe()["image"]["shape"] == [2, 3, 4]
    for name, doc in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(dict(doc))
    assert next(store.collect_asset_docs())[0] == "resource", "described after it was collected: a new run"


def test_callers_kwargs_are_not_changed():
    """The dict that the detector hands to all of its plugins stays as it is."""
    store = make()
    store.stage()
    shared = {}
    store.generate_datum("image", 1.0, shared)
    assert shared == {}


def test_protected_names():
    """The names that subclasses use are there and mean what they did."""
    store = make()
    assert (store._resource_uid, store._point_counter, store._locked_key_list) == (None, None, False)
    store.stage()
    assert store._asset_docs_cache[0] == ("resource", store._asset_docs_cache[0][1])
    assert store._resource_uid == store._asset_docs_cache[0][1]["uid"]
    store.generate_datum("image", 1.0, None)
    assert [reading["timestamp"] for reading in store._datum_uids["image"]] == [1.0]
    assert next(store._point_counter) == 1
    assert store.filestore_spec == "AD_HDF5"
    store.unstage()
    assert (store._resource_uid, store._point_counter) == (None, None)


def test_no_key_after_description():
    """A data key that the descriptor does not name is refused, as ever."""
    store = make()
    store.stage()
    store.generate_datum("image", 1.0, {})
    store.describe()
    with pytest.raises(
        RuntimeError, match=r"modifying after lock: 'dark' is a new data key.*described already as \['image'\]"
    ):
        store.generate_datum("dark", 2.0, {})


def test_not_staged():
    """A trigger without stage has no file to name."""
    with pytest.raises(StageError, match="stage it before it is triggered"):
        make().generate_datum("image", 1.0, {})


def test_file_elsewhere():
    """A file that is not under the root can't be documented."""

    class Elsewhere(Store):
        def stage(self):
            super().stage()
            self._fn = "/elsewhere/a.h5"
            self._generate_resource({})

    with pytest.raises(PathError, match=r"'/elsewhere/a\.h5' is not under root '/data'"):
        make(Elsewhere).stage()


def test_uncollected_documents_are_not_lost(caplog):
    """What nobody collected is announced at unstage, and can still be had."""
    store = make()
    store.stage()
    store.generate_datum("image", 1.0, {})
    store.unstage()
    assert re.search(
        r"store was unstaged with 1 datum documents for /data/2026/a\.h5 that nobody collected", caplog.text
    )
    assert [name for name, _ in store.collect_asset_docs()] == ["resource", "datum"]
    store.stage()
    assert [name for name, _ in store.collect_asset_docs()] == ["resource"]


def test_second_run_of_a_stage_is_complete():
    """A description after the documents were collected begins a new run: its datums have a Resource of their own."""
    store = make()
    store.stage()
    store.generate_datum("image", 1.0, {})
    store.read(), store.describe()
    first = dict(store.collect_asset_docs())
    store.generate_datum("image", 2.0, {})
    reading = store.read()
    store.describe()
    second = dict(store.collect_asset_docs())
    assert second["resource"]["uid"] != first["resource"]["uid"]
    assert {**second["resource"], "uid": ""} == {**first["resource"], "uid": ""}
    assert second["datum"]["resource"] == second["resource"]["uid"]
    assert second["datum"]["datum_kwargs"] == {"point_number": 1}
    assert reading["image"]["value"] == second["datum"]["datum_id"]
    assert store.generate_datum("image", 3.0, {}).startswith(second["resource"]["uid"])


@pytest.mark.parametrize("name", ["reg", "fs"])
def test_registry(name):
    """A registry's ids are used, with a warning that it is not needed any more."""
    registry = Registry()
    with pytest.warns(DeprecationWarning, match=f"{name}= is deprecated: leave it out"):
        store = make(**{name: registry})
    store.stage()
    assert store.generate_datum("image", 1.0, {}) == "datum-1"
    assert registry.resources == [("AD_HDF5", "/data", "2026/a.h5", {"frame_per_point": 2}, "posix")]
    assert registry.datums == [("resource-of-registry", {"point_number": 0})]
    documents = dict(store.collect_asset_docs())
    assert documents["resource"]["uid"] == "resource-of-registry"
    assert documents["datum"] == {
        "resource": "resource-of-registry",
        "datum_id": "datum-1",
        "datum_kwargs": {"point_number": 0},
    }


def test_subclasses_override_hooks():
    """A subclass that adds to datums and descriptions is heard."""

    class Custom(Store):
        def generate_datum(self, key, timestamp, datum_kwargs):
            return super().generate_datum(key, timestamp, {**datum_kwargs, "chunk": 7})

        def describe(self):
            described = super().describe()
            for key in self._datum_uids:
                described[key]["dims"] = ["frame", "y", "x"]
            return described

    store = make(Custom)
    store.stage()
    store.generate_datum("image", 1.0, {})
    assert store.describe()["image"]["dims"] == ["frame", "y", "x"]
    assert dict(store.collect_asset_docs())["datum"]["datum_kwargs"] == {"chunk": 7, "point_number": 0}


def test_base_stands_alone():
    """The base class can be made without a device, as ophyd's can."""
    assert FileStoreBase(write_path_template="/data").read_path_template == "/data/"

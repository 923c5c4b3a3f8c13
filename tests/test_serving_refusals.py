"""Registrations and requests that are wrong: each is refused at once and in words, and the server never fails at it."""

import copy
import json
import time

import h5py
import httpx
import numpy as np
import pandas
import pytest
import tifffile

from bluesky_filestore import serve_catalog
from bluesky_filestore.model.addressing import FILE_SERIES, HANDLED, HDF5_ROWS
from bluesky_filestore.model.ragged_rows import RAGGED
from bluesky_filestore.model.specs import HDF5, TIFF_SERIES

ROWS = {"dataset": "d", "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
SERIES = {"mimetype": TIFF_SERIES, "templates": ["f_%d.tif"], "frames_per_event": 1, "rows": [[0, 0, 3, 1]]}
HANDLERS = {"spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}, "datum_kwargs": [{"point_number": 0}] * 3}
BYTES = {"endianness": "not_applicable", "kind": "u", "itemsize": 1, "dt_units": None}
JSON = {"content-type": "application/json"}
FRAMES = np.arange(48, dtype="u1").reshape(3, 4, 4)
HUGE, LONG = "9" * 30, "9" * 5000


class Place:
    """A server, and what is in it: an array of each kind, values, a table and a container."""

    def __init__(self, directory):
        self.data, self.outside, self.keys = directory / "data", directory / "outside", 0
        self.data.mkdir()
        self.outside.mkdir()
        for path in (self.data / "x.h5", self.outside / "x.h5"):
            with h5py.File(path, "w") as file:
                file["d"] = FRAMES
                file["fields"], file["text"], file["number"] = np.zeros(3, [("a", "u1")]), np.array([b"a"] * 3), 5
                file.create_group("group")
        for number in range(3):
            tifffile.imwrite(self.data / f"f_{number}.tif", FRAMES[number])
        self.server = serve_catalog(directory / "catalog", readable=self.data)
        self.http = httpx.Client(
            base_url=self.server.uri, headers={"Authorization": f"Apikey {self.server.api_key}"}, timeout=60
        )
        for key, body in (("rows", self.body()), ("plain", self.plain()), ("series", self.series())):
            assert self.register({**body, "id": key}).status_code == 200
        for name in ("fields", "text", "number"):
            body = self.plain({"dataset": name}, shape=[] if name == "number" else [3])
            assert self.register({**body, "id": name}).status_code == 200
        self.server.client.write_array(np.arange(12).reshape(3, 4), key="uploaded")
        self.server.client.write_table(pandas.DataFrame({"a": [1, 2]}), key="table")
        self.server.client.create_container(key="box", metadata={"start": {"uid": "u", "time": 1.0}})
        whole = self.body(mimetype=HDF5, parameters={}, family="container", structure=None)
        assert self.register({**whole, "id": "whole"}).status_code == 200

    def body(self, mimetype=HDF5_ROWS, parameters=ROWS, shape=(3, 4, 4), assets=None, family="array", **changes):
        """What is registered, as it is sent."""
        self.keys += 1
        structure = {"data_type": BYTES, "shape": shape, "chunks": [[n] for n in shape], "dims": None}
        uris = [f"file://localhost{self.data}/x.h5"] if assets is None else assets
        source = {
            "structure_family": family,
            "structure": structure | {"resizable": False},
            "mimetype": mimetype,
            "parameters": parameters,
            "properties": {},
            "management": "external",
            "assets": [
                {"data_uri": uri, "is_directory": False, "parameter": "data_uris", "num": number}
                for number, uri in enumerate(uris)
            ],
        }
        named = {"id": f"k{self.keys}", "structure_family": family, "metadata": {}, "specs": []}
        return {**named, "data_sources": [source | changes]}

    def plain(self, parameters=None, **changes):
        """A dataset as everybody registers it."""
        return self.body(HDF5, {"dataset": "d"} if parameters is None else parameters, **changes)

    def series(self, **changes):
        """Numbered files of a directory."""
        body = self.body(FILE_SERIES, {**SERIES, **changes}, assets=[f"file://localhost{self.data}"])
        body["data_sources"][0]["assets"][0]["is_directory"] = True
        return body

    def register(self, body):
        """The answer to a registration."""
        return self.http.post("/api/v1/register/", content=json.dumps(body), headers=JSON)

    def count(self):
        """How many nodes the catalog has."""
        return self.http.get("/api/v1/search/", params={"page[limit]": 0}).json()["meta"]["count"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One server for all of it: whatever is refused may not harm it."""
    place = Place(tmp_path_factory.mktemp("refusals"))
    with place.server:
        yield place
        place.http.close()


def wrong_registrations(place):
    """Each with the words that it is refused with."""
    here = f"file://localhost{place.data}/x.h5"
    yield place.body(shape=(3, 4, 5)), "16 elements are taken; expected 20 of each"
    yield place.body(shape=(2, 4, 4)), "expected 3 rows, as many as its spans have"
    yield place.body(shape=(-3, 4, 4)), "none below 0"
    for chunks in ([[1, 1], [4], [4]], [[3], [4]], [[-1, 4], [4], [4]]):
        body = place.plain()
        body["data_sources"][0]["structure"]["chunks"] = chunks
        yield body, "expected along each axis the sizes of its chunks"
    yield (
        place.body(parameters={**ROWS, "rows": [[0, 0, 3, 2]]}),
        "holds 3 frames in dataset d; expected 5 for its rows",
    )
    yield place.body(parameters={**ROWS, "rows": [[9, 0, 3, 1]]}), "file number 9; expected one of 1 assets"
    yield place.body(parameters={**ROWS, "rows": [[0, 0, 3]]}), "rows are not a list of row spans"
    yield place.body(parameters={**ROWS, "unknown": 1}), "have ['unknown'] that are not known"
    yield place.body(parameters={**ROWS, "slice": "x"}), "slice 'x' cannot be understood"
    yield place.body(parameters={**ROWS, "slice": ":,:,5"}), "slice ':,:,5' does not fit"
    for name, words in (("none", "no dataset none"), ("group", "a group of 0"), ("fields", "compound type")):
        yield place.body(parameters={**ROWS, "dataset": name}), words
    yield place.plain({"dataset": "none"}), "no dataset none"
    yield place.plain({"dataset": "d", "slice": 5}), "slice is 5"
    for templates, words in (
        (["f.tif"], "no field for"),
        (["../%d"], "another directory"),
        (["%d"] * 2, "2 templates"),
    ):
        yield place.series(templates=templates), words
    yield place.body(HANDLED, {**HANDLERS, "datum_kwargs": [{}] * 2}), "expected 2 events"
    yield place.body(HANDLED, {"spec": 5}), "do not say what the events are"
    yield place.body(RAGGED, {}, family="array"), "is of family array; expected ragged"
    yield place.body(HDF5_ROWS, ROWS, family="container"), "is of family container; expected array"
    yield (
        {**place.plain(), "structure_family": "container"},
        "has a data source of family array",
    )
    for dtype in ({**BYTES, "kind": "O"}, {**BYTES, "kind": "V", "itemsize": 8}):
        body = place.body()
        body["data_sources"][0]["structure"]["data_type"] = dtype
        yield body, ""
    for mimetype, parameters in ((HDF5_ROWS, ROWS), (HDF5, {"dataset": "d"}), (TIFF_SERIES, {}), (HANDLED, HANDLERS)):
        for assets, words in (
            ([], "has no assets"),
            ([here] * 2, "is there 2 times; expected each once"),
            ([here] * 3, "is there 3 times; expected each once"),
            (["sqlite:///x"], "not a file of one machine"),
            (["file:x.h5"], "not a file of one machine"),
            ([f"{here}?a=1"], "not a file of one machine"),
        ):
            yield place.body(mimetype, parameters, assets=assets), words
    twice = place.body(assets=[f"file://localhost{place.data}/{name}" for name in "ab"])
    twice["data_sources"][0]["assets"][1]["num"] = 0
    yield twice, "2 assets have the number 0"
    yield place.body(mimetype="x/y"), "x/y"
    for key in ("a/b", "..", "a\0"):
        yield {**place.body(), "id": key}, "cannot be part of an address"
    two = place.body()
    two["data_sources"] *= 2
    yield two, ""


def test_wrong_registrations(place):
    """Each is refused with 4xx and its words, and leaves nothing in the catalog."""
    before = place.count()
    for body, words in wrong_registrations(place):
        answer = place.register(body)
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert words in str(answer.json()["detail"]), (words, answer.text)
    assert place.count() == before


def test_files_that_may_not_be_read(place):
    """They are registered, for the server may be started with their directory the next time, and refused when read."""
    for path in (f"{place.outside}/x.h5", f"{place.data}/../outside/x.h5", "/dev/zero", "/nowhere/x.h5"):
        for mimetype, parameters in ((HDF5_ROWS, ROWS), (HDF5, {"dataset": "d"})):
            body = place.body(mimetype, parameters, assets=[f"file://localhost{path}"])
            place.register(body).raise_for_status()
            accept = {"Accept": "application/octet-stream"}
            answer = place.http.get(f"/api/v1/array/full/{body['id']}", headers=accept)
            assert answer.status_code in (403, 404), answer.text
            place.http.delete(f"/api/v1/metadata/{body['id']}").raise_for_status()


def test_wrong_changes_of_a_registration(place):
    """What is wrong to register is wrong to put in the place of what is registered, which stays."""
    (source,) = place.http.get("/api/v1/metadata/rows?include_data_sources=true").json()["data"]["attributes"][
        "data_sources"
    ]
    for body, _ in wrong_registrations(place):
        changed = {**copy.deepcopy(body["data_sources"][0]), "id": source["id"]}
        answer = place.http.put("/api/v1/data_source/rows", json={"data_source": changed})
        assert answer.status_code < 500, (body, answer.text)
        if answer.status_code < 400:
            # Seen only with all of its assets, or of the node.
            place.http.put("/api/v1/data_source/rows", json={"data_source": source}).raise_for_status()
    accept = {"Accept": "application/octet-stream"}
    assert place.http.get("/api/v1/array/full/rows", headers=accept).content == FRAMES.tobytes()


def test_what_is_no_registration(place):
    """What cannot even be read is refused in words."""
    wrong = [b"", b"{", b"[]", b"5", b"\xff\xfe", b"{}", b'{"a":' * 3000, b"[" * 100_000]
    sound = place.body()
    wrong += [
        json.dumps({**sound, name: value}).encode()
        for name, values in {
            "metadata": [None, 5, {"a": 10**30}, {"\0": "\0"}, {"a": "\ud800"}],
            "specs": [5, ["x"], [{"name": "a"}] * 2, [{"name": "x" * 300}]],
            "access_tags": [5],
            "data_sources": [None, 5, [5], [{}]],
            "structure_family": [None, "x"],
            "id": [5],
        }.items()
        for value in values
    ]
    for method, path in (
        ("POST", "register/"),
        ("POST", "metadata/"),
        ("PUT", "metadata/box"),
        ("PATCH", "metadata/box"),
        ("PUT", "data_source/rows"),
        ("PUT", "array/full/uploaded"),
        ("PATCH", "array/full/uploaded?shape=9999999999,5&offset=0,0&extend=true"),
        ("PUT", "table/partition/table?partition=0"),
        ("DELETE", "revisions/box?number=99"),
        ("POST", "register/rows"),
    ):
        for content in wrong if path.startswith("register") else wrong[:12]:
            answer = place.http.request(method, f"/api/v1/{path}", content=content, headers=JSON)
            assert answer.status_code < 500, (method, path, content[:80], answer.text)
            assert answer.text


NODES = ("rows", "plain", "fields", "number", "uploaded", "table", "box", "whole/text")
WRONG = {
    "array/full": {
        "slice": [
            "::0",
            "::\u0660",
            ",,",
            "...",
            "0,0,0,0,0",
            "a",
            "\0",
            HUGE,
            LONG,
            f"::{2**63}",
            "0:0",
            ",".join("0" * 5000),
        ],
        "expected_shape": ["3,4", "scalar", "0", HUGE, LONG],
        "format": ["", "x", "image/png", "text/html", "text/csv", "é", "\0", "*/*"],
        "filename": ["日本", "a\r\nb: c"],
    },
    "array/block": {
        "block": ["", "0", "5,5,5", "-1,0,0", "0,,0", f"{HUGE},0,0", LONG, "\u0663,0,0"],
        "expected_shape": ["3,4", LONG],
    },
    "table/full": {"column": ["zz", "", "a' or 1"], "format": ["x", "text/csv"]},
    "table/partition": {"partition": ["", "-1", "5", HUGE, "a"]},
    "metadata": {"select_metadata": ["]", "(" * 3000, "x" * 20_000, "foo(@)", "a" + ".b" * 2000], "fields": ["x"]},
    "search": {
        "page[offset]": [-1, 2**63, HUGE, "a"],
        "page[limit]": [-1, 301, HUGE],
        "page[cursor]": [-1, 2**63, "a"],
        "sort": ["-", "a..b", "é"],
        "filter[fulltext][condition][text]": ['a"b', "\0", "*"],
        "filter[eq][condition][key]": ["a'b"],
        "filter[scan_id][condition][scan_ids]": ["x", LONG],
    },
    "distinct": {"metadata": ["a'b", "$", "a" * 9000]},
    "revisions": {"page[offset]": [2**63, HUGE]},
    "asset/bytes": {"id": [0, -1, 2**63, "a"], "relative_path": ["../../etc/passwd", "é"]},
}


@pytest.mark.parametrize("route", WRONG)
def test_wrong_requests(place, route):
    """Whatever is asked of whatever node: no failure of the server, words, and nobody waits."""
    slowest = 0.0
    for node in NODES:
        for name, values in WRONG[route].items():
            for value in values:
                query = {"block": "0,0,0"} if route == "array/block" else {}
                begun = time.monotonic()
                answer = place.http.get(f"/api/v1/{route}/{node}", params={**query, name: value})
                slowest = max(slowest, time.monotonic() - begun)
                assert answer.status_code < 500, (node, name, value, answer.text)
                assert answer.status_code < 400 or answer.text, (node, name, value)
    assert slowest < 20


@pytest.mark.parametrize("path", ["a/" * 20_000, "%00", "é", "%2e%2e", "%2f", "//", " ", "%ff", "a" * 20_000])
def test_wrong_paths(place, path):
    """Whatever is no path of a node is told so, by every route."""
    for route in ("metadata", "array/full", "search", "table/full", "revisions", "distinct"):
        answer = place.http.get(f"/api/v1/{route}/{path}")
        assert answer.status_code < 500, (route, answer.text)
    assert place.http.get("/api/v1/metadata/rows").status_code == 200


def test_a_failure_of_the_server_has_words(place, monkeypatch):
    """What may go at another time stays a failure, in words; its log has where it was."""
    from tiled.catalog.adapter import CatalogNodeAdapter

    async def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CatalogNodeAdapter, "lookup_adapter", full)
    answer = place.http.get("/api/v1/metadata/box")
    assert answer.status_code == 500
    assert "failed in the server; its log has where (OSError: [Errno 28] No space left" in answer.json()["detail"]
    assert "No space left on device" in (place.server.directory / "server.log").read_text()


def test_what_is_not_there_yet(place):
    """Files that are not there, grow, are being written or are damaged are registered as ever."""
    there = place.register(place.body(assets=[f"file://localhost{place.data}/later.h5"]))
    assert there.status_code == 200
    for swmr in (False, True):
        path = place.data / f"growing {swmr}.h5"
        with h5py.File(path, "w", libver="latest" if swmr else None) as file:
            file.create_dataset("d", (1, 4, 4), "u1", maxshape=(None, 4, 4), chunks=(1, 4, 4))
            if swmr:
                file.swmr_mode = True
            file.flush()
            assert place.register(place.body(assets=[f"file://localhost{path}"])).status_code == 200
    cut = place.data / "cut.h5"
    cut.write_bytes((place.data / "x.h5").read_bytes()[:1500])
    assert place.register(place.body(assets=[f"file://localhost{cut}"])).status_code == 200

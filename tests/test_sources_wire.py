"""Documents in messages: read whoever packed them, and nothing that is in them is carried out."""

import datetime
import enum
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from bluesky_filestore.errors import SourceError
from bluesky_filestore.sources.wire import document_in, named, unpickled

VALUES = {
    "array": np.arange(4, dtype="<u2").reshape(2, 2),
    "order": np.asfortranarray(np.eye(2)),
    "masked": np.ma.masked_array([1, 2], [True, False]),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "table": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "dates": np.array(["2026-01-02"], dtype="datetime64[D]"),
    "texts": np.array(["a", "bc"]),
    "scalars": [np.float32(1.5), np.int64(3), np.bool_(True), np.str_("a"), np.datetime64("2026-01-02")],
    "python": [1, 2.5, None, True, "a", b"b", 2**70, {1, 2}, (1, 2), 1j, bytearray(b"c")],
    "dictionaries": [OrderedDict(a=1), {1: {"b": []}}],
    "times": [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.date(2026, 1, 2)],
}


class Mode(enum.StrEnum):
    """As devices of ophyd-async have them."""

    FAST = "fast"


class Chosen(enum.IntEnum):
    """A number with a name."""

    TWO = 2


class Unknown:
    """Something that no document is made of."""

    def __init__(self):
        self.value = 3


class Evil:
    """What a pickle may call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_documents(protocol):
    """Whatever is in documents comes back as it was, by each protocol."""
    found = document_in(pickle.dumps(VALUES, protocol=protocol))
    assert repr(found) == repr(VALUES)
    assert found["array"].dtype == VALUES["array"].dtype
    assert found["masked"].mask.tolist() == [True, False]


def test_what_else_is_pickled():
    """Enumerations become their values, other objects their kind: what they are is not imported."""
    found = unpickled(pickle.dumps({"mode": Mode.FAST, "number": Chosen.TWO, "other": Unknown(), "kind": Unknown}))
    assert found["mode"] == "fast"
    assert type(found["mode"]) is str
    assert found["number"] == 2
    assert repr(found["other"]) == f"<{__name__}.Unknown>"


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch PLACE",)),
        (subprocess.check_output, (["touch", "PLACE"],)),
        (eval, ("open('PLACE', 'w')",)),
        (exec, ("open('PLACE', 'w')",)),
        (open, ("PLACE", "w")),
        (getattr, (os, "system")),
        (np.save, ("PLACE.npy", [1])),
        (np.lib.format.open_memmap, ("PLACE.npy", "w+", None, (1,))),
        (os.mkdir, ("PLACE",)),
        (sys.exit, (3,)),
    ],
)
def test_nothing_is_carried_out(tmp_path, monkeypatch, call):
    """A pickle that calls what no document needs calls nothing, by itself or in an array of msgpack_numpy."""
    monkeypatch.chdir(tmp_path)
    function, arguments = call
    arguments = tuple(each.replace("PLACE", "made") if isinstance(each, str) else each for each in arguments)
    try:
        body = pickle.dumps({"x": Evil(function, arguments)})
    except TypeError:
        body = pickle.dumps({"x": Evil(function, ("os", "system"))})
    document_in(body)
    packed = {b"nd": True, b"kind": b"O", b"type": "|O", b"shape": (1,), b"data": body}
    document_in(msgpack.packb({"x": packed}))
    assert list(tmp_path.iterdir()) == []


def test_other_serializers():
    """Messages of JSON and msgpack are known by how they begin."""
    doc = {"uid": "a", "x": [1.5, None]}
    assert document_in(json.dumps(doc).encode()) == doc
    assert document_in(msgpack.packb(doc)) == doc
    wide = {str(number): np.float64(number) for number in range(70_000)}
    assert document_in(msgpack.packb(wide, default=msgpack_numpy.encode)) == wide
    assert document_in(pickle.dumps({})) == {}
    assert document_in(msgpack.packb({})) == {}


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80\x04broken", b"{broken", b"["])
def test_no_document(body):
    """Bytes that are nothing of these are an error that shows how they begin."""
    with pytest.raises(SourceError, match="expected a pickle, JSON or msgpack"):
        document_in(body)


@pytest.mark.parametrize("item", [None, 3, [], ["event"], ["event", 3], ["other", {}], {"name": "event"}, [{}, {}]])
def test_no_name(item):
    """What is no pair of a name and a document is an error that says what was expected."""
    with pytest.raises(SourceError, match="is no document of bluesky; expected"):
        named(item)

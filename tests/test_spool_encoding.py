"""Documents as bytes and back."""

import datetime
import math
import subprocess
import sys
import warnings

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.spool.encoding import decode, encode, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_plain_values(doc):
    """What JSON knows, integers of any size, bytes and every text come back as they were."""
    assert decode(encode(doc)) == doc


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.int16(-3), -3),
        (np.bool_(True), True),
        (np.str_("µm"), "µm"),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.datetime64("2024-05-06"), "2024-05-06"),
        (np.array([None, "a"], dtype=object), [None, "a"]),
        (np.array(["2024-05-06"], dtype="M8[D]"), [datetime.date(2024, 5, 6)]),
        (np.array([(1, 2.5)], dtype="i4,f8"), [[1, 2.5]]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({7}, [7]),
        (2**70, 2**70),
        (-(2**63) - 1, -(2**63) - 1),
        (math.inf, math.inf),
        (datetime.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=datetime.UTC), None),
        (datetime.datetime(2024, 5, 6), None),
        (datetime.date(2024, 5, 6), None),
        (1 + 2j, "(1+2j)"),
        ("a lone \ud800", None),
        (bytearray(b"\x00\xff"), b"\x00\xff"),
    ],
)
def test_values(value, expected):
    """Numbers of numpy become Python's, dates stay dates, and what is of no known type is kept as its text."""
    back = decode(encode({"value": value}))["value"]
    expected = value if expected is None else expected
    assert back == expected
    assert type(back) is type(expected)


def test_nan():
    """NaN stays NaN."""
    assert math.isnan(decode(encode({"value": math.nan}))["value"])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "c16", "?", "U3", "S2"])
def test_arrays(dtype):
    """Arrays keep shape, values and dtype with its byte order, and may be written to."""
    array = np.arange(6).reshape(2, 3).astype(dtype)
    back = decode(encode({"value": array[:, ::-1]}))["value"]
    np.testing.assert_array_equal(back, array[:, ::-1], strict=True)
    assert back.flags.writeable


def test_keys_that_are_no_texts():
    """Keys may be numbers, and pairs of such: a document that can be put in can be had out again."""
    doc = {"value": {1: "a", None: "b", (2, 3): "c", np.int64(4): "d", 5.5: "e"}}
    assert decode(encode(doc)) == {"value": {1: "a", None: "b", (2, 3): "c", 4: "d", 5.5: "e"}}


def test_changes_are_told_once():
    """A document that is read twice, for the sake of a key that is a pair, has its changes told once."""
    _, changes = read(encode({"value": np.complex64(1j), "keys": {(2, 3): "c"}}))
    assert len(changes) == 1


def test_arrays_beside_what_cannot_be_kept():
    """They stay arrays, however the rest has to be looked at."""
    found = decode(encode({"odd": nested(3000), "wave": np.arange(3), "deep": {"wave": np.ones((2, 2))}}))
    assert isinstance(found["wave"], np.ndarray)
    assert isinstance(found["deep"]["wave"], np.ndarray)


def test_nesting():
    """What is nested very deeply is taken too."""
    doc = inner = {}
    for _ in range(300):
        inner["in"] = inner = {}
    assert decode(encode(doc)) == doc


def test_foreign_extension():
    """An extension of somebody else is left as it is."""
    import msgpack

    value = msgpack.ExtType(77, b"x")
    assert decode(encode({"value": value})) == {"value": value}


class Textless:
    """Something that cannot be looked at."""

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def nested(depth):
    """A list in a list in a list."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def in_itself():
    """A list that holds itself."""
    value = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "expected", "note"),
    [
        (np.complex64(1 + 2j), "(1+2j)", "type complex64"),
        (np.longdouble(1.5), 1.5, ""),
        (np.longdouble("0.1"), 0.1, "type longdouble is kept as 0.1"),
        (np.clongdouble(1j), "1j", "type clongdouble"),
        (np.ma.masked, None, "type MaskedConstant is kept as None"),
        (np.array([("a", 1)], dtype="U1,i4")[0], "('a', 1)", "type void"),
        (np.array(["2024-05-06T07:08:09.123456789"], "M8[ns]"), ["2024-05-06T07:08:09.123456789"], "type ndarray"),
        (np.array([1, 2], "m8[s]"), None, "type ndarray"),
        (Textless(), "<Textless that has no text: RuntimeError>", "type Textless"),
        ([1, Textless(), 3], [1, "<Textless that has no text: RuntimeError>", 3], "type Textless"),
        pytest.param(10**6000, 10**6000, "", id="huge"),
        pytest.param(-(10**6000), -(10**6000), "", id="huge, negative"),
        (nested(3000), None, "type list"),
        (in_itself(), None, "type list"),
        (np.array([Textless(), 2], dtype=object), ["<Textless that has no text: RuntimeError>", 2], "type Textless"),
    ],
)
def test_what_cannot_be_kept_is_told(value, expected, note):
    """Nothing fails; what becomes another value says so, and the rest of the document is what it was."""
    doc, notes = read(encode({"before": 1, "value": value, "after": {"x": 2}}))
    assert (doc["before"], doc["after"]) == (1, {"x": 2})
    assert expected is None or doc["value"] == expected
    assert bool(notes) == bool(note)
    assert all(note in one for one in notes)


@pytest.mark.parametrize("dtype", ["f8", "i4", "?", "c8", "U2"])
def test_masked_arrays(dtype):
    """Masked elements stay masked: their places hold no values."""
    array = np.ma.masked_array(np.arange(4).astype(dtype), [0, 1, 0, 1])
    back = decode(encode({"value": array}))["value"]
    assert back.mask.tolist() == [False, True, False, True]
    assert back.compressed().tolist() == array.compressed().tolist()
    assert back.dtype == array.dtype


def test_masked_arrays_of_what_has_no_bytes():
    """Masked elements of a list of anything are None."""
    array = np.ma.masked_array(np.array([1, "a", 2.5], dtype=object), [False, True, False])
    assert decode(encode({"value": array})) == {"value": [1, None, 2.5]}


@pytest.mark.parametrize(
    ("array", "expected", "is_told"),
    [
        (np.array([1.5, np.nan], np.longdouble), np.array([1.5, np.nan]), False),
        (np.array(["0.1", "2"], np.longdouble), np.array([0.1, 2.0]), True),
        (np.array([1.5 + 2j, np.nan], np.clongdouble), np.array([1.5 + 2j, np.nan]), False),
        (np.array([np.longdouble("0.1") * 1j]), np.array([0.1j]), True),
    ],
)
def test_arrays_of_more_digits(array, expected, is_told):
    """They become those of double precision, and it is told where that changes a value."""
    doc, notes = read(encode({"value": array}))
    np.testing.assert_array_equal(doc["value"], expected, strict=True)
    assert bool(notes) == is_told


def test_dates_that_are_none():
    """Where one of several dates is none, all are kept as text, which is told."""
    doc, notes = read(encode({"value": np.array(["2024-05-06", "NaT"], "M8[D]")}))
    assert doc == {"value": ["2024-05-06", "NaT"]}
    assert "type ndarray" in notes[0]


@pytest.mark.parametrize("depth", [198, 199])
def test_how_deep(depth):
    """In a document that is nested too deeply somewhere all is kept that is not, to the last level."""
    value = 7
    for _ in range(depth):
        value = [value]
    back, notes = read(encode({"deep": nested(3000), "value": value}))
    assert (back["value"], len(notes)) == (value, 1)


def test_too_deep():
    """One level more is text."""
    value = 7
    for _ in range(200):
        value = [value]
    back, _ = read(encode({"deep": nested(3000), "value": value}))
    for _ in range(199):
        (back["value"],) = back["value"]
    assert back["value"] == "[7]"


@pytest.mark.parametrize("value", ["a lone \ud800", {1: "a", b"b": None, None: 2, 1.5: "c", False: "d"}])
def test_beside_what_is_too_deep(value):
    """What is plain stays as it is, keys that are no texts, too."""
    back, notes = read(encode({"deep": nested(3000), "value": value}))
    assert (back["value"], len(notes)) == (value, 1)


def test_a_key_beside_what_is_too_deep():
    """Of other keys there is the text."""
    assert decode(encode({"deep": nested(3000), "value": {(1, 2): 3}}))["value"] == {"(1, 2)": 3}


@pytest.mark.parametrize("kind", [np.complex64, np.clongdouble])
def test_whoever_ignores_warnings(kind):
    """A complex number is no real one, whatever numpy's warning comes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doc, notes = read(encode({"value": kind(1 + 2j)}))
    assert (doc, len(notes)) == ({"value": "(1+2j)"}, 1)


def test_an_array_with_something_deep_in_it():
    """Of an array of anything only that element is text which is nested too deeply."""
    array = np.empty(3, dtype=object)
    array[:] = [1, nested(3000), "a"]
    back, notes = read(encode({"value": array}))
    assert (back["value"][0], back["value"][2], len(notes)) == (1, "a", 1)


NUMPY = st.one_of(
    hnp.arrays(dtype=hnp.scalar_dtypes(), shape=hnp.array_shapes(min_dims=0, min_side=0)),
    hnp.arrays(dtype=hnp.array_dtypes(), shape=2),
    st.sampled_from([np.longdouble, np.complex64, np.float16, np.uint64]).map(lambda kind: kind(1)),
    st.just(np.ma.masked),
)
KEYS = st.text() | st.integers() | st.none() | st.tuples(st.integers(), st.text()) | st.dates() | st.binary()
ANYTHING = st.recursive(
    PLAIN
    | NUMPY
    | st.decimals()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
    | st.builds(Textless)
    | st.builds(object)
    | st.fractions(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), ANYTHING, max_size=4))
def test_anything_can_be_encoded(doc):
    """Whatever is in a document, it can be put in and had out, and what was plain in it is what it was."""
    back, _ = read(encode(doc))
    assert back.keys() == doc.keys()
    for name, value in doc.items():
        if isinstance(value, str | bytes | bool | int | None):
            assert back[name] == value


def test_whatever_patches_msgpack():
    """A process that loads bluesky-kafka, which changes what msgpack's names are, keeps what all others read."""
    code = """
import sys
import msgpack_numpy
msgpack_numpy.patch()
import numpy as np
from bluesky_filestore.spool.encoding import decode, encode
body = encode({"image": np.eye(2), "scalar": np.float32(1.5), ("a", 1): 1j})
sys.stdout.buffer.write(body)
assert decode(body)["image"].tolist() == np.eye(2).tolist()
"""
    body = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert body == encode({"image": np.eye(2), "scalar": np.float32(1.5), ("a", 1): 1j})


def test_kept_by_a_patched_msgpack():
    """What an earlier version kept in msgpack_numpy's form is read as what it was."""
    table = np.array([(1, (2.0, 3.0))], dtype=[("a", "<i4"), ("b", "<f8", (2,))])
    doc = {"image": np.eye(2), "scalar": np.float32(1.5), "number": 2j, "table": table, "plain": {"a": 1}}
    found = decode(msgpack.packb(doc, default=msgpack_numpy.encode))
    assert repr(found) == repr(doc)
    assert found["image"].dtype == doc["image"].dtype


def test_kept_by_msgpack_numpy_as_bytes():
    """So are the names and types of fields that are bytes there."""
    kept = {b"nd": True, b"type": [[b"a", b"<i4"], [b"b", b"<f8", [2]]], b"shape": [1], b"data": bytes(20)}
    found = decode(msgpack.packb({"table": kept}))["table"]
    assert found.dtype == np.dtype([("a", "<i4"), ("b", "<f8", (2,))])


BODIES = [b"", b"\xc1", b"\x05", b"\x81\xa1x\xc7\x03\x02\x93\xa3", b"\x81\xa1x\xd4\x03\xff", b"\x90", None]


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_document(body):
    """Bytes that are none are said to be none, whatever msgpack, numpy or datetime stumble over."""
    with pytest.raises(DocumentError, match=r"no document|expected a document"):
        decode(body)

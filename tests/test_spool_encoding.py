"""Documents as bytes and back."""

import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.spool.encoding import decode, encode

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

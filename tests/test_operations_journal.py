"""The documents of a run that its tree does not hold."""

from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.operations.journal import Journal


def stream_datum(number, start=None):
    """A stream_datum of one index."""
    start = number if start is None else start
    ranges = {"indices": {"start": start, "stop": start + 1}, "seq_nums": {"start": start + 1, "stop": start + 2}}
    return {"uid": str(number), "stream_resource": "r", "descriptor": "d", **ranges}


def known(*datum_ids):
    """A resource and datums that were announced."""
    assets = Assets()
    assets.keep_document("resource", "r", {"uid": "r"})
    for number, datum_id in enumerate(datum_ids):
        assets.add_datum(datum_id, "r", number, kwargs={"point_number": number})
    return assets


def test_each_document_once():
    """A resource and a datum are told before the first event that names them, and not again."""
    journal = Journal(known("a", "b"))
    assert journal.add_event({"image": "b"}) == (
        0,
        (
            ("resource", {"uid": "r"}),
            ("datum", {"datum_id": "b", "datum_kwargs": {"point_number": 1}, "resource": "r"}),
        ),
    )
    assert journal.add_event({"image": "b"}) == (1, ())
    assert journal.rest() == ()


def test_late_datums():
    """A datum that comes after its event is told before the next one, or in the end."""
    assets = known()
    journal = Journal(assets)
    assert journal.add_event({"image": "a"}) == (0, ())
    assert journal.add_event({"image": "b"}) == (1, ())
    assets.add_datum("b", "r", 1)
    assert journal.add_event({}) == (2, ())
    journal.look_for_late()
    assert [name for name, _ in journal.add_event({})[1]] == ["resource", "datum"]
    assets.add_datum("a", "r", 0)
    assert [doc["datum_id"] for _, doc in journal.rest()] == ["a"]


def test_very_many_stream_datums():
    """Memory is bounded: stream_datums of a long fly scan are joined, and what cannot be joined is counted."""
    journal = Journal(known())
    for number in range(20_000):
        journal.add("stream_datum", stream_datum(number))
    journal.add("stream_datum", stream_datum(20_000, start=50_000))
    rest = journal.rest()
    assert (len(rest), journal.joined, journal.left_out) == (10_000, 10_001, 1)
    assert rest[-1][1]["indices"] == {"start": 9998, "stop": 20_000}
    assert rest[-1][1]["uid"] == "19999"

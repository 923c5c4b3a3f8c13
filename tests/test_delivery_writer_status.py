"""The text that a writer's status is shown as."""

from pathlib import Path

from bluesky_filestore.spool.status import CatalogStatus, WriterStatus


def test_all_is_well():
    """Two lines."""
    status = WriterStatus(
        1234, (), (), (), (CatalogStatus("http://a/api/v1/metadata/", runs={"delivered": 2}),), Path("/spool")
    )
    assert repr(status) == str(status)
    assert str(status).splitlines() == [
        "1,234 documents received, 0 not delivered yet (kept in /spool)",
        "  http://a/api/v1/metadata/: 2 runs delivered",
    ]


def test_all_is_not_well():
    """Everything that is in the way, and no more than fits a screen."""
    away = CatalogStatus("http://a", "nobody answers", {"waiting": 3}, waiting=40)
    parked = CatalogStatus("http://b", runs={"parked": 7}, parked={f"{n}-------uid": f"reason {n}" for n in range(7)})
    open_runs = tuple(f"{n}0000000-uid" for n in range(7))
    status = WriterStatus(
        50, open_runs, ("77777777-uid",), ("one", "two"), (away, parked), None, unsaved=2, spool_error="disk full"
    )
    lines = str(status).splitlines()
    assert lines[:4] == [
        "50 documents received, 42 not delivered yet (kept in memory)",
        "  spool: disk full",
        "  http://a: 3 runs waiting",
        "    takes no documents: nobody answers",
    ]
    assert lines[5:10] == [f"    parked {n}-------: reason {n}" for n in range(5)]
    assert lines[10:] == [
        "  runs going on: 00000000, 10000000, 20000000, 30000000, 40000000 and 2 more",
        "  runs that are looked at again: 77777777",
        "  2 problems, the last: two",
    ]

"""Event tables on a real server to which answers get lost, and on which others are at work."""

import itertools
import re
from contextlib import contextmanager
from functools import partial

import pyarrow
import pytest
from proxy import Proxy, no_fault
from tiled.client import from_uri

from bluesky_filestore.catalogs.tiled import tables as module
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.errors import CatalogError, CatalogFaultError, RowsDifferError
from bluesky_filestore.operations.operations import AppendRows, CloseRun, CreateRun, CreateStream

runs = itertools.count()


@pytest.fixture
def through_proxy(catalog):
    """A proxy before the session's catalog, and a client."""
    with Proxy(catalog.uri) as proxy:
        client = from_uri(proxy.uri, api_key=catalog.api_key)
        yield proxy, client
        client.context.close()


@pytest.fixture
def changes(monkeypatch):
    """Which changes of a table's state came about."""
    seen = set()
    change = module.TiledTable._change

    def noting(table, event):
        seen.add((table.state, event))
        change(table, event)

    monkeypatch.setattr(module.TiledTable, "_change", noting)
    return seen


def new_run():
    """The uid of another run."""
    return f"tables of run {next(runs)}"


def opened(client, uid):
    """A catalog that knows nothing yet, with run and stream made (again)."""
    catalog = TiledCatalog(client)
    catalog.apply(CreateRun(uid, {"start": {"uid": uid}}))
    catalog.apply(CreateStream(uid, "primary", {}))
    return catalog


def rows(uid, first, count, kind="int64"):
    """Rows that carry their number."""
    numbers = range(first, first + count)
    values = {"int64": list(numbers), "float64": [n + 0.5 for n in numbers], "string": [f"{n}.5" for n in numbers]}[
        kind
    ]
    return AppendRows(uid, "primary", first, types={"x": kind}, columns={"x": values})


def present(catalog, uid):
    """What the table holds by a client of its own."""
    return catalog.client[uid].base["primary"].base["internal"].read()["x"].tolist()


def apply(catalog, operation):
    """Apply an operation until it is done; how often it was not."""
    for failures in range(5):
        try:
            catalog.apply(operation)
        except RowsDifferError:
            raise
        except CatalogError:
            continue
        return failures
    raise AssertionError(operation)


LIFE = [(0, 2, "int64"), (2, 3, "int64"), (5, 1, "float64"), (6, 2, "float64")]
FOR_FOLLOWERS = re.compile("/(stream|webhooks)/")
WHOLE = [0, 1, 2, 3, 4, 5.5, 6.5, 7.5]


@pytest.mark.parametrize("fault", ["drop answer", 503])
def test_any_request_fails(through_proxy, catalog, fault):
    """Whichever request fails, all rows are there once when its operation is applied again.

    One that is for those who follow the table does not: it is made once, whatever comes of it.
    """
    proxy, client = through_proxy
    for nth in itertools.count():
        uid, befallen = new_run(), []

        def fail(request, at, befallen=befallen):
            befallen += [request] * (request.number == at)
            return fault if request.number == at else None

        tiled, befell = opened(client, uid), proxy.requests
        proxy.fault = partial(fail, at=befell + nth)
        failures = sum(apply(tiled, rows(uid, *batch)) for batch in LIFE)
        is_last = proxy.requests <= befell + nth
        proxy.fault = no_fault
        assert present(catalog, uid) == WHOLE
        tiled.apply(CloseRun(uid, {"stop": {}}))
        assert failures == len([each for each in befallen if not FOR_FOLLOWERS.search(each.path)])
        if is_last:
            break
    assert nth > 6, "the table was to be made, appended to, read, removed and made again"


def test_lost_answer(through_proxy, catalog):
    """Rows whose answer did not come are asked for, not sent again; that they may come again is not forgotten."""
    proxy, client = through_proxy
    uid = new_run()
    tiled = opened(client, uid)
    tiled.apply(rows(uid, 0, 2))
    (table,) = tiled._tables.values()
    assert (table.state, table.rows, table.in_doubt) == (module._State.COUNTED, 2, False)
    with without_answer(proxy):
        tiled.apply(rows(uid, 2, 3))
    assert table.state is module._State.SENT
    proxy.fault = lambda request: pytest.fail("sent again") if request.is_append else None
    tiled.apply(rows(uid, 2, 3))
    assert (table.state, table.rows, table.in_doubt) == (module._State.COUNTED, 5, True)
    late = rows(uid, 2, 3)
    catalog.client[uid].base["primary"].base["internal"].append_partition(0, module._rows(late, module._schema(late)))
    with pytest.raises(RowsDifferError, match=r"primary/internal has 8 rows; expected 5"):
        tiled.apply(CloseRun(uid, {"stop": {}}))


def test_all_changes_of_state(through_proxy, catalog, changes):
    """Each change that the table of states names does come about, and no other."""
    proxy, client = through_proxy
    uid = new_run()
    tiled = opened(client, uid)
    tiled.apply(rows(uid, 0, 2))
    with without_answer(proxy):
        tiled.apply(rows(uid, 2, 2))
    # Somebody removes what may have been sent, which is found when the run is closed.
    remove_and_close(catalog, tiled, uid)
    with pytest.raises(RowsDifferError, match="has 0 rows; row 4 cannot follow them"):
        tiled.apply(rows(uid, 4, 1))
    assert changes >= {(module._State.SENT, module._Event.MAKE)}

    tiled.remove_rows(uid)
    tiled.apply(rows(uid, 0, 2))
    again = opened(client, uid)
    again.apply(rows(uid, 0, 3))
    remove_and_close(catalog, again, uid)
    with pytest.raises(RowsDifferError, match="has 0 rows; row 3 cannot follow them"):
        again.apply(rows(uid, 3, 1))

    # Columns become wider, and wider again before it is known what became of the first.
    for lost in (lambda request: request.is_append, lambda request: request.method == "POST"):
        tiled.remove_rows(uid)
        for batch in LIFE[:2]:
            apply(tiled, rows(uid, *batch))
        with without_answer(proxy, lost):
            tiled.apply(rows(uid, 5, 1, "float64"))
        tiled.apply(rows(uid, 5, 1, "string"))
        assert present(catalog, uid) == ["0", "1", "2", "3", "4", "5.5"]

    with without_answer(proxy):
        tiled.apply(rows(uid, 6, 1, "string"))
    tiled.apply(rows(uid, 6, 1, "string"))
    assert changes == {(state, event) for state, events in module._NEXT.items() for event in events}


@contextmanager
def without_answer(proxy, is_meant=lambda request: request.is_append):
    """One of the requests is carried out, and its answer never comes."""
    left = ["drop answer"]
    proxy.fault = lambda request: left.pop() if left and is_meant(request) else None
    with pytest.raises(CatalogError, match="no catalog answers"):
        yield
    proxy.fault = no_fault


def remove_and_close(catalog, tiled, uid):
    """Somebody takes a table away, and its run is closed."""
    catalog.client[uid].base["primary"].base.delete_contents("internal", external_only=False)
    with pytest.raises(RowsDifferError, match="has 0 rows; expected"):
        tiled.apply(CloseRun(uid, {"stop": {}}))


def test_rows_that_came_twice(catalog):
    """A gateway that sends a request twice and answers once leaves nothing doubled: the rows are counted at the end."""
    uid = new_run()
    tiled = opened(catalog.client, uid)
    tiled.apply(rows(uid, 0, 3))
    catalog.client[uid].base["primary"].base["internal"].append_partition(0, pyarrow.table({"x": [2]}))
    with pytest.raises(RowsDifferError, match="has 4 rows; expected 3"):
        tiled.apply(CloseRun(uid, {"stop": {}}))


def test_rows_that_came_twice_in_a_table_that_becomes_wider(catalog):
    """What came twice is not taken, by number, for rows that come after it."""
    uid = new_run()
    tiled = opened(catalog.client, uid)
    tiled.apply(rows(uid, 0, 3))
    catalog.client[uid].base["primary"].base["internal"].append_partition(0, pyarrow.table({"x": [2]}))
    tiled.apply(rows(uid, 3, 1))
    with pytest.raises(RowsDifferError, match="has 5 rows; expected 4"):
        tiled.apply(rows(uid, 4, 1, "float64"))


def test_rows_that_came_twice_before_an_answer_is_lost(through_proxy, catalog):
    """What came twice is not taken, by number, for rows that were sent, and did not come."""
    proxy, client = through_proxy
    uid = new_run()
    tiled = opened(client, uid)
    tiled.apply(rows(uid, 0, 3))
    catalog.client[uid].base["primary"].base["internal"].append_partition(0, pyarrow.table({"x": [2]}))
    operation = rows(uid, 3, 1)
    proxy.fault = lambda request: "cut" if request.is_append else None
    with pytest.raises(CatalogError):
        tiled.apply(operation)
    proxy.fault = no_fault
    with pytest.raises(RowsDifferError, match="other rows than events 3"):
        tiled.apply(operation)


def test_a_run_that_is_gone(catalog):
    """Whatever is to be done to a run that is there no more, it has to be written again."""
    uid = new_run()
    tiled = opened(catalog.client, uid)
    catalog.client.delete_contents(uid, recursive=True, external_only=False)
    for operation in (CreateStream(uid, "other", {}), CloseRun(uid, {"stop": {}})):
        with pytest.raises(RowsDifferError, match="something is gone"):
            tiled.apply(operation)


def test_a_gateway_says_that_it_is_gone(through_proxy, catalog):
    """A table for whose removal the answer is 404 may be there: that is no success, and is tried again."""
    proxy, client = through_proxy
    uid = new_run()
    tiled = opened(client, uid)
    tiled.apply(rows(uid, 0, 2))
    proxy.fault = lambda request: 404 if request.method == "DELETE" else None
    with pytest.raises(CatalogFaultError, match="status 404"):
        tiled.remove_rows(uid)
    proxy.fault = no_fault
    assert "internal" in catalog.client[uid].base["primary"].base
    tiled.remove_rows(uid)
    assert "internal" not in catalog.client[uid].base["primary"].base

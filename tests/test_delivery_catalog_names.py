"""The catalogs that a spool delivers to: one name each, however they are addressed, merged, renamed and forgotten."""

import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from proxy import Proxy
from spooled import put, run_documents, states
from test_cli_spool import invoke

from bluesky_filestore import CatalogWriter
from bluesky_filestore.catalog_address import comparable_address, container_address
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import address_of, connect
from bluesky_filestore.delivery.catalog_names import forget_catalog, recognise, rename_catalog
from bluesky_filestore.errors import CatalogUnreachableError, SpoolError
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.places import spool_for
from bluesky_filestore.spool.pruning import prune

HERE, THERE = "http://here:8000/api/v1/metadata/", "http://there:8000/api/v1/metadata/"


def names(directory):
    """The addresses of the catalogs that a spool knows."""
    with closing(Ledger(directory)) as ledger:
        return [uri for uri, _ in ledger.catalogs().values()]


def set_states(directory, uri, **given):
    """Write down how far runs have come, by uid."""
    with closing(Ledger(directory)) as ledger:
        number = ledger.register_catalog(uri)
        runs = {entry.uid: entry.number for entry in ledger.entries(number)}
        ledger.set_states(number, {runs[uid]: (state, f"{uid} {uri}", 5) for uid, state in given.items()})


def feed(writer, documents):
    """Give a writer documents."""
    for pair in documents:
        writer(*pair)


@pytest.mark.parametrize(
    "other",
    [
        "http://localhost:8000",
        "http://LOCALHOST:8000/",
        "HTTP://127.0.0.1:8000",
        "http://127.0.0.1:8000/api",
        "http://[::1]:8000/api/v1",
        "http://127.0.0.1:8000/api/v1/",
        "http://127.0.0.1:8000/api/v1/metadata",
        "http://127.0.0.1:8000/api/v1/metadata/",
        "http://somebody:password@127.0.0.1:8000/?api_key=secret",
    ],
)
def test_one_catalog_however_it_is_written(tmp_path, other):
    """The address of one container is one name, for the spool and for its directory."""
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.register_catalog(container_address(other)) == ledger.register_catalog(
            "http://localhost:8000/api/v1/metadata/"
        )
        assert len(ledger.catalogs()) == 1
    assert spool_for(container_address(other)) == spool_for("http://localhost:8000/api/v1/metadata/")
    assert "secret" not in container_address(other)


@pytest.mark.parametrize(
    "other",
    ["http://localhost:8001", "https://localhost:8000", "http://localhost:8000/api/v1/metadata/raw", "http://a:8000"],
)
def test_other_catalogs(tmp_path, other):
    """Another port, scheme, host or container is another catalog."""
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.register_catalog(container_address(other)) != ledger.register_catalog(
            "http://localhost:8000/api/v1/metadata/"
        )


def test_paths_that_have_the_words_of_tiled(tmp_path):
    """A container's path is that which Tiled's client would ask for."""
    assert container_address("http://a/apiary") == "http://a/apiary/v1/metadata/"
    assert container_address("http://a/x/api/v1/metadata/my raw/") == "http://a/x/api/v1/metadata/my%20raw"
    assert comparable_address("http://a:80/") == comparable_address("http://A")
    assert comparable_address("no address") == comparable_address("no address")


def test_address_without_a_server_and_with_one(catalog):
    """What is made of an address alone is what a client of it has, whatever the server calls itself."""
    client = catalog.client
    if "folder" not in client:
        client.create_container("folder")
    port = urlsplit(catalog.uri).port
    with Proxy(catalog.uri, renames_host=True) as proxy:
        for uri in (proxy.uri, f"{proxy.uri}/api/v1/metadata/folder/", f"http://localhost:{port}/api/v1"):
            made = connect(uri, api_key=catalog.api_key)
            assert address_of(made) == container_address(uri)
            made.context.close()
        ours = TiledCatalog(lambda: connect(proxy.uri, api_key=catalog.api_key), container_address(proxy.uri))
        ours.connect()
        assert (ours.uri, ours.server_uri) == (container_address(proxy.uri), str(client.uri))
        ours.close()


def test_behind_a_proxy(tmp_path, catalog):
    """A writer that finds its catalog, and one that does not, mean the same one; what was delivered is pruned."""
    spool, options = tmp_path / "spool", {"api_key": catalog.api_key, "spool": tmp_path / "spool", "keep": 0.0}
    (first, documents), (second, more) = run_documents(2), run_documents(2)
    with Proxy(catalog.uri, renames_host=True) as proxy:
        proxy.fault = lambda _: "cut"
        writer = CatalogWriter.from_uri(proxy.uri, **options)
        feed(writer, documents)
        with pytest.raises(CatalogUnreachableError, match="Nothing is lost"):
            writer.close()
        proxy.fault = lambda _: None
        with CatalogWriter.from_uri(proxy.uri, **options) as writer:
            feed(writer, more)
        assert names(spool) == [container_address(proxy.uri)]
        with closing(Ledger(spool)) as ledger:
            prune(ledger, -1.0)
        assert states(spool, proxy.uri) == {}
    assert {first, second} <= set(catalog.client)


def test_names_of_earlier_versions(tmp_path, catalog):
    """What was kept under the server's own word, and again under an address, is one catalog's once it connects."""
    runs = {uid: run_documents(2, uid=f"{uid} {time.time_ns()}") for uid in ("both", "here", "there", "none")}
    put(tmp_path, *(documents for _, documents in runs.values()))
    uids = {name: uid for name, (uid, _) in runs.items()}
    with Proxy(catalog.uri, renames_host=True) as proxy:
        address = container_address(proxy.uri)
        set_states(tmp_path, str(catalog.client.uri), **{uids["both"]: "delivered", uids["there"]: "delivered"})
        set_states(tmp_path, address, **{uids["both"]: "delivered", uids["here"]: "delivered"})
        with CatalogWriter.from_uri(proxy.uri, api_key=catalog.api_key, spool=tmp_path, keep=3600):
            deadline = time.monotonic() + 30
            while set(states(tmp_path, address).values()) != {"delivered"}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert names(tmp_path) == [address]
    # What was delivered under either name is not delivered again.
    assert set(uids.values()) & set(catalog.client) == {uids["none"]}


def test_what_is_known_better(tmp_path):
    """Of two that become one, a run is delivered if it is in either; what somebody parked or asked for stays so."""
    uids = [f"{a}-{b}" for a in ("no", "delivered", "parked", "uploading") for b in ("no", "delivered", "parked")]
    put(tmp_path, *(run_documents(1, uid=uid)[1] for uid in uids))
    for uid in uids:
        ours, other = uid.split("-")
        for uri, state in ((HERE, ours), (THERE, other)):
            if state != "no":
                set_states(tmp_path, uri, **{uid: state})
    with closing(Ledger(tmp_path)) as ledger:
        assert recognise(ledger, ledger.register_catalog(HERE), [HERE, THERE, ""])
        assert not recognise(ledger, ledger.register_catalog(HERE), [HERE, THERE])
    found = states(tmp_path, HERE)
    assert names(tmp_path) == [HERE]
    for uid in uids:
        ours, other = uid.split("-")
        best = next((state for state in ("delivered", "parked", "uploading") if state in (ours, other)), "waiting")
        assert found[uid] == best, uid


def test_many_runs_are_merged_some_at_a_time(tmp_path, monkeypatch):
    """However many runs there are, all of them are merged, or forgotten."""
    monkeypatch.setattr("bluesky_filestore.delivery.catalog_names._AT_ONCE", 2)
    uids = [f"run {number}" for number in range(5)]
    put(tmp_path, *(run_documents(1, uid=uid)[1] for uid in uids), catalogs=[HERE, THERE])
    set_states(tmp_path, THERE, **dict.fromkeys(uids, "delivered"))
    with closing(Ledger(tmp_path)) as ledger:
        rename_catalog(ledger, THERE, HERE)
    assert states(tmp_path, HERE) == dict.fromkeys(uids, "delivered")
    with closing(Ledger(tmp_path)) as ledger:
        forget_catalog(ledger, HERE)
        assert ledger.catalogs() == {}
        # Numbers are given out again: nothing of the old one counts for a new one.
        assert ledger.counts(ledger.register_catalog("http://new")) == {"waiting": 5}


def test_nobody_is_robbed(tmp_path):
    """A catalog that somebody delivers to is neither merged nor renamed nor forgotten."""
    put(tmp_path, run_documents(1)[1], catalogs=[HERE, THERE])
    with closing(Ledger(tmp_path)) as ledger:
        lease = Lease(ledger.lease(ledger.register_catalog(THERE)))
        assert lease.take()
        assert not recognise(ledger, ledger.register_catalog(HERE), [THERE])
        for act in (
            lambda: forget_catalog(ledger, THERE),
            lambda: rename_catalog(ledger, THERE, HERE),
            lambda: rename_catalog(ledger, HERE, THERE),
        ):
            with pytest.raises(SpoolError, match=r"process \d+ delivers to http://there.*end it first"):
                act()
        lease.give_up()
    assert names(tmp_path) == [HERE, THERE]


def test_forget_a_catalog(tmp_path):
    """Runs that waited only for a catalog that is gone are pruned once it is forgotten, and not before."""
    put(tmp_path, run_documents(1, uid="one")[1], run_documents(1, uid="two")[1], catalogs=[HERE, THERE])
    set_states(tmp_path, HERE, one="delivered")
    set_states(tmp_path, THERE, two="delivered")
    with closing(Ledger(tmp_path)) as ledger:
        assert prune(ledger, -1.0) == 0
    shown = invoke("status", tmp_path).stdout
    assert f"bluesky-filestore forget {THERE} --spool {tmp_path}" in shown
    assert f"bluesky-filestore rename {THERE} NEW --spool {tmp_path}" in shown
    assert invoke("forget", THERE, "--spool", tmp_path, answer="n\n").exit_code == 1
    assert names(tmp_path) == [HERE, THERE]
    shown = invoke("forget", "http://there:8000", "--spool", tmp_path, answer="y\n").stdout
    assert "1 run waiting" in shown
    assert names(tmp_path) == [HERE]
    with closing(Ledger(tmp_path)) as ledger:
        assert prune(ledger, -1.0) == 1


def test_rename_a_catalog(tmp_path):
    """A catalog that has another address keeps what was delivered."""
    put(tmp_path, run_documents(1, uid="one")[1], run_documents(1, uid="two")[1], catalogs=[HERE])
    set_states(tmp_path, HERE, one="delivered")
    shown = invoke("rename", HERE, "http://other:9", "--spool", tmp_path)
    assert "is called http://other:9/api/v1/metadata/" in shown.stdout
    assert names(tmp_path) == ["http://other:9/api/v1/metadata/"]
    assert states(tmp_path, "http://other:9") == {"one": "delivered", "two": "waiting"}
    with pytest.raises(SpoolError, match=r"no spool knows a catalog http://here.*known are: http://other:9"):
        invoke("rename", HERE, "http://other:9", "--spool", tmp_path)
    with pytest.raises(SpoolError, match="are one catalog"):
        invoke("rename", "http://other:9", "http://other:9/api/v1", "--spool", tmp_path)
    with pytest.raises(SpoolError, match="no spool knows a catalog"):
        invoke("forget", HERE, "--spool", tmp_path)

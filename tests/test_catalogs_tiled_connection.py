"""A catalog by its address, which may be away when a writer is made."""

import threading

import pytest
from proxy import Proxy

from bluesky_filestore.catalogs.tiled import catalog as tiled
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.errors import CatalogUnreachableError


def test_connects_when_it_can(catalog):
    """What cannot be reached is tried again with each question; its address stays."""
    places = ["http://127.0.0.1:9", "http://127.0.0.1:9", catalog.uri]
    ours = TiledCatalog(lambda: connect(places.pop(0), api_key=catalog.api_key), catalog.client.uri)
    with pytest.raises(CatalogUnreachableError, match=r"no catalog answers at http://127\.0\.0\.1:9 "):
        ours.connect()
    assert ours.server_uri == ""
    assert not ours.in_doubt("a run")
    ours.forget_answers()
    with pytest.raises(CatalogUnreachableError, match=r"no catalog answers at http://127\.0\.0\.1:9 "):
        ours.check()
    ours.check()
    assert ours.server_uri
    assert ours.reads("application/x-hdf5")
    assert ours.uri == catalog.client.uri
    ours.doubt("a run")
    assert ours.in_doubt("a run")
    ours.close()


def test_somebody_else_connects(catalog, monkeypatch):
    """A second thread does not wait for longer than a catalog may take for a word."""
    monkeypatch.setattr(tiled, "PROBE_TIMEOUT", 0.2)
    connecting, go_on = threading.Event(), threading.Event()

    def slowly():
        connecting.set()
        go_on.wait()
        return connect(catalog.uri, api_key=catalog.api_key)

    ours = TiledCatalog(slowly, "http://127.0.0.1:9")
    other = threading.Thread(target=ours.check)
    other.start()
    assert connecting.wait(10)
    with pytest.raises(CatalogUnreachableError, match=r"has not answered for 0\.2 s; try again later"):
        ours.check()
    go_on.set()
    other.join()
    ours.check()
    ours.close()


def test_connection_that_was_ended(catalog):
    """A server may end a connection just when it is used again: only who gets no answer twice is away."""
    with Proxy(catalog.uri) as proxy:
        ours = TiledCatalog(lambda: connect(proxy.uri, api_key=catalog.api_key), proxy.uri)
        ours.connect()
        cuts = iter(["cut", None, "cut", "cut"])
        proxy.fault = lambda _: next(cuts)
        ours.check()
        with pytest.raises(CatalogUnreachableError, match="no catalog answers"):
            ours.check()
        proxy.fault = lambda _: None
        ours.close()

"""Catalogs that answer, and such that do not (yet)."""

import gc
import http.server
import threading
import time
import warnings

import httpx
import pytest
from proxy import Proxy
from tiled.client import from_uri

from bluesky_filestore.catalogs.tiled import catalog as catalog_module
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import connect, find_outages, profile_content
from bluesky_filestore.catalogs.tiled.once import check_answer
from bluesky_filestore.errors import CatalogDownError, CatalogUnreachableError

NOBODY = "http://127.0.0.1:9/api/v1/metadata/"


class Other(http.server.BaseHTTPRequestHandler):
    """Answers, but is no Tiled server; one address takes its time."""

    def do_GET(self):
        """Say something."""
        if self.path.startswith("/slow"):
            self.server.released.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]" if self.path.startswith("/list") else b"hello")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def other():
    """The address of something that is no Tiled server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.released.set()
        server.shutdown()
        thread.join()


def test_outages(catalog, other):
    """Each is asked once, all at the same time, without a key, and no longer than told."""
    uris = [str(catalog.client.uri), NOBODY, other, f"{other}/list", f"{other}/slow", "nonsense", NOBODY]
    began = time.monotonic()
    found = find_outages(uris, 0.5)
    assert time.monotonic() - began < 10.0
    assert list(found) == uris[:-1]
    assert found[uris[0]] == ""
    assert f"no catalog answers at {NOBODY}" in found[NOBODY]
    assert f"something answers at {other} that is no Tiled server" in found[other]
    assert f"something answers at {other}/list that is no Tiled server" in found[f"{other}/list"]
    assert f"no catalog answers at {other}/slow (timed out)" in found[f"{other}/slow"]
    assert "no catalog answers at nonsense" in found["nonsense"]


def test_nobody_to_ask():
    """Without catalogs there is nothing to do."""
    assert find_outages([], 0.5) == {}


def test_connects_when_it_can(catalog):
    """A catalog that cannot be reached is tried again with each question; its address stays, and its doubts."""
    places = ["http://127.0.0.1:9", catalog.uri]
    ours = TiledCatalog(lambda: connect(places.pop(0), api_key=catalog.api_key), catalog.client.uri)
    assert not ours.in_doubt("a run")
    ours.doubt("a run")
    ours.forget_answers()
    assert (ours.uri, ours.server_uri) == (catalog.client.uri, "")
    with pytest.raises(CatalogDownError, match=r"no catalog answers at http://127\.0\.0\.1:9 "):
        ours.check()
    ours.check()
    assert ours.reads("application/x-hdf5")
    assert ours.uri == ours.server_uri == catalog.client.uri
    assert ours.in_doubt("a run")
    ours.close()
    with pytest.raises(CatalogUnreachableError, match="was closed"):
        ours.check()


def test_a_client_that_was_given_stays_open(catalog):
    """Only a client that the catalog made is closed with it."""
    ours = TiledCatalog(catalog.client)
    ours.close()
    ours.check()
    assert ours.uri == ours.server_uri == catalog.client.uri


def test_somebody_else_connects(catalog, monkeypatch):
    """A second thread does not wait for longer than a catalog may take for a word."""
    monkeypatch.setattr(catalog_module, "PROBE_TIMEOUT", 0.2)
    connecting, go_on = threading.Event(), threading.Event()

    def slowly():
        connecting.set()
        go_on.wait()
        return connect(catalog.uri, api_key=catalog.api_key)

    ours = TiledCatalog(slowly, "http://127.0.0.1:9")
    other = threading.Thread(target=ours.connect)
    other.start()
    assert connecting.wait(10)
    with pytest.raises(CatalogUnreachableError, match=r"has not answered for 0\.2 s; try again later"):
        ours.check()
    go_on.set()
    other.join()
    monkeypatch.undo()
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


@pytest.mark.parametrize(
    ("status", "kind", "is_tiled"),
    [
        *(
            (200, f"application/{each}", True)
            for each in ("json", "x-msgpack", "vnd.apache.arrow.file", "octet-stream")
        ),
        *((status, "text/html; charset=utf-8", False) for status in (200, 201, 302)),
        (200, "", False),
        (200, "text/plain", False),
        (204, "", True),
        # Errors have their own meaning, whoever says so.
        (404, "text/html", True),
        (503, "text/plain", True),
    ],
)
def test_whose_answer_it_is(status, kind, is_tiled):
    """What somebody between says instead of the catalog is no answer; an error is one."""
    response = httpx.Response(status, headers={"Content-Type": kind}, request=httpx.Request("GET", NOBODY))
    if is_tiled:
        check_answer(response)
        return
    with pytest.raises(
        httpx.RemoteProtocolError, match=f"something between answers .* {status} and {kind or 'nothing'}"
    ):
        check_answer(response)


# Tiled leaves the connections of a client that it could not make to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_client_cannot_be_made(catalog):
    """To whichever of the requests that it takes somebody else answers, what is raised says that."""
    with Proxy(catalog.uri) as proxy:
        connect(proxy.uri, api_key=catalog.api_key).context.close()
        for number in range(proxy.requests):
            first = proxy.requests
            proxy.fault = lambda request, place=first + number: "page" if request.number >= place else None
            with pytest.raises(
                CatalogUnreachableError, match=f"something answers at {proxy.uri} that is no Tiled server"
            ):
                connect(proxy.uri, api_key=catalog.api_key)
            gc.collect()


def test_closed_while_it_connects(catalog):
    """A client that is made when nobody wants it any more is closed, and not used."""
    made = []

    def make():
        tiled.close()
        made.append(from_uri(catalog.uri, api_key=catalog.api_key))
        return made[0]

    tiled = TiledCatalog(make, catalog.uri)
    with pytest.raises(CatalogUnreachableError, match="is not asked any more"):
        tiled.connect()
    assert made[0].context.http_client.is_closed


def test_filters_of_others_stay(monkeypatch):
    """Profiles are read in any thread: what another one has set about warnings meanwhile is not put back."""
    seen = []

    def profiles():
        seen.append(warnings.filters)
        return {"ours": ("", {"uri": "u"})}

    monkeypatch.setattr("tiled.profiles.load_profiles", profiles)
    before = warnings.filters
    for _ in range(2):
        assert profile_content("ours") == {"uri": "u"}
    assert seen[0] is seen[1] is warnings.filters is before
    assert len([each for each in warnings.filters if "Skipping" in str(each)]) == 1

"""Whether catalogs answer."""

import http.server
import threading
import time

import pytest

from bluesky_filestore.catalogs.tiled.connecting import answers

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


def test_answers(catalog, other):
    """Each is asked once, all at the same time, without a key, and no longer than told."""
    uris = [str(catalog.client.uri), NOBODY, other, f"{other}/list", f"{other}/slow", "nonsense", NOBODY]
    began = time.monotonic()
    found = answers(uris, 0.5)
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
    assert answers([], 0.5) == {}

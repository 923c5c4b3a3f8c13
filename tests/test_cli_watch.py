"""Runs watched from the command line."""

import re

import httpx
import pytest
from command_line import run, running
from paging import Scan


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    """A spool with a scan that has ended, and no catalog."""
    scan = Scan(tmp_path_factory.mktemp("watched"), points=3)
    scan.take(3)
    scan.stop()
    return scan.writer.directory


def test_watch_serves_the_page_with_its_key(spool):
    """It says where the page is, asks for the key that it was given, says why there are no runs, and ends at Ctrl-C."""
    with running("watch", spool, "--key", "ours", until="api_key=") as (_, lines):
        address = re.search(r"http://127\.0\.0\.1:\d+/filestore", lines[-1])[0]
        assert lines[-1].strip() == f"{address}?api_key=ours"
        with httpx.Client() as client:
            assert client.get(address).status_code == 401
            opened = client.get(address, params={"api_key": "ours"}, follow_redirects=True)
            assert "<title>filestore" in opened.text
            # A cookie of its own: that of Tiled's pages may be of a server beside it.
            assert client.cookies[f"bluesky_filestore_key_{httpx.URL(address).port}"] == "ours"
            assert "no spool knows a catalog" in client.get(f"{address}/runs").json()["why"]
            assert "The page is at /filestore" in client.get(address.removesuffix("/filestore")).text


def test_watch_as_text(spool):
    """Without a terminal the run is shown once."""
    shown = run("watch", spool, "--text")
    assert shown.returncode == 0, shown.stderr
    for words in ("scan 7 · scan", "asked 3   captured 3   documented 3", "image, event 3", "no spool knows a catalog"):
        assert words in shown.stdout


def test_watch_as_text_with_a_catalog(spool, catalog):
    """What a catalog lists is shown, too, however long it takes to be asked."""
    catalog.client.create_container("listed", metadata={"start": {"uid": "listed", "time": 2e9, "plan_name": "a plan"}})
    try:
        shown = run("watch", spool, "--text", "--uri", catalog.uri, "--api-key", catalog.api_key)
    finally:
        # It would be the last run for all other tests.
        catalog.client.delete_contents(["listed"])
    assert shown.returncode == 0, shown.stderr
    assert "scan 7 · scan" in shown.stdout
    assert "a plan" in shown.stdout


def test_a_spool_that_is_not_there(tmp_path):
    """It is said at once."""
    shown = run("watch", tmp_path / "nowhere", "--text")
    assert shown.returncode == 1
    assert "there is no spool in" in shown.stderr


def test_a_key_that_is_none(spool):
    """A key that could not be in an address is refused."""
    shown = run("watch", spool, "--key", "a b&c")
    assert shown.returncode == 1
    assert "expected nothing else" in shown.stderr

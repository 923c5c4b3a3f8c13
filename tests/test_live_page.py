"""What the page is told, and the pictures that it shows."""

import asyncio
import io
import json
import re
from contextlib import closing
from types import SimpleNamespace
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from paging import HOSTILE, KEY, Scan, served
from PIL import Image
from rich.console import Console, ConsoleDimensions
from spooled import put, run_documents

from bluesky_filestore.errors import DocumentError
from bluesky_filestore.live.page import page_app
from bluesky_filestore.live.page_frames import Look, draw, pixels
from bluesky_filestore.live.page_state import Watched
from bluesky_filestore.live.page_text import shown


@pytest.fixture
def scan(tmp_path):
    """A scan that goes on, whose metadata are made to do harm."""
    scan = Scan(tmp_path, sample_name=HOSTILE, detectors=[HOSTILE], hints={"dimensions": [["", "x"], []]})
    scan.take(5)
    yield scan
    scan.file.close()
    scan.writer.close()


def watched(scan, **options):
    """What there is to be watched of its spool."""
    return closing(Watched(lambda: [scan.writer.directory], **options))


def asked(app, *paths, method="GET"):
    """The answers of an application, one after the other."""

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(method, path) for path in paths]

    return asyncio.run(ask())


def events_of(state, uid="", *, until):
    """What one viewer is told, until something was said."""
    told = []

    def is_over():
        return until(told)

    async def listen():
        from bluesky_filestore.live.page import _events

        async for text in _events(state, uid, is_over):
            for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", text):
                told.append((name, json.loads(data)))

    asyncio.run(asyncio.wait_for(listen(), 30))
    return told


def has_rows(count):
    """Whether so many rows were told."""
    return lambda told: sum(len(said["times"]) for name, said in told if name == "rows") >= count


def test_a_viewer_is_told_all_of_a_run(scan):
    """Who comes in the middle gets the run, its counts and its numbers from the first; NaN is nothing."""
    with watched(scan) as state:
        told = events_of(state, until=has_rows(5))
        rows = [said for name, said in told if name == "rows"]
        columns = {key: [each for said in rows for each in said["columns"][key]] for key in ("motor", "signal")}
        assert columns["motor"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
        assert columns["signal"][3] is None
        scan.take(3)
        again = events_of(state, until=has_rows(8))
        header = [said for name, said in again if name == "run"][-1]
        assert header["uid"] == scan.uid
        assert header["asked"] == 20
        assert header["sample"] == HOSTILE[:200]
        assert header["streams"]["primary"] | {"captured": 0} == {
            "count": 8,
            "keys": ["image"],
            "captured": 0,
            "columns": ["motor", "signal"],
        }


def test_nothing_tells_a_path(scan):
    """No answer has a path of this machine in it, but those that errors and metadata of runs have."""
    with watched(scan) as state:
        told = events_of(state, until=lambda told: has_rows(5)(told) and any(name == "delivery" for name, _ in told))
    assert str(scan.path.parent) not in json.dumps(told)


def test_frames(scan):
    """A frame comes as a picture with its facts; one that is not there as a reason, and as no failure of the server."""
    with watched(scan) as state:
        events_of(state, until=has_rows(5))
        app = page_app(state)
        query = {"run": scan.uid, "stream": "primary", "key": "image", "low": 0, "high": 100, "map": "grey"}
        good, bad, *others = asked(
            app,
            f"/filestore/frame?{urlencode({**query, 'row': 4})}",
            f"/filestore/frame?{urlencode({**query, 'row': 40})}",
            f"/filestore/frame?{urlencode({**query, 'key': 'motor'})}",
            f"/filestore/frame?{urlencode({**query, 'row': 'x', 'low': 'nan', 'size': '-1'})}",
            f"/filestore/frame?{urlencode({'run': '../../etc', 'row': '9' * 5000})}",
        )
        assert good.headers["content-type"] == "image/png"
        facts = json.loads(good.headers["x-frame"])
        assert (facts["row"], facts["least"], facts["most"]) == (4, 4, 64 * 64 + 3)
        picture = np.asarray(Image.open(io.BytesIO(good.content)).convert("L")).astype(int)
        assert picture.shape == (64, 64)
        assert picture[0, 0] == 0
        assert picture[-1, -1] == 255
        assert bad.status_code == 200
        assert "has no event 40 in 'primary' with a frame of 'image'" in bad.json()["detail"]
        assert [each.status_code for each in others] == [200, 200, 200]
        header = state.view(scan.uid).header()
        assert header["streams"]["primary"]["captured"] == 5


def test_a_frame_that_is_not_in_its_file(scan):
    """An event whose frame was never written has a reason."""
    scan.add(5)
    with watched(scan) as state:
        events_of(state, until=has_rows(6))
        query = urlencode({"run": scan.uid, "stream": "primary", "key": "image", "row": 5})
        (answer,) = asked(page_app(state), f"/filestore/frame?{query}")
        assert "frame" in answer.json()["detail"]


def test_the_page_may_do_little(scan):
    """Its own script and style run, and none that somebody slips in; nothing is cached; the key leaves the address."""
    with watched(scan) as state:
        page, keyed = asked(page_app(state), "/filestore", f"/filestore?api_key={KEY}")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|https?://|\son\w+=", page.text)
    assert keyed.status_code == 303
    assert keyed.headers["location"] == "/filestore"
    assert f"tiled_api_key={KEY}; HttpOnly; Path=/; SameSite=lax" in keyed.headers["set-cookie"]


def test_the_key_is_asked_for(scan):
    """Nobody without the key gets anything."""
    with watched(scan) as state, served(state) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/filestore", "/filestore/events", "/filestore/runs", "/filestore/frame", "/metrics", "/x"):
            assert client.get(path).status_code == 401
        assert client.post("/filestore/verify").status_code == 401
        assert client.get("/filestore", headers={"Host": "evil.example"}).status_code == 400
        assert "no run yet" in client.get("/filestore", params={"api_key": KEY}, follow_redirects=True).text
        assert "documents_taken_total" in client.get("/metrics").text


def test_a_catalog_that_is_away_holds_nothing_up(scan):
    """The run is shown while a catalog keeps whoever asks it waiting, and why none is listed if it fails."""

    def connect():
        raise DocumentError("the catalog\nis away")

    with watched(scan, connect=connect) as state:
        told = events_of(state, until=lambda told: has_rows(5)(told) and any(name == "runs" for name, _ in told))
    assert ("runs", {"runs": [], "count": 0, "why": "the catalog␊is away"}) in told


def test_verified_when_that_is_asked(scan):
    """What is found is told; where nobody can, why."""
    with watched(scan, verify=lambda uid: [("ok", f"run {uid}"), ("problem", "a\nb")]) as state:
        (answer,) = asked(page_app(state), "/filestore/verify?run=abc", method="POST")
        assert answer.json() == {"found": [["ok", "run abc"], ["problem", "a␊b"]]}
    with watched(scan) as state:
        (answer,) = asked(page_app(state), "/filestore/verify?run=abc", method="POST")
        assert answer.status_code == 400
        assert "runs are not verified here" in answer.json()["detail"]


def test_spools_say_what_waits(tmp_path):
    """What waits for whom, and why, as far as it is known; a spool that is broken is named."""
    put(tmp_path / "one", run_documents(3)[1], catalogs=["http://user:secret@host/api/v1/metadata/"])
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "spool.db").write_bytes(b"no database" * 1000)
    with closing(Watched(lambda: [tmp_path / "one", tmp_path / "two"])) as state:
        told = events_of(state, until=lambda told: any(name == "delivery" for name, _ in told))
    one, two = next(said for name, said in told if name == "delivery")
    assert one["catalogs"][0]["address"] == "http://host/api/v1/metadata/"
    assert one["catalogs"][0]["waiting"] == 6
    assert 0 <= one["catalogs"][0]["lag"] <= one["catalogs"][0]["oldest"] < 60
    assert "damaged" in two["error"]


@pytest.mark.parametrize("is_logarithmic", [False, True])
@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "i4", "u8", "f4", "f8"])
def test_every_kind_of_number_is_drawn(dtype, is_logarithmic):
    """From dark to bright, whatever the numbers are."""
    frame = np.arange(600).reshape(1, 20, 30) % 2 if dtype == "?" else np.arange(600).reshape(1, 20, 30) / 599 * 250
    look = Look(0, 100, is_logarithmic, "grey", 1024)
    picture = np.asarray(Image.open(io.BytesIO(draw(frame.astype(dtype), look).png)).convert("L")).astype(int)
    assert picture.shape == (20, 30)
    assert (picture.min(), picture.max()) == (0, 255)
    # Brighter where there is more.
    order = frame[0].astype(dtype).ravel().argsort(kind="stable")
    assert (np.diff(picture.ravel()[order]) >= 0).all()


def test_frames_with_odd_values():
    """NaN, infinities, flat frames, colours and very large ones are drawn; what is no image is an error."""
    odd = np.full((8, 8), np.nan)
    assert draw(odd, Look()).facts["least"] is None
    odd[0, :3] = 1, np.inf, 5
    assert json.loads(json.dumps(draw(odd, Look()).facts, allow_nan=False))["mean"] == 3
    assert draw(np.zeros((1, 4, 4)), Look()).facts["most"] == 0
    assert Image.open(io.BytesIO(draw(np.zeros((2, 9, 9, 3), "u1"), Look()).png)).mode == "RGB"
    large = Image.open(io.BytesIO(draw(np.zeros((3000, 5000), "u2"), Look(size=500)).png))
    assert large.size == (500, 300)
    assert pixels(np.zeros((100, 70)), Look(size=32)).shape == (25, 17, 3)
    for frame in (np.zeros(5), np.zeros((2, 0, 3)), np.array([["a"]])):
        with pytest.raises(DocumentError, match="is no image"):
            draw(frame, Look())


@pytest.mark.parametrize("text", ["", "nan", "-inf", "1e999", "x", "\u0663"])
def test_what_makes_no_sense_in_a_query_is_as_usual(text):
    """Whatever is asked for, the look is one."""
    look = Look.asked(dict.fromkeys(("low", "high", "size", "map", "log"), text))
    assert 0 <= look.low <= look.high <= 100
    assert 32 <= look.size <= 2048
    assert draw(np.arange(4).reshape(2, 2), look).png


def test_in_a_terminal(scan):
    """The same as text: the run, its counts, its last frame, its numbers, and spools; nothing is carried out."""
    console = Console(width=100, height=40, record=True, file=io.StringIO(), force_terminal=True)
    with watched(scan) as state:
        events_of(state, until=lambda told: has_rows(5)(told) and any(name == "delivery" for name, _ in told))
        console.print(shown(state, ConsoleDimensions(100, 40)))
    text = console.export_text()
    for words in (
        "scan 7",
        "going on",
        "asked 20",
        "captured 5",
        "documented 5",
        "▀▀▀",
        "image, event 5",
        "signal",
        "spool",
    ):
        assert words in text


@pytest.mark.parametrize("answer", [{}, {"data": [{"id": "a"}], "meta": {"count": 1}}, {"data": 1, "meta": []}, []])
def test_runs_that_are_listed_otherwise(answer):
    """A catalog that answers in a way that is not known has none listed, with the reason, and nothing fails."""
    requests = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=answer)))
    context = SimpleNamespace(http_client=requests, close=requests.close)
    client = SimpleNamespace(uri="http://host", context=context, item={"links": {"search": "http://host/search"}})
    with closing(Watched(list, lambda: client)) as state:
        found = state.runs(0, 10)
    assert found["runs"] == []
    assert "http://host does not list its runs in the way that is known" in found["why"]

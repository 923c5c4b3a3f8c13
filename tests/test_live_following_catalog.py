"""Events of a run as they come: from the catalog."""

from contextlib import closing
from dataclasses import replace

import event_model
import numpy as np
import pytest
from document_streams import Camera, Case, Step, build
from proxy import Proxy
from small_runs import SmallRun
from tiled.client import from_context, from_uri

from bluesky_filestore import CatalogWriter, follow
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.errors import CatalogError, DocumentError, RunNotFoundError
from bluesky_filestore.live.following_catalog import EventsOfCatalog
from bluesky_filestore.model.frame_map import Assets
from bluesky_filestore.operations.operations import AppendArray
from bluesky_filestore.operations.run import Run
from bluesky_filestore.spool import Ledger
from bluesky_filestore.spool.pruning import forget

TWO = Case(
    (Camera("cam_image", "AD_HDF5", 1, "<u2"), Camera("other_image", "stream HDF5", 2, "<u2")),
    {"primary": (0, 1), "dark": (0,)},
    (tuple(Step(stream) for stream in ("dark", "primary", "primary", "dark", "primary")),),
)


def told(events):
    """What is told of each event."""
    return [
        (each.position, each.stream, each.row, each.seq_num, each.is_repeated, each.uid, each.time) for each in events
    ]


@pytest.fixture
def writer(catalog, tmp_path):
    """A writer with a spool that is none of the user's own."""
    with CatalogWriter(catalog.client, spool=tmp_path / "spool", interval=0.05) as writer:
        yield writer


def test_the_same_from_everywhere(catalog, writer, data_directory):
    """Of a run that has ended the same events with the same frames come from the spool, the catalog and its address."""
    case = build(replace(TWO, stopped=True), data_directory / "follow two")
    for name, doc in case.documents:
        writer(name, doc)
    writer.flush()
    uid = case.documents[0][1]["uid"]
    spooled = list(follow(writer, uid))
    assert len(spooled) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILED_API_KEY", catalog.api_key)
        with follow(f"{catalog.uri}/api/v1", uid[:8], spool=False) as of_address:
            assert told(of_address) == told(spooled)
            assert of_address.stop == case.documents[-1][1]
    of_client = follow(catalog.client, uid, after=2, spool=False)
    for events in (list(follow(catalog.client[uid])), list(of_client)):
        assert told(events) == told(spooled[-len(events) :])
        for event, other in zip(events, spooled[-len(events) :], strict=True):
            assert event.data == other.data
            assert set(event.frames) == set(other.frames)
            for key in event.frames:
                np.testing.assert_array_equal(event[key], other[key], strict=True)
    assert {array.source for array in of_client._source._arrays.values()} == {"files"}


def test_an_array_that_is_another_since(catalog, writer, data_directory):
    """An array that is made anew while it is read is no error while the run goes on: it is asked for again."""
    run = SmallRun(data_directory, 12)
    for name, doc in run.documents[:6]:
        writer(name, doc)
    writer.flush()
    refused = []

    def twice(request):
        if "/array/full/" in request.path and len(refused) < 2:
            refused.append(request.path)
            return 422
        return None

    with Proxy(catalog.uri) as proxy, closing(from_uri(proxy.uri, api_key=catalog.api_key).context) as context:
        proxy.fault = twice
        events = follow(from_context(context)[run.uid], interval=0.02, spool=False)
        assert events.poll(20.0).seq_num == 1
        events.close()
    assert len(refused) == 2


def test_as_it_comes(catalog, writer, data_directory):
    """While a run goes on its events come from the catalog with their frames; who begins again gets the others."""
    run = SmallRun(data_directory, 11)
    for name, doc in run.documents[:6]:
        writer(name, doc)
    writer.flush()
    first = follow(catalog.client[run.uid], interval=0.02, spool=False)
    assert first.start == run.documents[0][1]
    events, left = [], iter(run.documents[6:])
    for name, doc in left:
        event = first.poll(0.3)
        while event is not None:
            events.append(event)
            np.testing.assert_array_equal(event["image"][0], run.images[event.row])
            event = first.poll()
        if len(events) > 2:
            writer(name, doc)
            break
        writer(name, doc)
    assert events
    assert first.stop is None
    for name, doc in left:
        writer(name, doc)
    rest = list(follow(catalog.client, run.uid, after=events[-1].position, interval=0.02, spool=False))
    assert [each.position for each in events + rest] == list(range(1, run.events + 1))
    assert [each["x"] for each in events + rest] == [doc["data"]["x"] for n, doc in run.documents if n == "event"]


def test_an_array_that_is_being_made(catalog, writer, data_directory, monkeypatch):
    """Events are given when their small arrays are there, of which the catalog has the node first."""
    run = SmallRun(data_directory, 21)
    for name, doc in run.documents[:6]:
        writer(name, doc)
    writer.flush()
    follower = follow(catalog.client[run.uid], interval=0.02, spool=False)
    with monkeypatch.context() as patch:
        patch.setattr("tiled.client.array.ArrayClient.data_sources", lambda _: [])
        assert follower.poll(0.5) is None
    assert follower.poll(20).data["wave"] == run.waves[0]
    follower.close()


def test_a_run_that_left_its_spool(catalog, data_directory):
    """A writer without a spool of its own forgets what is delivered: its run is followed on in the catalog."""
    run = SmallRun(data_directory, 12, events=400)
    with CatalogWriter(catalog.client, spool=None, interval=0.05) as writer:
        for name, doc in run.documents:
            writer(name, doc)
        follower = follow(writer, interval=0.05)
        taken = [next(follower)]
        with closing(Ledger(writer.directory)) as ledger:
            writer.flush()
            if ledger.latest() is not None:
                forget(ledger, ledger.latest().number)
        taken += follower
        assert [each.position for each in taken] == list(range(1, run.events + 1))
        assert told(follow(writer)) == told(taken)


def test_a_catalog_that_goes_away(catalog, writer, data_directory, monkeypatch, caplog):
    """A catalog that does not answer for a while is waited for, and nothing is left out."""
    run = SmallRun(data_directory, 13)
    for name, doc in run.documents:
        writer(name, doc)
    writer.flush()
    follower = follow(catalog.client[run.uid], interval=0.01, spool=False)
    source = follower._source
    client, uri = source._node.context.http_client, source._node._item["links"]["self"]
    monkeypatch.setitem(source._node._item["links"], "self", "http://127.0.0.1:9/api/v1/metadata/away")
    assert follower.poll(0.1) is None
    assert not follower.is_over
    assert (
        len([each for each in caplog.records if "is followed on when the catalog answers again" in each.message]) == 1
    )
    monkeypatch.setitem(source._node._item["links"], "self", uri)
    assert client is source._node.context.http_client
    assert [each.position for each in follower] == list(range(1, run.events + 1))


def test_a_frame_that_is_not_registered(catalog, writer, data_directory):
    """A frame that the catalog does not have is an error that says so, after some patience."""
    run = SmallRun(data_directory, 14)
    others = [each for each in run.documents if each[0] not in ("resource", "datum")]
    for name, doc in others:
        writer(name, doc)
    writer.flush()
    event = next(follow(catalog.client[run.uid], patience=0.05, spool=False))
    with pytest.raises(DocumentError, match="the catalog has no array 'image' of stream 'primary'"):
        event["image"]
    with pytest.raises(KeyError):
        event["nothing"]


def test_what_is_not_there(catalog):
    """A run that nobody has, and one that was taken away meanwhile, are errors."""
    with pytest.raises(RunNotFoundError, match=r"no run in .* begins with 'nobody'"):
        follow(catalog.client, "nobody")
    gone = catalog.client.create_container("gone", metadata={"start": {"uid": "gone", "time": 1.0}})
    source = EventsOfCatalog(gone, 0.1, None, 0.1)
    catalog.client.delete_contents(["gone"])
    with pytest.raises(CatalogError, match="404"):
        source.take()


def test_an_event_that_is_not_whole(catalog):
    """Rows, arrays and streams are written one after the other: an event comes when all of it is there."""
    composed = event_model.compose_run()
    keys = {
        "x": {"source": "s", "dtype": "number", "shape": []},
        "wave": {"source": "s", "dtype": "array", "shape": [3]},
    }
    streams = [composed.compose_descriptor(name=name, data_keys=keys) for name in ("primary", "dark")]
    run = Run(composed.start_doc, Assets(), lambda source, files: [])
    for bundle in streams:
        run.receive("descriptor", bundle.descriptor_doc)
    for number in range(4):
        data = {"x": number / 2, "wave": [number, 1.5, 2.5]}
        run.receive("event", streams[1 - number % 2].compose_event(data=data, timestamps=dict.fromkeys(keys, 5.0)))
    tiled, follower, seen = TiledCatalog(catalog.client), None, []
    for operation in [*run.take(), *run.take(final=True)]:
        tiled.apply(operation)
        follower = follower or follow(catalog.client[composed.start_doc["uid"]], interval=0, spool=False)
        # At once, and not when it may be asked again.
        follower._source._asked_at = 0.0
        while (event := follower.poll()) is not None:
            seen.append((type(operation), event.position, event.stream, event["x"], event["wave"][0]))
    assert [each[1:] for each in seen] == [(n + 1, ("primary", "dark")[1 - n % 2], n / 2, n) for n in range(4)]
    assert {kind for kind, *_ in seen} == {AppendArray}

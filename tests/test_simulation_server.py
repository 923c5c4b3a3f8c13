"""The simulated server answers as a real one does, request for request."""

import io
import json
import random
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import msgpack
import pyarrow
import pytest
from simulation.network import Network, client_by
from simulation.server import Server
from small_runs import SmallRun
from tiled.client import from_uri

from bluesky_filestore import documents
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.delivery.conveyor import Conveyor
from bluesky_filestore.delivery.problems import Problems
from bluesky_filestore.spool import Ledger, Store
from bluesky_filestore.spool.spooled_run import find_run

OURS = tuple(f"application/x-bluesky-filestore-{kind}" for kind in ("hdf5", "series", "handled", "ragged"))
_LINKS = ("self", "search", "full", "block", "partition")


class Compared:
    """Asks a simulated server whatever a real one was asked, and compares the answers."""

    def __init__(self):
        self.server, self.asked, self.statuses = Server(OURS), set(), set()

    def __call__(self, response):
        """One answer of the real server."""
        response.read()
        request = response.request
        status, kind, content = self.server.answer(
            request.method, request.url.path, request.url.params, request.content
        )
        words = f"{request.method} {request.url.path}"
        assert (status, words) == (response.status_code, words), (content, response.content)
        found, wanted = (
            _said(*each) for each in ((kind, content), (response.headers["content-type"], response.content))
        )
        if status == 200:
            assert found == wanted, words
        self.asked.add((request.method, "/".join(request.url.path.split("/")[3:5])[:15]))
        self.statuses.add(status)
        self._give_number(request, wanted)

    def _give_number(self, request, wanted):
        """Have a data source the number that it has in the real one."""
        if request.method == "POST" and isinstance(wanted, dict) and wanted.get("numbers"):
            path = tuple(part for part in request.url.path.split("/")[4:] if part)
            node = self.server.nodes[*path, wanted["id"]]
            self.server.nodes[*path, wanted["id"]] = replace(node, source={**node.source, "id": wanted["numbers"][0]})


class _Numbers(list):
    """Equal to any others."""

    def __eq__(self, other):
        return len(self) == len(other)

    __hash__ = None


def _said(kind, content):
    """What is compared of an answer: all that does not tell where and when."""
    if "arrow" in kind:
        columns = pyarrow.ipc.open_file(io.BytesIO(content)).read_all().to_pydict()
        # The real one goes by way of pandas.
        return {name: values for name, values in columns.items() if not name.startswith("__index")}
    if "octet-stream" in kind:
        return content
    said = msgpack.unpackb(content) if "msgpack" in kind else json.loads(content)
    if not isinstance(said, dict):
        return said
    item = said["data"] if isinstance(said.get("data"), dict) else said
    attributes = item.get("attributes", item)
    sources = attributes.get("data_sources") or []
    links = item.get("links") or {}
    return {
        **{key: attributes.get(key) for key in ("structure_family", "metadata", "access_tags")},
        # What else is in the catalog is the session's other tests'.
        "structure": attributes.get("structure") if attributes.get("ancestors") or item.get("id") else None,
        **{key: item[key] for key in ("shape", "chunks", "detail", "id") if key in item},
        "specs": [each["name"] for each in attributes.get("specs") or () if each["name"] != "CatalogOfBlueskyRuns"],
        # Those of a page of nodes are not asked for but for the next one.
        "links": {}
        if isinstance(said.get("data"), list)
        else {key: _path(link) for key, link in links.items() if key in _LINKS},
        "sources": [_source(each) for each in sources],
        "numbers": _Numbers(each["id"] for each in sources),
        "below": [_said_of(each) for each in said["data"]] if isinstance(said.get("data"), list) else None,
    }


def _path(link):
    return [part for part in link.split("/")[3:] if part]


def _said_of(item):
    return item["id"], item["attributes"]["structure_family"], item["attributes"]["structure"]


def _source(source):
    is_own = source["management"] != "external"
    assets = [] if is_own else [(each["data_uri"], each["num"], each["size"]) for each in source["assets"]]
    parameters = {} if is_own else source["parameters"]
    about = [source[key] for key in ("structure_family", "structure", "management", "mimetype")]
    return [*about, parameters, assets]


@pytest.fixture
def compared(catalog):
    """A client of the session's catalog, whose requests are asked of a simulated one, too."""
    client = from_uri(catalog.uri, api_key=catalog.api_key)
    comparing = Compared()
    # What the session's other tests have put there is no run of these.
    client.context.http_client.event_hooks["response"] = [comparing]
    yield client, comparing
    client.context.close()


@pytest.mark.parametrize("seed", range(3))
def test_answers(tmp_path, data_directory, catalog, compared, seed):
    """Runs that are delivered, gone through again, and written again ask for all that the delivery ever does."""
    client, comparing = compared
    chance = random.Random(seed)
    run = SmallRun(data_directory, 9000 + seed, events=6)
    with closing(Store(tmp_path)) as store:
        for number, document in enumerate(run.documents):
            store.append(*document)
            if number > 4 and chance.random() < 0.3:
                deliver(tmp_path, client)
    deliver(tmp_path, client)
    run.compare(catalog.client)
    tiled = TiledCatalog(client)
    tiled.remove_rows(run.uid)
    find_run([tmp_path], run.uid)[0].ask_again()
    deliver(tmp_path, client)
    run.compare(catalog.client)
    world = SimpleNamespace(task=None)
    simulated = client_by(Network(world, comparing.server).transport())
    assert list(documents(simulated[run.uid])) == list(documents(catalog.client[run.uid]))
    assert {method for method, _ in comparing.asked} == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert comparing.statuses == {200, 404, 409, 415}


def deliver(directory, client):
    """Deliver what is in a spool, as a process that has just begun."""
    with closing(Ledger(directory)) as ledger:
        conveyor = Conveyor(ledger, TiledCatalog(client), Problems())
        conveyor.move()
        conveyor.try_again()
        conveyor.move()

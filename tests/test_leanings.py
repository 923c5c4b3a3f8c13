"""What is leaned on in Tiled's client, HDF5, ophyd and caproto, taken away; and the page that lists all of it."""

import ast
import logging
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import caproto.asyncio.server
import h5py
import httpx
import numpy as np
import pytest
import tifffile
import tiled.client
import tiled.client.container
from event_model import compose_run
from leaning import logged_anew  # noqa: F401 - a fixture
from proxy import Proxy
from tiled.client import from_uri
from tiled.client.container import Container
from tiled.utils import path_from_uri

from bluesky_filestore import CatalogWriter, documents, open_array
from bluesky_filestore.catalogs.tiled import connecting, once
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.checking.directories import _longest
from bluesky_filestore.cli import entry
from bluesky_filestore.errors import (
    CatalogAccessError,
    CatalogUnreachableError,
    LockedFileError,
    TruncatedFileError,
    UnreadableFileError,
)
from bluesky_filestore.files import hdf5_opening
from bluesky_filestore.files.hdf5_opening import open_hdf5
from bluesky_filestore.files.readable import file_errors
from bluesky_filestore.files.tiff import read_tiff
from bluesky_filestore.leanings import going_without, log_once
from bluesky_filestore.mixins.staging import PutBackReport
from bluesky_filestore.mixins.waiting import components_with, values_before
from bluesky_filestore.model.addressing import HDF5_ROWS
from bluesky_filestore.model.specs import HDF5
from bluesky_filestore.operations.operations import CreateRun
from bluesky_filestore.sim import server as sim_server
from bluesky_filestore.sim.detectors import SimDetectorHDF5

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanations" / "leaning-on-others.md"


def test_said_once(caplog, logged_anew):  # noqa: F811
    """The same words come once a process, others too, with the traceback of what went wrong."""
    logger = logging.getLogger("any")
    for _ in range(3):
        log_once(logger, "It is gone")
        with going_without(logger, "A thing", "it takes longer"):
            raise AttributeError("no such thing")
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "It is gone"
    assert second == "A thing is not as expected here; so it takes longer. (AttributeError: no such thing)"
    assert "Traceback" in caplog.text
    with pytest.raises(OSError, match="disk"), going_without(logger, "A thing", "it takes longer"):
        raise OSError("disk")


# -- Tiled's client ----------------------------------------------------------------------------------------------------


def written(client):
    """A run of numbers, as it is in the catalog, and its documents."""
    run = compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={"x": {"source": "s", "dtype": "number", "shape": []}})
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    pairs += [("event", bundle.compose_event(data={"x": float(n)}, timestamps={"x": 1.0})) for n in range(3)]
    pairs.append(("stop", run.compose_stop()))
    with CatalogWriter(client) as writer:
        for name, doc in pairs:
            writer(name, doc)
    return client[run.start_doc["uid"]], pairs


@pytest.mark.parametrize("gone", ["clients", "variation"])
def test_without_plain_clients(catalog, monkeypatch, caplog, logged_anew, gone):  # noqa: F811
    """Runs are written with the clients that there are."""
    client = catalog.client
    if gone == "clients":
        monkeypatch.setattr(tiled.client.container, "DEFAULT_STRUCTURE_CLIENT_DISPATCH", {})
    else:
        original = Container.new_variation

        def pickier(self, **arguments):
            if "structure_clients" in arguments:
                raise TypeError("takes no structure_clients")
            return original(self, **arguments)

        monkeypatch.setattr(Container, "new_variation", pickier)
    node, pairs = written(client)
    monkeypatch.undo()
    assert list(documents(node)) == pairs
    assert caplog.text.count("What Tiled makes clients of is not as expected here") == 1


@pytest.mark.parametrize("gone", [None, "http_client", "_context"])
def test_requests_are_made_once(catalog, monkeypatch, caplog, logged_anew, gone):  # noqa: F811
    """A request that fails is ours to make again; the client that was given asks as before, and so do we without."""
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 3)
    with Proxy(catalog.uri) as proxy:
        client = from_uri(proxy.uri, api_key=catalog.api_key)
        asked = []
        proxy.fault = lambda request: asked.append(request) or 503 if request.method == "POST" else None
        if gone == "http_client":
            monkeypatch.setattr(once, "_AsksOnce", lambda _: client.context.no_such_thing)
        elif gone == "_context":
            monkeypatch.setattr(Container, "context", property(lambda _: client.context_of_all), raising=False)
            client.context_of_all = client._context
        writing = TiledCatalog(client)
        with pytest.raises(CatalogUnreachableError, match="status 503: the proxy says so"):
            writing.apply(CreateRun("once", {"start": {}}))
        assert len(asked) == (1 if gone is None else 3)
        assert ("How Tiled's clients make requests" in caplog.text) == (gone is not None)
        asked.clear()
        with pytest.raises(httpx.HTTPStatusError):
            client.create_container("many times")
        assert len(asked) == 3
        client.context.close()


@pytest.mark.parametrize("order", [1, -1])
def test_servers_that_look_from_either_end(catalog, stock, monkeypatch, order):
    """Whichever of two data sources a server looks at first, it is known which mimetypes it reads."""
    original = Container.new

    def new(self, family, sources, **arguments):
        return original(self, family, sources[::order], **arguments)

    monkeypatch.setattr(Container, "new", new)
    ours, theirs = TiledCatalog(catalog.client), TiledCatalog(stock[0])
    assert [each.reads(mimetype) for each in (ours, theirs) for mimetype in (HDF5, HDF5_ROWS)] == [
        True,
        True,
        True,
        False,
    ]


def test_a_server_that_names_all(catalog, monkeypatch, caplog, logged_anew):  # noqa: F811
    """A server whose answer does not tell is taken for a stock one, and that is logged once."""
    request = httpx.Request("POST", "http://127.0.0.1")

    def new(self, family, sources, **_):
        response = httpx.Response(415, text=" ".join(source.mimetype for source in sources), request=request)
        raise httpx.HTTPStatusError("415", request=request, response=response)

    monkeypatch.setattr(Container, "new", new)
    asked = TiledCatalog(catalog.client)
    assert not asked.reads(HDF5_ROWS)
    assert not asked.reads(HDF5_ROWS)
    assert caplog.text.count("does not tell what it reads") == 1


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_fails_at_the_question(catalog, monkeypatch, status):
    """What a server reads decides how a run's images are registered: while it fails it is asked again, for a minute."""
    request = httpx.Request("POST", "http://127.0.0.1")

    def new(self, family, sources, **_):
        response = httpx.Response(status, text="not now", request=request)
        raise httpx.HTTPStatusError(str(status), request=request, response=response)

    asked = TiledCatalog(catalog.client)
    with monkeypatch.context() as failing:
        failing.setattr(Container, "new", new)
        with pytest.raises(CatalogUnreachableError, match="failed"):
            asked.reads(HDF5_ROWS)
    assert asked.reads(HDF5_ROWS)
    monkeypatch.setattr(Container, "new", new)
    monkeypatch.setattr("bluesky_filestore.catalogs.tiled.mimetypes._WHILE_SECONDS", 0.0)
    assert not TiledCatalog(catalog.client).reads(HDF5_ROWS)


def test_a_client_that_was_closed(catalog):
    """That a client was closed is known by the client, and not by what httpx says of it."""
    catalog.client.write_array(np.arange(3), key="closed")
    client = from_uri(catalog.uri, api_key=catalog.api_key)
    writing, reading = TiledCatalog(client), open_array(client["closed"])
    client.context.close()
    for ask in (
        writing.check,
        lambda: writing.reads(HDF5),
        lambda: reading[0],
        lambda: open_array(reading._array._node),
    ):
        with pytest.raises(CatalogUnreachableError, match=r"was closed; expected it to stay open"):
            ask()


@pytest.mark.parametrize("wants_key", [True, False])
def test_a_login_that_is_missing(catalog, monkeypatch, wants_key):
    """Whether a key is missing is what the server said before, and not in the words of Tiled's client."""

    def refuse(*_, **__):
        raise RuntimeError("Who are you?")

    monkeypatch.setattr(tiled.client, "from_uri", refuse)
    monkeypatch.setattr(connecting, "_probe", lambda *_: wants_key)
    with pytest.raises(CatalogAccessError if wants_key else RuntimeError) as refused:
        connect(catalog.uri)
    assert ("does not take visitors without an API key" in str(refused.value)) == wants_key


def test_paths_in_uris_are_as_they_are():
    """Tiled does not unquote a URI's path, and neither do we when we write one."""
    assert path_from_uri("file://localhost/a%20b c") == Path("/a%20b c")


# -- HDF5 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_other_words(monkeypatch):
    """HDF5 gives no reason that we know, and no number of one."""
    original = hdf5_opening._opened

    def opened(*arguments, **options):
        try:
            return original(*arguments, **options)
        except OSError as error:
            raise OSError("It did not work out") from error

    monkeypatch.setattr(hdf5_opening, "_opened", opened)


def test_open_here_already(tmp_path, in_other_words):
    """A file that this process has open with SWMR is opened so again, by whatever name."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["d"] = [1, 2]
    (tmp_path / "link.h5").symlink_to(path)
    with (
        h5py.File(path, "r", libver="latest", swmr=True),
        open_hdf5(str(path)) as again,
        open_hdf5(str(tmp_path / "link.h5")) as linked,
    ):
        assert again.swmr_mode
        assert again["d"][:].tolist() == linked["d"][:].tolist() == [1, 2]


WRITER = """
import h5py, sys
file = h5py.File(sys.argv[1], "w", libver=sys.argv[2], locking=sys.argv[3] == "locked")
file["d"] = [1, 2]
file.flush()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("version", "locking"), [("earliest", "locked"), ("latest", "locked"), ("latest", "marked")])
def test_kept_out_by_a_writer(tmp_path, in_other_words, version, locking):
    """A file that is open for writing is known by its lock or its mark, for our readers and those of others."""
    path = str(tmp_path / "a.h5")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, version, locking], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(LockedFileError, match=r"a\.h5 is open for writing, .* try again later"):
            open_hdf5(path)
        with pytest.raises(LockedFileError, match=r"a\.h5 is open for writing"), file_errors(path):
            raise OSError("a handler of somebody else's could not")
        writer.stdin.close()
        assert writer.wait(timeout=30) == 0
    with open_hdf5(path) as file:
        assert file["d"][:].tolist() == [1, 2]


@pytest.mark.parametrize("words", ["its own", "others"])
def test_cut_short_behind_a_user_block(tmp_path, request, words):
    """The one file of which only HDF5 says that it was cut short is unreadable in whatever words."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["d"] = np.arange(1000)
    path.write_bytes(path.read_bytes()[:-1000])
    if words == "others":
        request.getfixturevalue("in_other_words")
    kind = TruncatedFileError if words == "its own" else UnreadableFileError
    with pytest.raises(kind, match=r"a\.h5 (was cut short|cannot be read: It did not work out)") as refused:
        open_hdf5(str(path))
    assert type(refused.value) is kind


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}, {"metadata": None}, {"compression": "zlib"}])
@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8), (1, 6, 8)])
def test_what_tifffile_makes_one_array_of(tmp_path, shape, options):
    """Files are read as tifffile reads them, whatever it puts into one page of them, or several."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(np.prod(shape), dtype="u2").reshape(shape), photometric="minisblack", **options)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_tiff(file.fileno(), str(path)), tifffile.imread(path))


# -- ophyd and caproto -------------------------------------------------------------------------------------------------


def test_components_of_a_class():
    """The classes of ophyd give their components by name, without a device of them being made."""
    device = object.__new__(SimDetectorHDF5)
    assert components_with(device, "generate_datum") == ["hdf5"]
    assert components_with(device, "stage") == [name for name in device.component_names if name in device._sub_devices]
    assert components_with(SimpleNamespace(), "stage") == []


def test_what_unstage_puts_back_is_elsewhere(caplog, logged_anew):  # noqa: F811
    """Without ophyd's record of what it puts back, that is left to ophyd."""
    device = SimpleNamespace(name="device")
    PutBackReport(1.0).attach(device)
    assert not values_before(device)
    assert caplog.text.count("ophyd keeps elsewhere what its unstage puts back") == 1


def test_a_record_that_does_not_tell_its_length(ioc):
    """The length of a record is asked of the client library through ophyd; without, nothing is known of it."""
    detector = SimDetectorHDF5(ioc.prefix, name="det", write_path_template=str(ioc.directory), root=ioc.directory)
    try:
        detector.hdf5.file_path.wait_for_connection(timeout=10)
        assert _longest(detector.hdf5.file_path) == 255
    finally:
        detector.destroy()
    assert _longest(SimpleNamespace()) is None


def test_without_ophyds_dispatcher(monkeypatch, caplog, logged_anew):  # noqa: F811
    """The command ends as it would, whatever ophyd has for threads."""
    monkeypatch.setitem(sys.modules, "ophyd", SimpleNamespace())
    entry._end_of_ophyd()()
    assert caplog.text.count("ophyd's dispatcher is not as expected here") == 1


def test_without_what_caproto_calls(monkeypatch, caplog, logged_anew):  # noqa: F811
    """The simulated IOC overrides what caproto's server has, and says if that is not there any more."""
    sim_server.check_caproto()
    assert not caplog.text
    for name in ("_process_command", "_on_disconnect", "get_from_sub_queue"):
        for kind in caproto.asyncio.server.VirtualCircuit.__mro__:
            if name in kind.__dict__:
                monkeypatch.delattr(kind, name)
        sim_server.check_caproto()
        assert f"no {name} any more" in caplog.text


# -- the page ----------------------------------------------------------------------------------------------------------


def rows():
    """What is leaned on, where, since when it was seen, and what holds it, of each row of the page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| what |")
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:30])
def test_the_page_names_what_there_is(row):
    """Each row has modules, tests and a package with a version that there are."""
    _, where, seen, then, tests = row
    assert then
    modules, named = re.findall(r"`([^`]+)`", where), re.findall(r"`([^`]+)`", tests)
    assert modules
    assert named
    for module in modules:
        assert (ROOT / "bluesky_filestore" / f"{module}.py").is_file(), module
    for test in named:
        module, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test
    assert re.fullmatch(r"[A-Za-z][\w-]* [\d.]+", seen)


def test_the_page_and_the_floors():
    """No row says that an earlier version was seen than the one that is asked for."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    asked = config["options"]["install_requires"] + "".join(config["options.extras_require"].values())
    floors = dict(re.findall(r"^([\w-]+)(?:\[[\w,]+\])? >=([\d.]+)", asked, re.MULTILINE))
    named = {package for row in rows() for package in re.findall(r"([A-Za-z][\w-]*) [\d.]+", row[2])}
    assert named >= {"tiled", "ophyd", "bluesky-tiled-plugins", "caproto", "h5py"}
    for row in rows():
        for package, first in re.findall(r"([A-Za-z][\w-]*) ([\d.]+)", row[2]):
            floor = floors.get(package, first)
            assert tuple(map(int, first.split("."))) >= tuple(map(int, floor.split("."))), row[0]

"""What tests share: one simulated IOC and one catalog a session, on loopback."""

import ast
import functools
import gc
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bluesky import RunEngine
    from tiled.client.container import Container

    from bluesky_filestore.serving import CatalogServer
    from bluesky_filestore.sim import SimulatedIOC

with suppress(ImportError):
    # ophyd does the same, and has to before anybody imports epics, as some tests do.
    import epicscorelibs.path.pyepics  # noqa: F401

_MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a directory of its own there
_ROOM = 4 * 2**30
# What takes seconds: fixtures, and names that are imported for servers and other processes.
_SLOW_FIXTURES = {"ioc", "catalog", "stock"}
_SLOW_IMPORTS = {
    *("CatalogServer", "RunEngine", "SimpleTiledServer", "SimulatedIOC"),
    *("multiprocessing", "serve_catalog", "subprocess"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick`` is for those who are at it: modules that need no server, IOC or other process."""
    parser.addoption("--quick", action="store_true", help="only modules that need no server, IOC or other process")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--quick`` what is slow is not even imported."""
    if not config.getoption("--quick") or collection_path.suffix != ".py":
        return None
    return not collection_path.name.startswith("test_") or bool(_slow_things(collection_path)) or None


@functools.cache
def _slow_things(path: Path) -> set[str]:
    """What a module of tests has that takes seconds, itself or by a helper beside it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("test_") or node.decorator_list):
            found |= _SLOW_FIXTURES.intersection(each.arg for each in node.args.args)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getfixturevalue"):
            found |= {each.value for each in node.args if isinstance(each, ast.Constant)} & _SLOW_FIXTURES
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {each.name.partition(".")[0] for each in node.names}
            found |= _SLOW_IMPORTS & names
            helpers = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            for helper in (path.with_name(f"{name}.py") for name in helpers):
                # A fixture of a test's is none of those who import something else of it.
                found |= _slow_things(helper) - _SLOW_FIXTURES if helper.exists() else set()
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Files of tests are in memory where there is room: a disk takes 10 ms for what shall survive a power failure.

    The millions of objects that were imported are gone through less often in search of garbage.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        # Who sets it, or --basetemp, has the last word; workers of pytest-xdist are told it.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
    gc.set_threshold(20_000, 20, 20)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        # So it is in the background of a script, and processes that are started here would know nothing of Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> "Generator[None, pytest.TestReport, pytest.TestReport]":
    """What was logged may have lone surrogates in it, at which a worker of pytest-xdist would end."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Path]":
    """Where spools go that nobody told where: not among those of the user who runs the tests."""
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> "Path":
    """The disk that IOC, catalog and tests all see."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def ioc(data_directory: "Path") -> "Iterator[SimulatedIOC]":
    """A running simulated IOC; the client side of Channel Access in this process is set to it."""
    from bluesky_filestore.sim import SimulatedIOC

    with SimulatedIOC(data_directory) as running:
        yield running


@pytest.fixture(scope="session")
def catalog(data_directory: "Path", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[CatalogServer]":
    """A running catalog that can read the data directory."""
    from bluesky_filestore import serve_catalog

    with serve_catalog(tmp_path_factory.mktemp("catalog"), readable=[data_directory]) as running:
        yield running


def _opened(from_uri: "Callable[..., Any]", *arguments: object, init_if_not_exists: bool, **options: object) -> object:
    """A catalog that is there already."""
    return from_uri(*arguments, **options)


@pytest.fixture(scope="module")
def stock_options() -> dict[str, Any]:
    """How a module wants its stock server, if not as it is by itself."""
    return {}


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory, stock_options: dict[str, Any]
) -> "Iterator[tuple[Container, Path]]":
    """A client of a stock Tiled server, with DuckDB for its tables, and the directory that it can read.

    One for each module: Tiled keeps one set of settings a process, so that the next server ends this one's welcome.
    """
    import tiled.catalog
    from tiled.client import from_uri
    from tiled.server import SimpleTiledServer

    from bluesky_filestore.serving.catalog import make_database

    data, directory = tmp_path_factory.mktemp("stock data"), tmp_path_factory.mktemp("stock")
    # Just as Tiled makes it, which takes it a process of its own and seconds.
    make_database(directory / "catalog.db")
    opened = functools.partial(_opened, tiled.catalog.from_uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled.catalog, "from_uri", opened)
        running = SimpleTiledServer(directory, readable_storage=[data], **stock_options)
    with running as server:
        client = from_uri(server.uri)
        yield client, data
        client.context.close()
    # Tiled leaves its log files open.
    for logger in [logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)]:
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(directory):
                logger.removeHandler(handler)
                handler.close()


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiled's client does not try again by itself, for up to half a minute: what we do about it is what is tested."""
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Callable[[str], None]]":
    """Makes a Tiled profile by the name of "ours" for an address, and no others."""
    from tiled.profiles import load_profiles

    directory = tmp_path / "profiles"
    directory.mkdir()
    # Tiled looks for places when it is imported, and reads what is there once.
    monkeypatch.setattr("tiled.profiles.paths", [directory])

    def make(uri: str) -> None:
        (directory / "ours.yml").write_text(f"ours:\n  uri: {uri}\n")
        load_profiles.cache_clear()

    yield make
    load_profiles.cache_clear()


@pytest.fixture
def run_engine() -> "Iterator[RunEngine]":
    """A RunEngine without subscriptions, whose loop is closed afterwards: bluesky leaves it running."""
    from bluesky import RunEngine

    engine = RunEngine()
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()

"""What each extra brings, and what is said on a machine that has not got it."""

import ast
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bluesky_filestore.extras import EXTRAS

ROOT = Path(__file__).parents[1]
# Python as it is where some packages were never installed.
WITHOUT = """
import sys

class Without:
    def __init__(self, finder, missing):
        self._finder, self._missing = finder, missing

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self._missing else self._finder.find_spec(name, path, target)

MISSING = {missing!r}
sys.meta_path[:] = [Without(finder, MISSING) for finder in sys.meta_path]
sys.path.insert(0, {tests!r})
"""
# What is tried on a machine without any extra, and the extra that is named.
DOORS = {
    "filestore.CatalogWriter.from_uri('http://127.0.0.1:9')": "write",
    "filestore.CatalogWriter.from_profile('ours')": "write",
    "TiledCatalog(lambda: None, 'http://127.0.0.1:9')": "write",
    "as_lazy(None, {})": "write",
    "as_ragged([], (None,), None)": "write",
    "filestore.serve_catalog()": "serve",
    "SimulatedIOC().__enter__()": "sim",
    "run_ioc('data')": "sim",
    "ZMQSource('zmq://localhost:5578')": "zmq",
    "KafkaSource('kafka://localhost:9092/documents')": "kafka",
    "MongoRuns.from_uri('mongodb://localhost/runs')": "mongo",
    "app(['preview', 'uid'])": "write",
    "app(['verify', 'uid'])": "write",
    "app(['copy', 'uid', '--to', '.'])": "write",
    "app(['serve', 'catalog'])": "serve",
    "app(['sim', 'data'])": "sim",
    "app(['demo'])": "sim",
    "app(['consume', 'zmq://localhost:5578', '--spool-only', '--spool', 'spool'])": "zmq",
    "app(['migrate', 'mongodb://localhost/runs', 'http://127.0.0.1:9'])": "mongo",
}
TRIED = """
import json
import bluesky_filestore as filestore
from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.cli import app
from bluesky_filestore.errors import MissingPackageError
from bluesky_filestore.handlers.lazily import as_lazy
from bluesky_filestore.model.ragged_rows import as_ragged
from bluesky_filestore.sim import SimulatedIOC, run_ioc
from bluesky_filestore.sources.databroker import MongoRuns
from bluesky_filestore.sources.kafka import KafkaSource
from bluesky_filestore.sources.zmq import ZMQSource

for name in filestore.__all__:
    getattr(filestore, name)
found = {}
for each in json.loads(sys.argv[1]):
    try:
        found[each] = repr(eval(each))
    except MissingPackageError as error:
        found[each] = str(error)
    except BaseException as error:
        found[each] = repr(error)
print(json.dumps(found))
"""
WRITTEN = """
from pathlib import Path
from bluesky_filestore import CatalogWriter
from small_runs import SmallRun

run = SmallRun(Path(sys.argv[1]), 1, events=3)
with_spool = CatalogWriter.from_uri(sys.argv[2], api_key=sys.argv[3], spool=sys.argv[4])
for each in run.documents:
    with_spool(*each)
with_spool.close()
print(run.uid, sorted(MISSING & set(sys.modules)))
"""


def config():
    """The file that says what the package needs."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def listed(text):
    """The requirements of a list in setup.cfg."""
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def brought(requirements):
    """The names of all that comes with requirements, as they are installed here."""
    found, waiting = set(), list(requirements)
    while waiting:
        asked = waiting.pop()
        for extra in {"", *asked.extras}:
            key = (canonicalize_name(asked.name), extra)
            if key in found:
                continue
            found.add(key)
            try:
                needed = [Requirement(each) for each in requires(asked.name) or ()]
            except PackageNotFoundError:
                continue
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def imported():
    """The packages of others that this one imports anywhere."""
    names = set()
    for path in (ROOT / "bluesky_filestore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"bluesky_filestore"}


def in_python(code, *arguments, missing, directory):
    """What a Python prints that has not got some packages."""
    head = WITHOUT.format(missing=set(missing), tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=directory)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_each_import_comes_with_something():
    """What is imported is installed with the package, or with the extra that errors name for it."""
    options, of_import = config(), packages_distributions()
    always = brought(listed(options["options"]["install_requires"]))
    extras = options["options.extras_require"]
    in_extras = {package: extra for extra, packages in EXTRAS.items() for package in packages}
    for package in imported():
        distributions = {canonicalize_name(name) for name in of_import[package]}
        if package in in_extras:
            assert distributions & brought(listed(extras[in_extras[package]])), package
        else:
            assert distributions & always, package
    assert set(in_extras) <= imported()


def test_all_is_all():
    """The extra "all" has what each other has, but for those of who works on the package; "tiled" is "serve"."""
    extras = config()["options.extras_require"]
    users = [set(map(str, listed(text))) for name, text in extras.items() if name not in ("dev", "docs")]
    assert set(map(str, listed(extras["all"]))) == set().union(*users)
    assert listed(extras["tiled"]) == listed(extras["serve"])


def test_each_need_has_a_floor():
    """What users install has a lowest version, which is run by .ci/oldest."""
    options = config()
    asked = options["options"]["install_requires"] + options["options.extras_require"]["all"]
    assert [str(each) for each in listed(asked) if not re.search(r">=\d", str(each.specifier))] == []


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is said at each door on a machine without any extra."""
    everything = [package for packages in EXTRAS.values() for package in packages]
    return json.loads(
        in_python(TRIED, json.dumps(list(DOORS)), missing=everything, directory=tmp_path_factory.mktemp("bare"))
    )


@pytest.mark.parametrize("door", DOORS)
def test_what_is_missing_is_named(said, door):
    """Every public name is there without any extra; what needs one says which, and how to get it."""
    pattern = r"the package '\w+' is not installed; expected what the extra '(\w+)' brings: pip install '.*\[(\w+)\]'"
    match = re.fullmatch(pattern, said[door])
    assert match, said[door]
    assert match.groups() == (DOORS[door],) * 2


def test_a_machine_that_only_writes(catalog, data_directory, tmp_path):
    """With the extra "write" alone a run gets to its catalog, frames included."""
    others = [package for extra, packages in EXTRAS.items() if extra != "write" for package in packages]
    arguments = data_directory, catalog.uri, catalog.api_key, tmp_path / "spool"
    shown = in_python(WRITTEN, *arguments, missing=others, directory=tmp_path)
    uid, loaded = shown.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert catalog.client[uid]["primary"]["image"].shape == (3, 1, 3, 4)
    assert catalog.client[uid]["primary"]["x"].read().tolist() == [0, 0.25, 0.5]

"""What people expect of a project: files that say how it is built, checked, cited, and worked on."""

import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import bluesky_filestore

ROOT = Path(__file__).parents[1]


def text_of(name):
    """What is in a file at the top."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_all_of_the_package_is_installed():
    """Whatever is no Python in the package is named in setup.cfg, which would leave it out of wheels otherwise."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = {
        f"{package.replace('.', '/')}/{pattern}"
        for package, patterns in config["options.package_data"].items()
        for pattern in re.split(r"[\s,]+", patterns.strip())
    }
    package = ROOT / "bluesky_filestore"
    others = [path.relative_to(ROOT) for path in package.rglob("*") if path.is_file() and path.suffix != ".py"]
    others = [str(path) for path in others if "__pycache__" not in path.parts]
    assert [path for path in others if not any(fnmatch(path, pattern) for pattern in named)] == []
    directories = {path.parent for path in package.rglob("*.py")}
    assert [each for each in directories if not (each / "__init__.py").exists()] == []


def test_how_it_is_built_and_cited():
    """One build system, one version, and an author who is no invented person."""
    assert tomllib.loads(text_of("pyproject.toml"))["build-system"]["build-backend"] == "setuptools.build_meta"
    citation, config = yaml.safe_load(text_of("CITATION.cff")), ConfigParser()
    config.read(ROOT / "setup.cfg")
    metadata = config["metadata"]
    assert citation["version"] == bluesky_filestore.__version__
    assert (citation["license"], citation["url"]) == (metadata["license"], metadata["url"])
    assert citation["authors"] == [{"name": metadata["author"]}]


@pytest.mark.parametrize("module", ["bluesky_filestore", "bluesky_filestore.cli"])
def test_run_as_a_module(module):
    """``python -m`` is the command."""
    shown = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"bluesky-filestore {bluesky_filestore.__version__}"


def test_gates_are_there():
    """What CONTRIBUTING.md names can be run, and so can what the workflow runs; hooks are the tools of the gates."""
    named = re.findall(r"^\| `(\.ci/\w+)", text_of("CONTRIBUTING.md"), re.MULTILINE)
    workflow = yaml.safe_load(text_of(".github/workflows/ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    run = [step["run"] for step in steps if step.get("run", "").startswith(".ci/")]
    assert sorted(named) == sorted(f".ci/{path.name}" for path in (ROOT / ".ci").iterdir())
    assert {".ci/run", ".ci/oldest"} == set(run)
    for each in named:
        assert (ROOT / each).stat().st_mode & 0o100, each
        subprocess.run(["bash", "-n", ROOT / each], check=True)
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    gates = re.findall(r'"\$bin/([\w-]+)"', text_of(".ci/quick"))
    entries = {word for hook in hooks for word in hook["entry"].split()}
    assert set(gates) - {"pytest"} <= entries


def test_links_lead_somewhere():
    """What the pages at the top link to is there."""
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page))
        assert [link for link in links if not (ROOT / link).exists()] == [], page


def test_quick_is_quick(pytestconfig):
    """Of the modules, those are quick that have nothing slow, by themselves or by a helper."""
    from_conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    slow = {path.stem for path in (ROOT / "tests").glob("test_*.py") if from_conftest._slow_things(path)}
    assert {"test_server", "test_straight_line", "test_cli", "test_catalog_writer", "test_right_frame"} <= slow
    assert slow.isdisjoint({"test_model_paths", "test_operations_run", "test_files_rows", "test_layout"})

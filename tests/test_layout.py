"""The folders are as the docs draw them, and each arrow of the drawing is an import contract."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bluesky_filestore"
PAGE = ROOT / "docs" / "explanations" / "the-straight-line.md"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 50
LONGEST_MODULE = 350
_ROW = re.compile(r"^\| `([\w/.]+)` \|[^|]+\|([^|]*)\|$", re.MULTILINE)
_LINK = re.compile(r"\]\((\.\./\.\./[\w/.-]+)\)")


def _drawn():
    """What each folder or module of the page may import, in the page's order."""
    rows = _ROW.findall(PAGE.read_text())
    return {name.removesuffix("/").removesuffix(".py"): re.findall(r"\w+", arrows) for name, arrows in rows}


def _imported():
    """What each folder or module does import."""
    graph = grimp.build_graph("bluesky_filestore", include_external_packages=False)
    arrows = {}
    for module in graph.modules:
        name = module.split(".")[1:2]
        for other in graph.find_modules_directly_imported_by(module):
            if name and other.split(".")[1:2] not in (name, []):
                arrows.setdefault(name[0], set()).add(other.split(".")[1])
    return arrows


def test_the_page_draws_the_imports():
    """Each folder imports what the page says, all of it and nothing else."""
    drawn, imported = _drawn(), _imported()
    assert {name: sorted(arrows) for name, arrows in drawn.items()} == {
        name: sorted(imported.get(name, ())) for name in drawn
    }
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(drawn) == there - {"__init__"}


def test_arrows_point_down_the_page():
    """A folder imports nothing but what stands below it."""
    order = list(_drawn())
    assert [
        (name, other) for name, arrows in _drawn().items() for other in arrows if name in order[order.index(other) :]
    ] == []


def test_contracts_hold_the_arrows():
    """The layers that the import linter checks are those of the page, in an order that its arrows have."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = [re.findall(r"\w+", line) for line in config["importlinter:contract:layers"]["layers"].split("\n") if line]
    heights = {name: height for height, layer in enumerate(layers) for name in layer}
    assert set(heights) == set(_drawn())
    assert [
        (name, other) for name, arrows in _drawn().items() for other in arrows if heights[name] >= heights[other]
    ] == []


def test_the_page_leads_somewhere():
    """What the page links to is there."""
    links = _LINK.findall(PAGE.read_text())
    assert len(links) > 20
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def _lines(function):
    """How many lines a function has beside its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - has_docstring * (first.end_lineno - first.lineno + 1)


def test_modules_and_functions_are_short():
    """A module is a page or some, a function a screen."""
    too_long = {}
    for path in MODULES:
        text, name = path.read_text(), str(path.relative_to(PACKAGE))
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        too_long |= {f"{name}:{each.name}": _lines(each) for each in functions if _lines(each) > LONGEST_FUNCTION}
        if len(text.splitlines()) > LONGEST_MODULE:
            too_long[name] = len(text.splitlines())
    assert too_long == {}


def test_promises_have_their_tests():
    """Each module of tests that the page on security names is there."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 15
    assert {name for name in named if not (ROOT / "tests" / f"{name}.py").exists()} == set()

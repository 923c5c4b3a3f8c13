"""The folders are as the docs draw them, and each arrow of the drawing is an import contract."""

import re
from configparser import ConfigParser
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bluesky_filestore"
PAGE = ROOT / "docs" / "explanations" / "the-straight-line.md"
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

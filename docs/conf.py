"""Sphinx: Markdown pages by MyST, the reference from the docstrings, the commands from their --help."""

import os
from importlib.metadata import version as installed_version

from sphinx.application import Sphinx
from typer.testing import CliRunner

from bluesky_filestore.cli import app as command_line

project = "bluesky_filestore"
author = "the bluesky_filestore developers"
version = release = installed_version("bluesky_filestore")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bluesky_filestore {version}"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
suppress_warnings = ["misc.highlighting_failure"]

# Links into the docs of others need the network: DOCS_ONLINE=1 python -m sphinx docs html
if os.environ.get("DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "bluesky": ("https://blueskyproject.io/bluesky/main", None),
    "event_model": ("https://blueskyproject.io/event-model/main", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "ophyd": ("https://blueskyproject.io/ophyd", None),
    "python": ("https://docs.python.org/3", None),
    "tiled": ("https://blueskyproject.io/tiled", None),
}

_COMMANDS = "{{ commands }}"


def _write_commands(app: Sphinx, page: str, content: list[str]) -> None:
    """Put what each command answers to --help where the page says so."""
    if _COMMANDS in content[0]:
        names = [each.callback.__name__ for each in command_line.registered_commands if each.callback is not None]
        content[0] = content[0].replace(_COMMANDS, "\n".join(map(_section, names)))


def _section(name: str) -> str:
    arguments = {"prog_name": "bluesky-filestore", "env": {"COLUMNS": "110"}}
    answer = CliRunner().invoke(command_line, [name, "--help"], **arguments)
    return f"## {name}\n\n```text\n{answer.output.strip()}\n```\n"


def setup(app: Sphinx) -> None:
    """Connect what is written while the pages are read."""
    app.connect("source-read", _write_commands)

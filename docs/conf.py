"""Sphinx: Markdown pages by MyST, the reference from the docstrings."""

from importlib.metadata import version as installed_version

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

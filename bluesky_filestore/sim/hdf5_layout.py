"""Layouts of HDF5 files: the default one, and those that a beamline gives as XML."""

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["Layout", "read_layout"]

_LONGEST = 1_000_000
"""Bytes of XML that are read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a file its parts go."""

    data: str = "entry/instrument/detector/data"
    """The frames."""

    links: tuple[tuple[str, str], ...] = (("entry/data/data", "entry/instrument/detector/data"),)
    """Hard links: their own path and that of what they lead to."""

    attributes: str | None = "entry/instrument/NDAttributes"
    """The group of what is stored of each frame."""

    is_default: bool = True
    """Whether it is the layout of a plugin that was given none."""


def read_layout(text: str) -> Layout:
    """The layout of ``XMLFileName``: the name of a file, XML itself, or nothing for the default.

    Of the XML the simulation heeds groups, data sets of source ``detector``, hard links, and the group with
    ``ndattr_default``.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is no layout.
    """
    if not text.strip():
        return Layout()
    source = text if text.lstrip().startswith("<") else Path(os.fsdecode(text.encode("latin-1"))).read_text("utf-8")
    if len(source) > _LONGEST or "<!" in source.replace("<!--", ""):
        raise ValueError("the layout is too long, or declares types or entities")
    try:
        root = ElementTree.fromstring(source)  # noqa: S314 - entities have been refused
    except ElementTree.ParseError as error:
        raise ValueError(f"the layout is no XML: {error}") from error
    data: dict[str, bool] = {}
    links: list[tuple[str, str]] = []
    attributes: list[str] = []
    _walk(root, "", data, links, attributes)
    if not data:
        raise ValueError("the layout has no dataset with source='detector'")
    chosen = next((path for path, is_default in data.items() if is_default), next(iter(data)))
    return Layout(chosen, tuple(links), attributes[0] if attributes else None, is_default=False)


def _walk(
    element: ElementTree.Element,
    path: str,
    data: dict[str, bool],
    links: list[tuple[str, str]],
    attributes: list[str],
) -> None:
    """Gather what is below one element of the layout."""
    for child in element:
        here = f"{path}/{child.get('name', '')}".strip("/")
        if child.tag == "group":
            if child.get("ndattr_default") == "true":
                attributes.append(here)
            _walk(child, here, data, links, attributes)
        elif child.tag == "dataset" and child.get("source") == "detector":
            data[here] = child.get("det_default") == "true"
        elif child.tag == "hardlink":
            links.append((here, child.get("target", "").strip("/")))

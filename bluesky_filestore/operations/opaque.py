"""Files that nobody reads here, kept in the catalog as they are: they can be downloaded, and are no array."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

from bluesky_filestore.model.file_facts import FileFacts, Unseen
from bluesky_filestore.model.frame_map import Rows, Source
from bluesky_filestore.model.paths import formatted
from bluesky_filestore.model.specs import OPAQUE

from .placement import Inspector, Placement, Refusal
from .structure import EventStructure

__all__ = ["place_opaque"]

_NO_ARRAY = EventStructure((), "|u1", 0, ())


def place_opaque(
    rows: Rows, sources: Mapping[str, Source], inspect: Inspector, refused: Refusal, *, ours: bool
) -> Placement | Refusal:
    """The files of rows that no array can be made of, for whatever reason; that reason where there are none."""
    files: dict[PurePath, Source] = {}
    for span in rows.spans:
        source = sources[span.source]
        if source.template is None:
            files.setdefault(source.path, source)
            continue
        numbers = [number for index in span.indices() for number in range(index, index + span.width)]
        files |= {type(source.path)(formatted(source.template, number)): source for number in numbers}
    if not ours or not files:
        return refused
    looked_at = replace(next(iter(files.values())), mimetype=OPAQUE, is_handled=False)
    directories = []
    for number, (path, seen) in enumerate(zip(files, inspect(looked_at, list(files)), strict=True)):
        if isinstance(seen, Unseen) and seen.kind != "out of reach":
            return Refusal(f"{refused.reason}; {path} cannot be kept: {seen.reason}", settled=False)
        if isinstance(seen, FileFacts) and not seen.shape:
            directories.append(number)
    kept = "its file is in the catalog as it is" if len(files) == 1 else f"its {len(files)} files are in the catalog"
    return Placement(
        OPAQUE,
        _NO_ARRAY,
        rows.count,
        {"directories": directories} if directories else {},
        tuple(map(str, files)),
        refused=f"{refused.reason.rstrip('.')}; {kept}, to be had by .raw_export(directory)",
    )

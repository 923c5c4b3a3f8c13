"""The command for a look at a run's frames."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluesky_filestore.errors import OptionError

from .catalog_options import ApiKey, Profile, RootMapOption, Uri, catalog_client, directories_of
from .console import Console

if TYPE_CHECKING:
    pass

__all__ = ["preview"]

_MOST_NAMED = 5


def preview(
    uid: Annotated[str, typer.Argument(help="The run's uid, or its beginning.")],
    uri: Uri = "",
    profile: Profile = "",
    api_key: ApiKey = "",
    output: Annotated[Path | None, typer.Option(help="The picture; by default a PNG named by the run.")] = None,
    stream: Annotated[str, typer.Option(help="By default primary, if it has frames.")] = "",
    key: Annotated[str, typer.Option(help="The data key; by default the first with its frames in files.")] = "",
    frames: Annotated[int, typer.Option(help="How many frames at the most, evenly chosen.", min=1)] = 24,
    root_map: RootMapOption = None,
) -> None:
    """Draw a run's frames side by side. Exits with 1 if some of them are missing."""
    from bluesky_filestore.catalogs.tiled.nodes import find_run
    from bluesky_filestore.reading.contact_sheet import save_picture
    from bluesky_filestore.reading.preview import preview as draw

    directories = directories_of(root_map)
    if output is not None:
        _check_output(output)
    run_uid, run = find_run(catalog_client(uri, profile, api_key), uid)
    path = output or Path(f"{run_uid[:8]}.png")
    _check_output(path)
    drawn = draw(run, stream=stream or None, data_key=key or None, frames=frames, root_map=directories)
    save_picture(drawn.picture, path)
    way = "straight from the files" if drawn.array.source == "files" else "through the catalog"
    _say(f"{drawn.shown:,} of {drawn.count:,} frames of {drawn.array.name}, read {way}: {path}")
    for label, reason in list(drawn.missing.items())[:_MOST_NAMED]:
        _say(f"missing: {label}: {reason}")
    if len(drawn.missing) > _MOST_NAMED:
        _say(f"missing: and {len(drawn.missing) - _MOST_NAMED} more of those shown.")
    if drawn.others:
        _say(f"Also there, with --stream and --key: {', '.join(drawn.others)}")
    if drawn.missing:
        raise typer.Exit(1)


def _check_output(path: Path) -> None:
    from bluesky_filestore.reading.contact_sheet import check_picture

    try:
        check_picture(path)
    except OptionError as error:
        raise typer.BadParameter(f"--output: {error}") from error


def _say(words: str) -> None:
    Console().print(words, highlight=False, soft_wrap=True, markup=False)

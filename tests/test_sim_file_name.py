"""Directories made on demand and file names from templates, as asynNDArrayDriver makes them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.sim.file_name import create_directory, expand_template, with_separator


@pytest.mark.parametrize(("missing", "depth"), [(1, -1), (2, -2), (1, -2), (0, -1), (3, -5), (3, 1), (3, -100)])
def test_create(tmp_path: Path, missing: int, depth: int) -> None:
    """As many levels as are allowed are made."""
    wanted = tmp_path.joinpath("abc"[0], *"bcd"[: missing - 1]) if missing else tmp_path
    create_directory(wanted, depth)
    assert wanted.is_dir()


@pytest.mark.parametrize(("missing", "depth"), [(1, 0), (2, -1), (3, -2), (3, 1000)])
def test_too_deep(tmp_path: Path, missing: int, depth: int) -> None:
    """If more is missing than may be made, nothing is made."""
    wanted = tmp_path.joinpath(*"abc"[:missing])
    with pytest.raises(FileNotFoundError, match=f"more levels than CreateDirectory {depth} may make"):
        create_directory(wanted, depth)
    assert list(tmp_path.iterdir()) == []


def test_create_refused(tmp_path: Path) -> None:
    """What the system refuses is an OSError."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        create_directory(tmp_path / "file" / "below", -2)


@given(st.integers(0, 10**9))
def test_template(number: int) -> None:
    """The usual template gives the name that the mixins reckon with."""
    assert expand_template("%s%s_%6.6d.h5", "/data/", "x", number) == f"/data/x_{number:06d}.h5"


def test_shorter_template() -> None:
    """A template without number gives the same name again and again."""
    assert expand_template("%s%s.h5", "/data/", "x", 7) == "/data/x.h5"
    assert expand_template("%s%s_100%%.h5", "/data/", "x", 7) == "/data/x_100%.h5"


@pytest.mark.parametrize("template", ["%d%s%s", "%s%s%d%d", "%s%s%"])
def test_bad_template(template: str) -> None:
    """A template of another kind is refused with an example of a right one."""
    with pytest.raises(ValueError, match=r"does not take path, name and number \('%s%s_%6.6d.h5'\)"):
        expand_template(template, "/data/", "x", 7)


def test_with_separator() -> None:
    """The separator is added once, and not to nothing."""
    assert [with_separator(path) for path in ("/data", "/data/", "")] == ["/data/", "/data/", ""]

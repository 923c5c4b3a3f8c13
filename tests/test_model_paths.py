"""Root, semantic part, flavours, URIs: examples a beamline knows, and properties of all paths."""

from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bluesky_filestore.errors import PathError, TemplateError
from bluesky_filestore.model import paths

segments = st.text(
    st.characters(blacklist_characters='/\\\0:<>"|?*', blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12
).filter(lambda text: text.strip(" .") == text)
posix_segments = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1).filter(
    lambda text: text not in {".", ".."}
)
posix_paths = st.lists(posix_segments, min_size=1, max_size=5).map(lambda parts: PurePosixPath("/", *parts))
drives = st.sampled_from(["C:\\", "d:\\", "\\\\server\\share\\"])
windows_paths = st.tuples(drives, st.lists(segments, min_size=1, max_size=5)).map(
    lambda both: PureWindowsPath(both[0], *both[1])
)


@given(posix_paths)
def test_posix_path_survives_its_uri(path):
    """Spaces, '#', '%', '?', ';', newlines and any letters come back as they went in."""
    assert paths.from_uri(paths.to_uri(path), "posix") == path


@given(windows_paths)
def test_windows_path_survives_its_uri(path):
    """Drive letters and shares come back without being told that they are of windows."""
    assert paths.from_uri(paths.to_uri(path)) == path


@given(posix_paths)
def test_uri_has_only_a_path(path):
    """Nothing of the path is taken for a query or fragment by whoever parses the URI."""
    parts = urlsplit(paths.to_uri(path))
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("file", "localhost", "", "")


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/data/a b#1/50%/é.h5", "file://localhost/data/a%20b%231/50%25/%C3%A9.h5"),
        ("/data/", "file://localhost/data/"),
        ("/", "file://localhost/"),
        ("C:\\data\\a.h5", "file://localhost/C:/data/a.h5"),
        ("C:\\data\\", "file://localhost/C:/data/"),
        ("\\\\server\\share\\a b.h5", "file://server/share/a%20b.h5"),
    ],
)
def test_uri_as_written_by_others(path, uri):
    """The forms that Tiled, ophyd-async and RFC 8089 use."""
    assert paths.to_uri(path) == uri


@pytest.mark.parametrize("uri", ["file:///data/a.h5", "file://localhost/data/a.h5", "file:/data/a.h5"])
def test_uri_with_and_without_host(uri):
    """A missing host means this machine."""
    assert paths.from_uri(uri) == PurePosixPath("/data/a.h5")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://localhost/data/a.h5", "is not a file's"),
        ("file://localhost/data/run#1.h5", "quoted as"),
        ("file://localhost/data/run?.h5", "quoted as"),
    ],
)
def test_uri_refused(uri, words):
    """Other schemes, and URIs whose path would be cut, are refused."""
    with pytest.raises(PathError, match=words):
        paths.from_uri(uri)


def test_uri_of_another_machine_is_no_posix_path():
    """A host in the URI is a share, which posix does not know."""
    with pytest.raises(PathError, match="names the machine 'server'"):
        paths.from_uri("file://server/share/a.h5", "posix")


@given(posix_paths, st.lists(posix_segments, max_size=4))
def test_under_root_takes_root_and_everything_below(root, parts):
    """The root is under itself; absolute and relative forms of a path mean the same."""
    assume(str(PurePosixPath(*parts)) == "/".join(parts) or not parts)
    below = root.joinpath(*parts)
    assert paths.under_root(below, root) == below
    assert paths.under_root(PurePosixPath(*parts), root) == below


@given(posix_paths, st.lists(posix_segments, min_size=1, max_size=4))
def test_root_and_semantic_part_make_the_path(root, parts):
    """Taking the root off and putting it back changes nothing."""
    path = root.joinpath(*parts)
    assert paths.join_resource(str(root), paths.relative_part(path, root)) == path


@given(windows_paths, st.lists(segments, min_size=1, max_size=4))
def test_root_and_semantic_part_make_the_windows_path(root, parts):
    """The same for drives and shares."""
    path = root.joinpath(*parts)
    assert paths.join_resource(str(root), paths.relative_part(path, root), "windows") == path


@pytest.mark.parametrize("path", ["/elsewhere/a", "/data2", "/"])
def test_path_outside_of_root(path):
    """A sibling that shares letters with the root is outside too."""
    with pytest.raises(PathError, match=r"not under root '/data'"):
        paths.under_root(path, "/data")


@pytest.mark.parametrize("path", ["../a", "/data/../etc", "a/../../b"])
def test_path_that_climbs(path):
    """'..' would leave the root only once the path is used."""
    with pytest.raises(PathError, match=r"contains '\.\.'"):
        paths.under_root(path, "/data")


@pytest.mark.parametrize("path", ["\\data\\a", "C:a", "D:\\data\\a"])
def test_windows_path_outside_of_root(path):
    """Drive-relative and root-relative paths are not relative in the sense of the root."""
    with pytest.raises(PathError, match="not under root"):
        paths.under_root(path, "C:\\data")


def test_windows_root_ignores_case():
    """Windows' own rule."""
    assert paths.under_root("c:\\DATA\\x", "C:\\data") == PureWindowsPath("C:/data/x")


@pytest.mark.parametrize("root", ["data", "./data", "", "C:data", "\\data"])
def test_root_not_absolute(root):
    """The error names the root and shows absolute ones."""
    with pytest.raises(PathError, match="The root part of the path must be absolute"):
        paths.absolute_root(root)


def test_root_by_default_is_everything():
    """As ophyd's ``root='/'``."""
    assert paths.absolute_root(None) == PurePosixPath("/")


@pytest.mark.parametrize("value", ["mac", "POSIX", ""])
def test_unknown_semantics(value):
    """The error names both that are known."""
    with pytest.raises(PathError, match="expected 'posix' or 'windows'"):
        paths.check_semantics(value)


@pytest.mark.parametrize(
    ("root", "resource_path", "semantics", "path"),
    [
        ("/data", "2026/a.h5", "posix", PurePosixPath("/data/2026/a.h5")),
        ("/data", "/2026/a.h5", "posix", PurePosixPath("/data/2026/a.h5")),
        ("/data", "/data/2026/a.h5", "posix", PurePosixPath("/data/2026/a.h5")),
        ("", "/data/a.h5", "posix", PurePosixPath("/data/a.h5")),
        ("/", "data/a.h5", None, PurePosixPath("/data/a.h5")),
        ("/data", "2026\\a.h5", "windows", PurePosixPath("/data/2026/a.h5")),
        ("C:\\data", "2026\\a.h5", "windows", PureWindowsPath("C:/data/2026/a.h5")),
        ("/data", "back\\slash.h5", "posix", PurePosixPath("/data/back\\slash.h5")),
    ],
)
def test_resource_as_documented_by_others(root, resource_path, semantics, path):
    """Forms of root and resource_path seen in catalogs."""
    assert paths.join_resource(root, resource_path, semantics) == path


def test_template_takes_one_instant():
    """Both paths of a stage are filled in from the same moment, so midnight cannot part them."""
    assert paths.fill_in("/data/%Y/%m/%d", datetime(2026, 12, 31, 23, 59, 59)) == "/data/2026/12/31"


@pytest.mark.parametrize("template", [None, "", "  "])
def test_template_missing(template):
    """The error shows what a template looks like."""
    with pytest.raises(TemplateError, match="expected a path such as"):
        paths.fill_in(template, datetime(2026, 1, 1))


def test_nul_is_refused():
    """It would cut the path inside the IOC."""
    with pytest.raises(PathError, match="NUL"):
        paths.pure_path("/data/a\0b", "posix")


@pytest.mark.parametrize(
    ("path", "semantics", "text"),
    [
        ("/data", "posix", "/data/"),
        ("/data//", "posix", "/data/"),
        ("/", "posix", "/"),
        ("C:\\a", "windows", "C:\\a\\"),
    ],
)
def test_one_trailing_separator(path, semantics, text):
    """As areaDetector reports the directories it was given."""
    assert paths.with_trailing_separator(path, semantics) == text


@pytest.mark.parametrize(
    ("text", "semantics", "path"),
    [
        ("//server/share/a.h5", "windows", PureWindowsPath("//server/share/a.h5")),
        ("//data/a.h5", "posix", PurePosixPath("/data/a.h5")),
        ("///data/a.h5", "posix", PurePosixPath("/data/a.h5")),
        (r"C:\data\a.h5", "windows", PureWindowsPath("C:/data/a.h5")),
        (r"C:\data", "posix", PurePosixPath(r"C:\data")),
    ],
)
def test_a_path_of_a_flavour(text, semantics, path):
    """Two slashes at the beginning are a server's share on windows, and nothing on posix."""
    assert paths.pure_path(text, semantics) == path
    assert str(paths.pure_path(text, semantics)) == str(path)


@pytest.mark.parametrize(("system", "semantics"), [("posix", "posix"), ("nt", "windows")])
def test_a_flavour_that_nobody_says(monkeypatch, system, semantics):
    """It is that of this machine."""
    monkeypatch.setattr(paths, "os", SimpleNamespace(name=system))
    assert paths.check_semantics(None) == semantics


@pytest.mark.parametrize("template", ["%d" + "a" * 4095, "%10000d", "%.10000d", "%0000010000d"])
def test_wider_than_any_path(template):
    """A template that is longer than any path, or has a field that is, is not filled in."""
    assert not paths.has_one_number(template)
    with pytest.raises(ValueError, match="wider than a path can be long"):
        paths.formatted(template, 1)
    assert paths.has_one_number("%d" + "a" * 4094)

"""The path rules of the file stores, against a plain statement of those in ophyd's documentation."""

from datetime import date, datetime
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ophyd_async import core

from bluesky_filestore import FileStoreBase, FileStoreHDF5, FileStoreHDF5Single, FileStoreTIFF
from bluesky_filestore.errors import PathError, TemplateError
from bluesky_filestore.mixins import PathInfo
from bluesky_filestore.mixins.plugin import FileStorePluginBase

PARTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\\:%\0\r\n."), min_size=1, max_size=8)
    | st.sampled_from(["%Y", "%m-%d", "data", "XF42ID"]),
    max_size=4,
)
SLASHES = st.sampled_from(["", "/"])


def absolute(parts):
    """An absolute posix path."""
    return "/" + "/".join(parts)


def by_the_rules(root, template):
    """The documented rules in plain words, on lists of names; None where they refuse."""
    names, root_names = [n for n in template.split("/") if n], [n for n in root.split("/") if n]
    if not template.startswith("/"):
        return "/" + "/".join([*root_names, *names])
    if names[: len(root_names)] == root_names:
        return "/" + "/".join(names)
    return None


def check(get, expected, *, slash):
    """A path property gives what the rules say, or refuses where they do."""
    if expected is None:
        with pytest.raises(ValueError, match=r"is not under root .*; give a path below the root"):
            get()
    else:
        assert get() == (expected.rstrip("/") + "/" if slash else expected.rstrip("/") or "/")


@given(PARTS, PARTS, st.booleans(), st.booleans(), SLASHES)
def test_write_template_alone(root, parts, is_absolute, below, slash):
    """Without a read template both paths are the write template's: under the root, or relative to it."""
    root = absolute(root)
    template = ((root.rstrip("/") if below else "") + absolute(parts) if is_absolute else "/".join(parts)) + slash
    template = template or "."
    store = FileStoreBase(write_path_template=template, root=root)
    expected = by_the_rules(root, "" if template in (".",) else template)
    check(lambda: store.write_path_template, expected, slash=False)
    check(lambda: store.read_path_template, expected, slash=True)


@given(PARTS, PARTS, PARTS, st.booleans(), SLASHES)
def test_read_template_too(root, write, read, is_absolute, slash):
    """With a read template that one is checked, and the write template is left alone."""
    root, write = absolute(root), absolute(write) + slash
    read = absolute(read) if is_absolute else "/".join(read) or "."
    store = FileStoreBase(
        write_path_template=write, root=root, read_path_template=read + (slash if read != "." else "")
    )
    check(lambda: store.read_path_template, by_the_rules(root, "" if read == "." else read), slash=True)
    assert store.write_path_template == (write.rstrip("/") or "/")


def test_windows_writes_posix_reads():
    """The usual pair: an IOC on Windows that writes to a disk which the readers mount elsewhere."""
    store = FileStoreBase(
        write_path_template=r"Z:\data\%Y", path_semantics="windows", read_path_template="/mnt/z/data/%Y", root="/mnt/z"
    )
    assert store.write_path_template == r"Z:\data\%Y"
    assert store.read_path_template == "/mnt/z/data/%Y/"


def test_posix_writes_windows_reads():
    """The other way round."""
    store = FileStoreBase(write_path_template="/data/%Y", read_path_template=r"Z:\data\%Y", root="Z:\\")
    assert store.write_path_template == "/data/%Y"
    assert store.read_path_template == "Z:\\data\\%Y\\"


def test_windows_on_both_sides():
    """A windows root works whatever system this runs on."""
    store = FileStoreBase(write_path_template=r"%Y\%m", root=r"\\server\share", path_semantics="windows")
    assert store.reg_root == PureWindowsPath(r"\\server\share")
    assert store.write_path_template == r"\\server\share\%Y\%m"
    assert store.read_path_template == "\\\\server\\share\\%Y\\%m\\"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"root": "data"}, PathError, "The root part of the path must be absolute, not root='data'"),
        ({"path_semantics": "vms"}, PathError, "path_semantics is 'vms'; expected 'posix' or 'windows'"),
        ({"write_path_template": None}, TemplateError, "write_path_template is required"),
    ],
)
def test_bad_options(options, error, words):
    """What can't be right is refused when the object is made, as a ValueError of ours."""
    with pytest.raises(error, match=words) as caught:
        FileStoreBase(**{"write_path_template": "/data", **options})
    assert isinstance(caught.value, ValueError)


def test_templates_may_change():
    """Templates and root are looked at when they are used."""
    store = FileStorePluginBase(write_path_template="/data/a", root="/data")
    store.write_path_template = "/elsewhere/b"
    with pytest.raises(PathError, match="'/elsewhere/b' is not under root '/data'"):
        store.make_filename()
    store.reg_root = "/elsewhere"
    assert store.make_filename()[1:] == ("/elsewhere/b/", "/elsewhere/b")


def test_one_moment_for_both_paths(monkeypatch):
    """At midnight read and write path still name the same day."""
    moments = [datetime(2026, 11, 22, 23, 59, 59, 999999), datetime(2026, 11, 23)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return moments.pop(0)

    monkeypatch.setattr("bluesky_filestore.mixins.plugin.datetime", Clock)
    store = FileStorePluginBase(write_path_template="/ioc/%d", read_path_template="/data/%d", root="/data")
    assert store.make_filename()[1:] == ("/data/22/", "/ioc/22")


def test_default_names_are_short_and_unique():
    """Names are made anew each time, and leave room in the records of old versions."""
    store = FileStorePluginBase(write_path_template="/data")
    names = {store.make_filename()[0] for _ in range(10)}
    assert len(names) == 10
    assert {len(name) for name in names} == {23}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("visit-1/100%", (None, "/data/visit-1/100%/", "/data/visit-1/100%")),
        (PathInfo("/data/a", "scan_7"), ("scan_7", "/data/a/", "/data/a")),
        (PathInfo("/ioc/a", "scan_7", "a"), ("scan_7", "/data/a/", "/ioc/a")),
    ],
)
def test_path_provider(answer, expected):
    """A provider's answer is taken as it is, below the root."""
    asked = []
    store = FileStorePluginBase(path_provider=lambda name: (asked.append(name), answer)[1], root="/data")
    store.name = "det_hdf5"
    filename, read_path, write_path = store.make_filename()
    assert (expected[0] or filename, read_path, write_path) == (filename, *expected[1:])
    assert asked == ["det_hdf5"]


def test_path_provider_elsewhere():
    """An answer outside of the root is refused."""
    store = FileStorePluginBase(path_provider=lambda name: "/elsewhere", root="/data")
    store.name = "det_hdf5"
    with pytest.raises(PathError, match="'/elsewhere' is not under root '/data'"):
        store.make_filename()


def test_fs_root_is_deprecated():
    """The older name of the root still works."""
    store = FileStoreBase(write_path_template="/data/a", root="/data")
    with pytest.warns(DeprecationWarning, match="use reg_root"):
        assert store.fs_root == PurePosixPath("/data")
    with pytest.warns(DeprecationWarning, match="use reg_root"):
        store.fs_root = "/"
    assert store.reg_root == PurePosixPath("/")


@pytest.mark.parametrize("template", ["", "  "])
def test_empty_template(template):
    """A template that somebody forgot to fill in is not the root."""
    with pytest.raises(TemplateError, match="expected a directory such as"):
        _ = FileStoreBase(write_path_template=template, root="/data").write_path_template


WINDOWS = PureWindowsPath("Z:\\data")
NAME = core.StaticFilenameProvider("scan")
DAY = date.today().strftime("%Y/%m/%d")


@pytest.mark.parametrize(
    ("provider", "options", "read", "write", "depth"),
    [
        (core.StaticPathProvider(NAME, "/data"), {}, "/data/", "/data", 0),
        (core.StaticPathProvider(NAME, "/ioc", "file://localhost/data/x", -2), {}, "/data/x/", "/ioc", -2),
        # ophyd-async quotes nothing in the URI that it makes of a directory.
        (core.StaticPathProvider(NAME, "/data/a%20b c"), {}, "/data/a%20b c/", "/data/a%20b c", 0),
        (core.StaticPathProvider(NAME, "/data/a#b"), {}, "/data/a#b/", "/data/a#b", 0),
        (core.StaticPathProvider(NAME, "/ioc", "file://localhost/data/a%20b"), {}, "/data/a b/", "/ioc", 0),
        (core.AutoIncrementingPathProvider(NAME, "/data"), {}, "/data/det_00000/", "/data/det_00000", 0),
        (core.YMDPathProvider(NAME, "/data"), {}, f"/data/det/{DAY}/", f"/data/det/{DAY}", -3),
        (
            core.YMDPathProvider(NAME, "/data", datakey_name_as_base_dir=True),
            {},
            f"/data/{DAY}/det/",
            f"/data/{DAY}/det",
            -3,
        ),
        (core.StaticPathProvider(NAME, WINDOWS), {"root": "Z:\\"}, "Z:\\data\\", "Z:\\data", 0),
        (core.StaticPathProvider(NAME, WINDOWS, "file://localhost/data/z"), {}, "/data/z/", "Z:\\data", 0),
        (
            core.YMDPathProvider(NAME, WINDOWS, "file://localhost/data/z"),
            {},
            f"/data/z/det/{DAY}/",
            str(WINDOWS / "det" / DAY),
            -3,
        ),
    ],
)
@pytest.mark.parametrize("store_class", [FileStoreHDF5, FileStoreHDF5Single, FileStoreTIFF, FileStorePluginBase])
def test_providers_of_ophyd_async(store_class, provider, options, read, write, depth):
    """Name, both paths and the depth of ophyd-async's own providers are taken, whatever flavour they are of."""
    store = store_class(path_provider=provider, **{"root": "/data", **options})
    store.name = "det"
    filename, read_path, write_path = store.make_filename()
    if isinstance(provider, core.AutoIncrementingPathProvider):
        read, write = (path.replace("00000", read_path.strip("/")[-5:]) for path in (read, write))
    assert (filename, read_path, write_path, store._create_dir_depth) == ("scan", read, write, depth)


def test_numbered_names_of_ophyd_async(tmp_path):
    """Providers that count give each stage its own name or directory."""
    for provider in (
        core.StaticPathProvider(core.AutoIncrementFilenameProvider("s"), tmp_path),
        core.StaticPathProvider(core.UUIDFilenameProvider(), tmp_path),
        core.AutoMaxIncrementingPathProvider(core.StaticPathProvider(NAME, tmp_path)),
        core.AutoIncrementingPathProvider(NAME, tmp_path),
    ):
        store = FileStorePluginBase(path_provider=provider, root=str(tmp_path))
        store.name = "det"
        assert store.make_filename() != store.make_filename()


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (core.StaticPathProvider(NAME, WINDOWS), r"path 'Z:.*' is not under root '/data'"),
        (core.StaticPathProvider(NAME, "/ioc", "http://server/data"), "is not a file's; expected one such as"),
        (core.StaticPathProvider(NAME, "/ioc", "file://server/data"), "is not under root '/data'"),
    ],
)
def test_unreadable_places_of_ophyd_async(provider, words):
    """A directory that readers could not find is refused, with the reason."""
    store = FileStorePluginBase(path_provider=provider, root="/data")
    store.name = "det"
    with pytest.raises(PathError, match=words):
        store.make_filename()

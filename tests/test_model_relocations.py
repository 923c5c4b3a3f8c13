"""Where files went: paths, documents and assets after a relocation."""

import itertools

import pytest

from bluesky_filestore.errors import PathError
from bluesky_filestore.model.asset_paths import moved_assets, path_of_asset
from bluesky_filestore.model.normalize import source_of_resource, source_of_stream_resource
from bluesky_filestore.model.relocations import Relocation, Relocations

ROOTS = {
    "/data": "/archive",
    "/data/2026": "/recent/of 2026",
    "Z:\\data": "/mnt/z",
    "/old/win": "D:\\new",
    "\\\\server\\share": "/mnt/share",
    "/into": "/into/itself",
}


@pytest.mark.parametrize(
    "root", ["/data", "/data/", "/", "", "/data/2026/run 1", "/elsewhere", "/old", "/old/win/x", "/into"]
)
@pytest.mark.parametrize(
    "below", ["2026/a.h5", "/data/a.h5", "a", "win/b/a.h5", "dir/", "/data/2026/dir/", "/old/win/c/"]
)
@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_TIFF", "NPY_SEQ"])
def test_resources_lead_where_files_went(root, below, spec):
    """Whatever of a path is the root: the document leads to where its file went, and keeps what it says else."""
    kwargs = {"template": "%s%s_%d.tiff", "filename": "f"} if spec == "AD_TIFF" else {}
    doc = {"uid": "r", "spec": spec, "root": root, "resource_path": below, "resource_kwargs": kwargs}
    assert_leads(doc, source_of_resource)


@pytest.mark.parametrize(
    ("root", "below"),
    [
        ("Z:\\data", "run\\a.h5"),
        ("Z:\\", "data\\run\\dir\\"),
        ("z:/DATA/run", "a.h5"),
        ("\\\\server\\share", "x\\a.h5"),
    ],
)
def test_windows_resources(root, below):
    """The same of paths of Windows, which are posix paths then, and say so."""
    doc = {"uid": "r", "spec": "AD_HDF5", "root": root, "resource_path": below, "path_semantics": "windows"}
    moved = assert_leads({**doc, "resource_kwargs": {}}, source_of_resource)
    assert moved["path_semantics"] == "posix"
    assert "\\" not in moved["root"] + moved["resource_path"]


@pytest.mark.parametrize(
    "uri",
    [
        "file://localhost/data/2026/run%201/a.h5",
        "file:///data/a%23.h5",
        "file://localhost/data/dir/",
        "file://localhost/Z:/data/a.h5",
        "file://server/share/dir/a.h5",
        "file://localhost/old/win/a.h5",
        "file://localhost/database/a.h5",
    ],
)
def test_stream_resources_lead_where_files_went(uri):
    """The same of URIs, which stay those of a directory where they were."""
    doc = {"uid": "r", "mimetype": "application/x-hdf5", "uri": uri, "parameters": {"dataset": "/data/x"}}
    moved = assert_leads(doc, source_of_stream_resource)
    assert moved["uri"].endswith("/") == uri.endswith("/")


def assert_leads(doc, source_of):
    """Assert that a document leads where a relocation leads its path; give it."""
    relocation, as_given = Relocation(ROOTS), dict(doc)
    try:
        before = source_of(doc)
    except PathError:
        assert Relocations((relocation,)).document("resource", doc) is doc
        return doc
    moved = Relocations((relocation,)).document("resource" if "root" in doc else "stream_resource", doc)
    after = source_of(moved)
    assert after.path == relocation.find(before.path)
    if before.template is not None and after.path != before.path:
        file = type(before.path)(before.template % 3)
        assert type(after.path)(after.template % 3) == relocation.find(file)
    assert doc == as_given
    kept = doc.keys() - {"root", "resource_path", "path_semantics", "uri"}
    assert {name: moved[name] for name in kept} == {name: doc[name] for name in kept}
    assert moved is doc or after.path != before.path
    return moved


def test_one_after_the_other():
    """A run that went through several is where the last one led; other documents are what they were."""
    both = Relocations((Relocation({"/a": "/b"}), Relocation({"/b": "/c", "/a": "/wrong"})))
    assert str(both.find("/a/x")) == "/c/x"
    assert Relocations.of({"relocated": [each.to_json() for each in both.each]}) == both
    event = {"data": {"path": "/a/x"}}
    assert both.document("event", event) is event
    assert not Relocations.of({})


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        ({"/a": "/b"}, True),
        ({"/a": "/a/b"}, True),
        ({"/a": "/b", "/b": "/a"}, False),
        ({"/a/b": "/a"}, False),
        ({"/a": "/b", "/b/c": "/d"}, False),
        ({"/a": "C:\\a", "C:\\b": "/b"}, True),
        ({"/": "/new"}, True),
    ],
)
def test_repeatable(roots, expected):
    """What may be done twice leads no file on that it has led somewhere."""
    relocation = Relocation(roots)
    assert relocation.is_repeatable == expected
    paths = [f"{root}/{name}".replace("//", "/") for root in roots if root[0] == "/" for name in ("x", "b/x", "c/x")]
    if expected:
        assert all(relocation.find(relocation.find(path)) == relocation.find(path) for path in paths)


def test_assets():
    """URIs of a catalog lead where the files went; what is no file, or did not move, is as it was."""
    uris = [
        "file://localhost/data/50%25.h5",
        "file:///elsewhere/a",
        "file://localhost/Z:/data/a.h5",
        "file://server/share/b.h5",
        "https://example.org/data/a",
        "file://localhost/data/dir/",
        "file://localhost/old/win/a b",
    ]
    moved = moved_assets([(uri, False) for uri in uris], Relocation(ROOTS).find)
    assert moved == [
        "file://localhost/archive/50%25.h5",
        uris[1],
        "file://localhost/mnt/z/a.h5",
        "file://localhost/mnt/share/b.h5",
        uris[4],
        "file://localhost/archive/dir/",
        "file://localhost/D:/new/a b",
    ]
    assert path_of_asset(moved[-1]) == "D:/new/a b"


def test_assets_that_cannot_be():
    """Two files that would be one are refused, and so is an address that Tiled cuts off."""
    files = [(f"file://localhost/{name}/f.h5", False) for name in "ab"]
    with pytest.raises(PathError, match="would both be"):
        moved_assets(files, Relocation({"/a": "/c", "/b": "/c"}).find)
    with pytest.raises(PathError, match="the end of a file's address"):
        moved_assets(files, Relocation({"/a": "/c#1"}).find)
    directories = [(f"file://localhost/{name}", True) for name in ("a/d", "a/./d", "b/d")]
    moved = moved_assets(directories, Relocation({"/a": "/c", "/b": "/c"}).find)
    assert len(set(moved)) == 3
    assert {path_of_asset(uri).replace("/./", "/").replace("/./", "/") for uri in moved} == {"/c/d"}
    for order in itertools.permutations(directories):
        assert len(set(moved_assets(order, Relocation({"/a": "/c", "/b": "/c"}).find))) == 3

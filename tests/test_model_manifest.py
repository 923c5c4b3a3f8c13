"""What files were like: there and back in both forms, and nothing taken for it that is none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.errors import ManifestError
from bluesky_filestore.model.manifest import Manifest, ManifestEntry

SHA = "0f" * 32
FILE = {"path": "/data/a.h5", "size": 5, "modified_ns": 7, "sha256": SHA}
whole_numbers = st.integers(-(2**63), 2**63 - 1)
entries = st.builds(
    ManifestEntry,
    st.text(min_size=1).filter(lambda text: "\0" not in text),
    st.integers(0, 2**63 - 1),
    whole_numbers,
    st.one_of(st.just(""), st.binary(min_size=32, max_size=32).map(bytes.hex)),
)
manifests = st.builds(Manifest, st.text(), st.lists(entries, max_size=5, unique_by=lambda entry: entry.path).map(tuple))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("manifest")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*FILE, "manifest", "uid", "files", "paths", "sizes"]), inner, max_size=6),
    ),
    max_leaves=10,
)


@given(manifests)
def test_both_forms_say_all_of_it(manifest):
    """What comes out of JSON is what went in, in either form."""
    assert Manifest.from_json(json.dumps(manifest.to_json())) == manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_columns(manifest.uid, json.loads(json.dumps(manifest.to_columns()))) == manifest


@given(values)
def test_what_is_no_manifest_is_refused(said):
    """Whatever JSON it is, it is a manifest or refused as none."""
    for version in (said, {**said, "manifest": 1, "uid": "u"} if isinstance(said, dict) else said):
        for read in (Manifest.from_json, lambda each: Manifest.from_columns("u", each)):
            try:
                manifest = read(version)
            except ManifestError:
                continue
            assert all(isinstance(entry, ManifestEntry) for entry in manifest.entries)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": ""}, "path is ''"),
        ({"path": 5}, "path is 5"),
        ({"path": "/a\0b"}, "without a NUL"),
        ({"path": None}, "path is None"),
        ({"size": -1}, "size of '/data/a.h5' is -1"),
        ({"size": 2**70}, "expected a whole number"),
        ({"size": True}, "is True; expected a whole number"),
        ({"size": "5"}, "is '5'; expected a whole number"),
        ({"modified_ns": 1.5}, "modified_ns of '/data/a.h5' is 1.5"),
        ({"sha256": SHA.upper()}, "expected 64 digits"),
        ({"sha256": SHA + "\n"}, "expected 64 digits"),
        ({"sha256": None}, "expected 64 digits"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(changes, words):
    """Each field is looked at, and named."""
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json({"manifest": 1, "uid": "u", "files": [FILE | changes]})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "version"),
        ('{"manifest": 2, "uid": "u", "files": []}', "later version"),
        ({"manifest": True, "uid": "u", "files": []}, "of version True"),
        ({"manifest": 1, "uid": 3, "files": []}, "uid of a manifest's run is 3"),
        ({"manifest": 1, "uid": "u", "files": {}}, "expected a list of objects"),
        ({"manifest": 1, "uid": "u", "files": [[]]}, "expected a list of objects"),
        ({"manifest": 1, "uid": "u", "files": [FILE, FILE]}, "'/data/a.h5' stands in a manifest twice"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(said, words):
    """Damaged, hostile, of another version, or with a file twice."""
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(said)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256_base64": "AA=="},
        {"sha256_base64": "?"},
        {"sha256_base64": 5},
        {"sizes": [1, 2]},
        {"prefix": 3},
        {"modified_ns_after": ["x"]},
        {"paths": [[]]},
        {"first_modified_ns": None},
        {"sizes": None},
    ],
)
def test_columns_that_do_not_fit_are_refused(changes):
    """As many of each as there are files, and of the right kind."""
    columns = Manifest("u", (ManifestEntry("/a", 1, 2, SHA),)).to_columns() | changes
    with pytest.raises(ManifestError):
        Manifest.from_columns("u", columns)


def test_a_large_run_needs_little_room():
    """The checksums of 10,000 files, and little beside them."""
    files = (ManifestEntry(f"/data/2026/scan_{n:06d}.tiff", 8_000_000, 10**18 + n * 10**8, SHA) for n in range(10_000))
    assert len(json.dumps(Manifest("u", tuple(files)).to_columns())) < 700_000


def test_files_are_told_apart_by_what_they_hold():
    """Size and checksum tell; the time, which a copy has another of, does not, nor does a checksum that is missing."""
    then = ManifestEntry("/a", 5, 1, SHA)
    assert then.compare(ManifestEntry("/a", 5, 9, SHA)) == then.compare(ManifestEntry("/a", 5, 9)) == ""
    assert "has 6 bytes, and had 5" in then.compare(ManifestEntry("/a", 6, 1, SHA))
    assert "was 0f0f" in then.compare(ManifestEntry("/a", 5, 1, "00" * 32))

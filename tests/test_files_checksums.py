"""Checksums of files: those of the bytes, of regular files that may be read, and of no file that changes meanwhile."""

import hashlib
import os
from pathlib import Path

import pytest

from bluesky_filestore.errors import ChangingFileError, ForbiddenFileError, MissingFileError, UnreadableFileError
from bluesky_filestore.files.checksums import digest_of, sha256_of
from bluesky_filestore.files.readable import Roots


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_it_is_that_of_the_bytes(tmp_path, size):
    """Of any size, counted as they are read."""
    content = os.urandom(size)
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    counted = []
    sha256, signature = digest_of(str(path), on_bytes=counted.append)
    assert (sha256, sum(counted)) == (hashlib.sha256(content).hexdigest(), size)
    assert (signature.size, signature.modified) == (size, path.stat().st_mtime_ns)


def grow(path):
    """More is written to it."""
    with path.open("ab") as file:
        file.write(b"x")


def rewrite(path):
    """Other bytes of the same number."""
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(5, 5))


def shorten(path):
    """It loses its end."""
    os.truncate(path, 10)


def replace(path):
    """Another takes its place."""
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [grow, rewrite, shorten, replace])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path, change):
    """No checksum of half of this and half of that."""
    path = tmp_path / "a.h5"
    path.write_bytes(os.urandom(3 << 20))
    changed = []

    def on_bytes(count):
        if not changed:
            changed.append(change(path))

    with pytest.raises(ChangingFileError, match="was written to, or replaced, while it was read"):
        sha256_of(str(path), on_bytes=on_bytes)


def test_what_is_no_file_is_refused(tmp_path):
    """At once: nobody waits for a pipe's writer."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UnreadableFileError, match="is not a file"):
            sha256_of(str(path))
    with pytest.raises(MissingFileError):
        sha256_of(str(tmp_path / "none"))


def test_a_link_that_leads_out_is_refused(tmp_path):
    """Where only some directories may be read."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out.h5").write_bytes(b"1")
    (tmp_path / "in" / "a.h5").symlink_to(tmp_path / "out.h5")
    (tmp_path / "in" / "b.h5").write_bytes(b"1")
    (tmp_path / "in" / "c.h5").symlink_to(tmp_path / "in" / "b.h5")
    roots = Roots.of([tmp_path / "in"])
    assert sha256_of(f"{tmp_path}/in/b.h5", roots=roots) == sha256_of(f"{tmp_path}/in/c.h5", roots=roots)
    with pytest.raises(ForbiddenFileError):
        sha256_of(f"{tmp_path}/in/a.h5", roots=roots)


def test_what_is_told_of_bytes_can_end_it(tmp_path):
    """As when a program is to stop."""
    path = tmp_path / "a.h5"
    path.write_bytes(bytes(5))
    with pytest.raises(KeyboardInterrupt):
        sha256_of(str(path), on_bytes=lambda count: (_ for _ in ()).throw(KeyboardInterrupt))

"""The database of a spool directory: made, refused or put aside."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from disks import garble, remount, small_disk
from spooled import put, run_documents

from bluesky_filestore.errors import SpoolDamagedError, SpoolError
from bluesky_filestore.spool.database import (
    FILE_NAME,
    connect,
    identity,
    is_damage,
    open_or_make,
    put_aside,
    transaction,
)


def count(directory):
    """How many documents there are."""
    with closing(connect(directory)) as connection:
        return connection.execute("SELECT count(*) FROM documents").fetchone()[0]


def test_made_by_many_at_once(tmp_path):
    """Directory and database are made, by one of those who want them at the same time."""
    directory = tmp_path / "a" / "b"
    with ThreadPoolExecutor(8) as pool:
        for connection in pool.map(lambda _: open_or_make(directory), range(8)):
            connection.close()
    assert count(directory) == 0


def test_opening_does_not_write(tmp_path):
    """Who only looks does not wait for one who writes."""
    with closing(open_or_make(tmp_path)) as writing, transaction(writing), closing(connect(tmp_path)) as looking:
        assert looking.execute("SELECT count(*) FROM documents").fetchone() == (0,)


def test_file_in_place_of_the_directory(tmp_path):
    """A spool directory that is a file is refused."""
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SpoolError, match=r"cannot be made .*; expected one that this user may write to"):
            open_or_make(directory)
    assert (tmp_path / "file").read_text() == "mine"


def test_nowhere(tmp_path):
    """A directory that is gone, or has no room for a database, is an error of the spool: a writer goes on without."""
    with pytest.raises(SpoolError, match=r"cannot be used .*No such file or directory.*; expected a directory"):
        connect(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"cannot be made \(Not a directory\); expected one"):
        open_or_make(tmp_path / "file")


def test_directory_in_place_of_the_database(tmp_path):
    """What stands where the database would be is no damaged database, and stays."""
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(SpoolError, match=r"cannot be used .*; expected a directory on a local disk"):
        open_or_make(tmp_path)
    assert (tmp_path / FILE_NAME).is_dir()


def test_read_only_disk(tmp_path):
    """A disk that can only be read is refused, with a spool on it or without."""
    with small_disk(tmp_path / "disk") as mounted:
        if not mounted:
            pytest.skip("only root may mount a disk")
        put(tmp_path / "disk" / "old", run_documents()[1])
        remount(tmp_path / "disk", "ro")
        for name, words in (("old", "cannot be (used|written to)"), ("new", "cannot be made")):
            with pytest.raises(SpoolError, match=words):
                open_or_make(tmp_path / "disk" / name).execute("INSERT INTO catalogs (uri) VALUES ('u')")


def test_newer_version(tmp_path):
    """A spool of a newer version is refused, and left as it is."""
    put(tmp_path, run_documents()[1])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(SpoolError, match=r"of version 99, written by a newer .*; expected 1\. Upgrade this one"):
        open_or_make(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_damaged(tmp_path, caplog, content):
    """What is no database is put aside as it is, loudly, and a new one is begun."""
    (tmp_path / FILE_NAME).write_bytes(content)
    with closing(open_or_make(tmp_path)):
        pass
    assert count(tmp_path) == 0
    (aside,) = tmp_path.glob("damaged-*")
    assert (aside / FILE_NAME).read_bytes() == content
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "is damaged (file is not a database). It was moved to" in caplog.text
    assert "have to be taken out of it by hand (sqlite3's .recover)" in caplog.text


def test_garbled_pages(tmp_path):
    """Pages that were overwritten are found at the latest when they are needed, and said to be damage."""
    put(tmp_path, run_documents(500)[1])
    garble(tmp_path)
    with pytest.raises(SpoolDamagedError, match="is damaged"):
        connect(tmp_path)


def test_put_aside_once(tmp_path):
    """Of several that find a database damaged one moves it; the new one stays where it is."""
    contents = [b"first", b"second"]
    (tmp_path / FILE_NAME).write_bytes(contents[0])
    found = identity(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: put_aside(tmp_path, found, "It is damaged"), range(8)))
    assert identity(tmp_path) is None
    (tmp_path / FILE_NAME).write_bytes(contents[1])
    put_aside(tmp_path, found, "It is damaged")
    assert (tmp_path / FILE_NAME).read_bytes() == contents[1]
    put_aside(tmp_path, identity(tmp_path), "It is damaged")
    asides = sorted(tmp_path.glob("damaged-*"))
    assert [(aside / FILE_NAME).read_bytes() for aside in asides] == contents


def test_opened_damaged_by_many_at_once(tmp_path):
    """All who open a damaged database at once end up with the same new one."""
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with ThreadPoolExecutor(8) as pool:
        connections = list(pool.map(lambda _: open_or_make(tmp_path), range(8)))
    for number, connection in enumerate(connections):
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("INSERT INTO catalogs (uri) VALUES (?)", (str(number),))
    for connection in connections:
        assert connection.execute("SELECT count(*) FROM catalogs").fetchone() == (8,)
        connection.close()
    assert len(list(tmp_path.glob("damaged-*"))) == 1


def test_transaction(tmp_path):
    """Of what is executed inside all counts or nothing, and another one can follow."""
    with closing(open_or_make(tmp_path)) as connection:
        with suppress(KeyError), transaction(connection):
            connection.execute("INSERT INTO catalogs (uri) VALUES ('u')")
            raise KeyError
        with transaction(connection):
            connection.execute("INSERT INTO catalogs (uri) VALUES ('v')")
        assert connection.execute("SELECT uri FROM catalogs").fetchall() == [("v",)]


def test_busy_is_no_damage(tmp_path):
    """A database that somebody else is writing to is not damaged, and soon said to be busy."""
    with closing(open_or_make(tmp_path)) as one, closing(open_or_make(tmp_path)) as other, transaction(one):
        with pytest.raises(sqlite3.OperationalError, match="locked") as caught, transaction(other):
            pass
        assert not is_damage(caught.value)

"""What is kept for a user is his alone, whatever the umask, and wherever he has it kept."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from disks import garble
from small_runs import SmallRun
from spooled import put, run_documents
from typer.testing import CliRunner

from bluesky_filestore import CatalogWriter, pack, serve_catalog
from bluesky_filestore.cli import app
from bluesky_filestore.private import make_private_directory, make_private_file
from bluesky_filestore.sources.intake import Intake
from bluesky_filestore.spool import Store
from bluesky_filestore.spool.database import open_or_make
from bluesky_filestore.spool.lease import Lease
from bluesky_filestore.spool.measures import Measures


@pytest.fixture(autouse=True)
def no_umask():
    """Nothing is taken from what is asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(*directories):
    """What others may look into, of all that is below: what is in a private directory they do not reach."""
    reached, closed = list(directories), 0
    for path in reached:
        if path.exists() and path.stat().st_mode & 0o077:
            reached.extend(path.iterdir() if path.is_dir() else ())
        else:
            closed += 1
    assert closed
    return [path for path in reached if path.exists() and path.stat().st_mode & 0o077]


def test_directories_above(tmp_path):
    """Those that are made on the way are private as well, and what was there is left as it was."""
    (tmp_path / "there").mkdir(mode=0o755)
    make_private_directory(tmp_path / "there" / "a" / "b")
    make_private_file(tmp_path / "there" / "file")
    make_private_directory(tmp_path / "there")
    assert open_to_others(tmp_path / "there") == [tmp_path / "there"]


def test_spools(tmp_path):
    """In a directory that all may look into: documents, what is set aside, leases and journals."""
    spool = tmp_path / "spool"
    spool.mkdir()
    put(spool, run_documents(2)[1], catalogs=["http://127.0.0.1:9/api/v1/metadata/"])
    with closing(Store(spool)) as store, Intake(store) as intake:
        intake.take([("event", {"uid": "e", "descriptor": "of nothing", "seq_num": 1})])
    shown = CliRunner().invoke(app, ["resume", str(spool), "--wait", "0.1"])
    assert shown.exit_code == 1
    names = {path.name for path in spool.rglob("*")}
    assert names >= {"spool.db", "set-aside.jsonl"}
    assert open_to_others(spool) == [spool]


def test_spools_of_others(tmp_path):
    """What root leaves in a spool of another user is that user's, who could not go on beside it else."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    spool = tmp_path / "spool"
    spool.mkdir()
    os.chown(spool, 4321, 4321)
    put(spool, run_documents(2)[1], catalogs=["http://127.0.0.1:9/api/v1/metadata/"])
    assert Lease(spool / "uploader-1.lock").take()
    measures = Measures(spool)
    measures.add("delivered/1", 3)
    measures.save(at_once=True)
    garble(spool)
    with closing(open_or_make(spool)):
        owners = {path.name: path.stat().st_uid for path in spool.iterdir() if path.is_file()}
    assert owners.keys() >= {"spool.db", "spool.db-wal", "measures.json", "aside.lock", "uploader-1.lock"}
    assert set(owners.values()) == {4321}


def test_links_of_others(tmp_path):
    """What another user has put there in place of a file is not followed to where only root may write."""
    (tmp_path / "their.lock").symlink_to(tmp_path / "not theirs")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Lease(tmp_path / "their.lock").take()
    assert not (tmp_path / "not theirs").exists()


def test_catalogs(tmp_path):
    """Databases, tables, arrays and logs, and those of a database elsewhere."""
    (tmp_path / "catalog").mkdir()
    with serve_catalog(tmp_path / "catalog") as server:
        server.client.write_table({"x": [1, 2]}, key="table")
        listed = {path.name for path in (tmp_path / "catalog").iterdir()}
        assert listed >= {"catalog.db", "tables.db", "access.log", "server.log", "arrays"}
        assert open_to_others(tmp_path / "catalog") == [tmp_path / "catalog"]


def test_what_others_are_to_have(tmp_path, catalog, data_directory):
    """A pack has the permissions that the umask gives, and what lies beside it meanwhile is private."""
    run = SmallRun(data_directory, 77, events=2)
    with CatalogWriter(catalog.client, spool=tmp_path / "spool") as writer:
        for document in run.documents:
            writer(*document)
        writer.flush()
    made: set[Path] = set()

    def look(_: int) -> None:
        made.update(path for path in tmp_path.iterdir() if path.is_file() and ".part" in path.name)
        beside = [path for path in made if path.exists() and not path.name.endswith(".part")]
        assert [path for path in beside if path.stat().st_mode & 0o077] == []

    pack(catalog.client, [run.uid], to=tmp_path / "p.zip", on_bytes=look)
    assert {"p.zip.part", "p.zip.part.jsonl"} <= {path.name for path in made}
    assert (tmp_path / "p.zip").stat().st_mode & 0o777 == 0o666
    assert open_to_others(tmp_path / "spool") == []

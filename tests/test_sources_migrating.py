"""Runs copied out of a databroker, interrupted and gone on with, and compared one by one."""

import json
from contextlib import closing

import event_model
import h5py
import msgpack
import numpy as np
import pytest
from brokers import API_KEY, served
from small_runs import SmallRun, plain
from spooled import run_documents
from typer.testing import CliRunner

from bluesky_filestore.catalogs.tiled.catalog import TiledCatalog
from bluesky_filestore.cli.entry import app
from bluesky_filestore.errors import CatalogError, OptionError, SourceError
from bluesky_filestore.model.document_differences import differences
from bluesky_filestore.sources import archived_runs
from bluesky_filestore.sources.archived_runs import ArchivedRuns
from bluesky_filestore.sources.archives import read_archive
from bluesky_filestore.sources.databroker import MongoRuns, runs_of
from bluesky_filestore.sources.migrating import Migration

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def database():
    """A MongoDB, as far as mongomock is one."""
    import mongomock

    return mongomock.MongoClient()["metadatastore"]


def keep(database, *runs):
    """Have databroker put runs into its database."""
    from suitcase.mongo_normalized import Serializer

    serializer = Serializer(database, database)
    for run in runs:
        for name, doc in run:
            serializer(name, doc)


def cut_short():
    """A run without a stop, with a number that is none."""
    run = event_model.compose_run()
    yield "start", run.start_doc
    bundle = run.compose_descriptor(name="primary", data_keys={"x": {"source": "s", "dtype": "number", "shape": []}})
    yield "descriptor", bundle.descriptor_doc
    for value in (1.5, float("nan")):
        yield "event", bundle.compose_event(data={"x": value}, timestamps={"x": 5.0})


def test_interrupted_and_gone_on_with(database, catalog, data_directory, tmp_path):
    """Whoever copies may end after any run: the next one goes on, and all is the same, documents and frames."""
    runs = [SmallRun(data_directory, 30 + number, events=3) for number in range(2)]
    open_run = list(cut_short())
    keep(database, *(run.documents for run in runs), open_run)
    target = TiledCatalog(catalog.client)
    first = Migration(MongoRuns(database), target, tmp_path, at_once=2)
    with first as migration, closing(migration.copy()) as each:
        copied = [next(each)]
    with Migration(MongoRuns(database), target, tmp_path, at_once=2) as migration:
        copied += migration.copy()
        assert [(each.state, each.differences) for each in copied] == [("same", ())] * 3
        assert [(each.events, each.frames) for each in copied] == [(3, 3)] * 2 + [(2, 0)]
        assert [each.uid for each in copied] == [runs[0].uid, runs[1].uid, open_run[0][1]["uid"]]
        assert migration.counts() == {"same": 3, "differs": 0, "failed": 0}
        # What it could not say is listed: that of the run without an end.
        assert any("cut short" in note for each in migration.unlike() for note in each.notes)
        assert list(migration.copy()) == []
    runs[0].compare(catalog.client)


def test_what_is_otherwise_is_said(database, catalog, data_directory, tmp_path):
    """A document that is another one in the catalog, a frame that is, a file that is gone, a resource that is."""
    runs = [SmallRun(data_directory, 50 + number, events=2) for number in range(3)]
    keep(database, *(run.documents for run in runs))
    changed, gone, lacking = (run.uid for run in runs)
    database["resource"].delete_one({"run_start": lacking})
    target, away = TiledCatalog(catalog.client), tmp_path / "away"
    away.mkdir()
    SmallRun(away, runs[0].number, events=2)
    with h5py.File(away / f"small {runs[0].number}.h5", "r+") as file:
        file["entry/data/data"][1] += 1
    with Migration(MongoRuns(database), target, tmp_path / "state") as migration:
        assert [each.state for each in migration.copy()] == ["same", "same", "failed"]
    catalog.client[changed].base.patch_metadata(
        metadata_patch=[{"op": "add", "path": "/start/number", "value": 99}], drop_revision=True
    )
    roots = {str(data_directory): str(away)}
    with Migration(MongoRuns(database), target, tmp_path / "another", root_map=roots) as migration:
        found = {each.uid: each for each in migration.copy()}
        assert found[changed].differences == (
            f"start {changed}: number is 99; expected 50",
            "frame 1 of primary/image is another one in the catalog",
        )
        assert found[changed].state == found[gone].state == "differs"
        (words,) = found[gone].differences
        assert "frame 0 of primary/image cannot be compared" in words
        assert "is not there" in words
        assert found[lacking].state == "failed"
        assert "there is no resource" in found[lacking].differences[0]
        assert [each.uid for each in migration.copy()] == [lacking]
        assert {each.uid for each in migration.copy(again=True)} == {changed, gone, lacking}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda docs: docs.pop(2), ["event e1 is not in the catalog"]),
        (lambda docs: docs[2][1]["data"].update(x=[1, 3]), ["event e1: data.x[1] is 3; expected 2"]),
        (lambda docs: docs[2][1]["data"].pop("x"), ["event e1: data.x is not there; expected [1, 2]"]),
        (lambda docs: docs[1][1].update(more=1), ["descriptor d: more is 1; expected not there"]),
        (lambda docs: docs.append(("event", {"uid": "e3", "data": {}})), ["event e3 is in the catalog alone"]),
        (lambda docs: docs.insert(2, docs.pop(3)), ["events come in another order in the catalog"]),
        (lambda docs: docs.insert(1, docs.pop(4)), []),
        (lambda docs: docs.pop(4), ["datum r/0 is not in the catalog"]),
        (lambda docs: docs.pop(5), []),
        (lambda docs: docs[3][1]["data"].update(y=float("nan")), []),
    ],
)
def test_differences(change, words):
    """Every way in which documents differ is said; what is none is not."""

    def docs():
        return [
            ("start", {"uid": "s"}),
            ("descriptor", {"uid": "d"}),
            ("event", {"uid": "e1", "data": {"x": [1, 2], "i": "r/0"}}),
            ("event", {"uid": "e2", "data": {"y": float("nan")}}),
            ("datum", {"datum_id": "r/0"}),
            ("datum", {"datum_id": "r/1"}),
        ]

    target = docs()
    change(target)
    assert differences(docs(), target) == words


@pytest.mark.parametrize("kind", ["jsonl", "msgpack"])
def test_archives(tmp_path, kind):
    """Files of suitcases give the documents that went in, arrays as well; a file that breaks off fails its last run."""
    runs = [SmallRun(tmp_path, number, events=2) for number in range(3)]
    run_of_arrays = event_model.compose_run(metadata={"array": np.arange(3.0)})
    documents = [run.documents for run in runs[:2]] + [[("start", run_of_arrays.start_doc)]]
    pack = {"jsonl": _as_json, "msgpack": lambda pair: msgpack.packb(pair, default=_as_msgpack_numpy)}[kind]
    (tmp_path / f"one.{kind}").write_bytes(b"".join(map(pack, runs[2].documents)))
    both = b"".join(pack(pair) for each in documents for pair in each)
    (tmp_path / f"more.{kind}").write_bytes(both)
    found = ArchivedRuns([tmp_path])
    assert found.count() == 4
    for run in runs:
        assert list(plain(found.documents_of(run.uid))) == list(plain(run.documents))
    ((_, start),) = found.documents_of(run_of_arrays.start_doc["uid"])
    assert np.asarray(start["array"]).tolist() == [0.0, 1.0, 2.0]
    (tmp_path / f"one.{kind}").write_bytes(b"".join(map(pack, runs[2].documents))[:-9])
    with pytest.raises(SourceError, match="cannot be read"):
        list(ArchivedRuns([tmp_path / f"one.{kind}"]).documents_of(runs[2].uid))
    with pytest.raises(SourceError, match="there is no"):
        ArchivedRuns([tmp_path / "nothing"])


def test_a_damaged_line_costs_one_run(tmp_path, catalog, monkeypatch):
    """Of an archive of many runs only the one that a damaged line is in is not copied; what has no uid is said."""
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    runs = [run_documents(3)[1] for _ in range(3)]
    written = [[_as_json(pair) for pair in documents] for documents in runs]
    written[1][3], damaged = written[1][3][:30] + b"\n", 2 + len(runs[0]) + 4
    path = tmp_path / "all.jsonl"
    odd = [_as_json(("start", {"time": 1.0})), _as_json(("start", {"uid": "no time", "time": None}))]
    path.write_bytes(b"".join([*odd, *(line for lines in written for line in lines)]))
    found = ArchivedRuns([path])
    uids = [documents[0][1]["uid"] for documents in runs]
    assert list(found.uids()) == ["no time", *uids]
    assert [f"line {damaged} " in fault for fault in found.faults] == [False, True]
    assert "a start without a uid" in found.faults[0]
    for place in (0, 2):
        assert list(plain(found.documents_of(uids[place]))) == list(plain(runs[place]))
    with pytest.raises(SourceError, match=f"line {damaged} cannot be read"):
        list(found.documents_of(uids[1]))
    path.write_bytes(b"".join([written[1][3], *written[0]]))
    command = ["migrate", str(path), catalog.uri, "--state", str(tmp_path / "state")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "1 same" in result.stdout
    assert "not copied: " in result.stdout


def test_one_run_in_several_archives(tmp_path):
    """Of a run that is in several archives the fullest is taken, whatever they are called, and none that is damaged."""
    documents = run_documents(5)[1]
    whole = b"".join(map(_as_json, documents))
    for name, content in (("a", whole[:-30]), ("b", whole), ("c", b"".join(map(_as_json, documents[:3])))):
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    found = ArchivedRuns([tmp_path])
    assert list(found.uids()) == [documents[0][1]["uid"]]
    assert list(plain(found.documents_of(documents[0][1]["uid"]))) == list(plain(documents))
    (tmp_path / "b.jsonl").unlink()
    assert len(list(ArchivedRuns([tmp_path]).documents_of(documents[0][1]["uid"]))) == 3


def test_an_archive_is_not_read_for_each_run(tmp_path, monkeypatch):
    """Runs that are asked for in their order are found in one go, however many an archive has; any other as well."""
    runs = [run_documents(1)[1] for _ in range(20)]
    runs[3].pop()
    (tmp_path / "all.jsonl").write_bytes(b"".join(_as_json(pair) for documents in runs for pair in documents))
    began = []
    found = ArchivedRuns([tmp_path])
    monkeypatch.setattr(archived_runs, "read_archive", lambda *args: began.append(1) or read_archive(*args))
    for documents, uid in zip(runs, found.uids(), strict=True):
        assert list(plain(found.documents_of(uid))) == list(plain(documents))
    # Of the run without a stop the end is known at the archive's.
    assert len(began) == 2
    first = runs[0][0][1]["uid"]
    assert list(plain(found.documents_of(first))) == list(plain(found.documents_of(first))) == list(plain(runs[0]))


def test_odd_runs_stand_before_no_other(database, catalog, tmp_path):
    """Whatever is in a database that is no run, or none that can be read, the others are copied, and it is said."""
    documents = run_documents(2)[1]
    keep(database, documents)
    odd = {"uid": "odd", "time": 5.0}
    database["run_start"].insert_many([{"time": 6.0}, {"uid": 7, "time": 7.0}, odd, {"uid": "no time"}])
    database["event_descriptor"].insert_one({"uid": "d", "run_start": "odd", "data_keys": None, "time": "noon"})
    runs = MongoRuns(database)
    with Migration(runs, TiledCatalog(catalog.client), tmp_path) as migration:
        found = {each.uid: each.state for each in migration.copy()}
    assert found[documents[0][1]["uid"]] == "same"
    assert found["odd"] == "failed"
    assert len(runs.faults) == 2
    assert "has uid 7; expected a text" in runs.faults[1]


def test_nobody_answers():
    """A MongoDB that is not there is said in a sentence, at once."""
    with pytest.raises(CatalogError, match=r"no MongoDB answers at mongodb://localhost:1/runs .*refused"):
        MongoRuns.from_uri("mongodb://user:secret@localhost:1/runs?serverSelectionTimeoutMS=300")


def _as_json(pair):
    return json.dumps(pair, default=lambda value: value.tolist()).encode() + b"\n"


def _as_msgpack_numpy(value):
    """As msgpack_numpy does it."""
    return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}


def test_command(catalog, data_directory, tmp_path, monkeypatch):
    """The command copies from a server, says how long a million would take, and does nothing the second time."""
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    with served() as (uri, tree):
        run = SmallRun(data_directory, 70, events=3)
        for name, doc in run.documents:
            tree.get_serializer()(name, doc)
        command = ["migrate", uri, catalog.uri, "--state", str(tmp_path / "state"), "--source-api-key", API_KEY]
        first, second = CliRunner().invoke(app, command), CliRunner().invoke(app, command)
    assert (first.exit_code, second.exit_code) == (0, 0), first.stdout
    assert "1 same" in first.stdout
    assert "1,000,000 such runs take" in first.stdout
    assert "such runs take" not in second.stdout
    run.compare(catalog.client)


def test_no_source(catalog):
    """What holds no documents is refused, as is a MongoDB without a name."""
    with pytest.raises(OptionError, match="no databroker that holds documents"):
        runs_of(catalog.client)
    with pytest.raises(OptionError, match="the name of a database"):
        MongoRuns.from_uri("mongodb://localhost:27017")


def test_nothing_is_lost_of_old_databases(database):
    """Resources without a uid, which datums refer to by what MongoDB calls them, and events there twice."""
    run = event_model.compose_run()
    image = {"source": "s", "dtype": "array", "shape": [2], "external": "FILESTORE:"}
    bundle = run.compose_descriptor(name="primary", data_keys={"image": image})
    database["run_start"].insert_one(dict(run.start_doc))
    database["event_descriptor"].insert_one(dict(bundle.descriptor_doc))
    kept = database["resource"].insert_one({"spec": "A", "resource_path": "a", "root": "/", "resource_kwargs": {}})
    database["datum"].insert_one({"datum_id": "old", "resource": str(kept.inserted_id), "datum_kwargs": {"n": 1}})
    event = bundle.compose_event(data={"image": "old"}, timestamps={"image": 1.0}, filled={"image": False})
    database["event"].insert_many([dict(event), dict(event)])
    told = list(MongoRuns(database).documents_of(run.start_doc["uid"]))
    assert [name for name, _ in told] == ["start", "descriptor", "resource", "datum", "event"]
    assert told[2][1]["uid"] == told[3][1]["resource"] == str(kept.inserted_id)
    assert np.shape(told[4][1]["data"]["image"]) == ()

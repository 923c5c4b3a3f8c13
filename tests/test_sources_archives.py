"""Archives of every kind give the documents that were put into them."""

import gzip
import json

import bson
import event_model
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from bluesky.callbacks.json_writer import JSONLinesWriter, JSONWriter
from bluesky_tiled_plugins.writing import _json_writer as of_tiled_writer
from bson import json_util
from small_runs import SmallRun
from spooled import put, run_documents

from bluesky_filestore.errors import SourceError
from bluesky_filestore.sources.archives import archives_in, read_archive
from bluesky_filestore.sources.consuming import ArchiveSource
from bluesky_filestore.spool.spooled_run import exported, find_run


def plain(pairs):
    """Documents as JSON has them."""
    return [(name, json.loads(json.dumps(doc, default=lambda value: value.tolist()))) for name, doc in pairs]


def with_callback(kind):
    """A writer of files that is a callback of one run."""

    def write(directory, documents):
        callback = kind(str(directory), "run.archive")
        for name, doc in documents:
            callback(name, doc)
        return directory / "run.archive"

    return write


def lines(directory, documents):
    """As suitcase-jsonl does."""
    (directory / "run.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in documents))
    return directory / "run.jsonl"


def packed(directory, documents):
    """As suitcase-msgpack does."""
    options = {"default": msgpack_numpy.encode, "use_bin_type": True}
    (directory / "run.msgpack").write_bytes(b"".join(msgpack.packb(pair, **options) for pair in documents))
    return directory / "run.msgpack"


def pretty(directory, documents):
    """As a person would."""
    text = json.dumps([{"name": name, "doc": doc} for name, doc in documents], indent=2)
    (directory / "run.json").write_text(text)
    return directory / "run.json"


def ours(directory, documents):
    """As the command export does."""
    put(directory / "spool", documents)
    (run,) = find_run([directory / "spool"], documents[0][1]["uid"])
    (directory / "run.jsonl").write_text("".join(f"{line}\n" for line in exported(run)))
    return directory / "run.jsonl"


def compressed(write):
    """The same with gzip."""

    def write_compressed(directory, documents):
        path = write(directory, documents)
        path.with_name("run.gz").write_bytes(gzip.compress(path.read_bytes()))
        return path.with_name("run.gz")

    return write_compressed


WRITERS = {
    "lines": lines,
    "bluesky's lines": with_callback(JSONLinesWriter),
    "bluesky's array": with_callback(JSONWriter),
    "TiledWriter's backup": with_callback(of_tiled_writer.JSONLinesWriter),
    "array": with_callback(of_tiled_writer.JSONWriter),
    "msgpack": packed,
    "pretty": pretty,
    "ours": ours,
    "lines.gz": compressed(lines),
    "msgpack.gz": compressed(packed),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_what_went_in_comes_out(tmp_path, write):
    """Whoever wrote the archive, the documents are those of the run, in their order."""
    documents = plain(SmallRun(tmp_path, 1, events=3).documents)
    assert list(read_archive(write(tmp_path, documents))) == documents


def test_values_of_numpy(tmp_path):
    """What msgpack_numpy packs comes back as it was, and arrays of objects do not run what is in them."""
    _, documents = run_documents(1)
    values = {
        "array": np.arange(6, dtype=">u2").reshape(2, 3),
        "scalar": np.float32(1.5),
        "complex": 1 + 2j,
        "table": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "objects": np.array([{"a": 1}, None], dtype=object),
    }
    documents[2][1]["data"].update(values)
    (_, event) = list(read_archive(packed(tmp_path, documents)))[2]
    for key, value in values.items():
        np.testing.assert_array_equal(event["data"][key], value)
        assert getattr(event["data"][key], "dtype", None) == getattr(value, "dtype", None)


def collections(documents):
    """The documents by the collections of suitcase-mongo."""
    names = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
    found = {}
    for name, doc in documents:
        found.setdefault(names.get(name, name), []).append({"_id": bson.ObjectId(), **doc})
    return found


def as_bson(doc):
    """As mongodump does."""
    return bson.encode(doc)


def as_json(doc):
    """As mongoexport does."""
    return json_util.dumps(doc, json_options=json_util.CANONICAL_JSON_OPTIONS).encode() + b"\n"


@pytest.mark.parametrize(("suffix", "encode"), [("bson", as_bson), ("json", as_json)])
def test_exports_of_mongo(tmp_path, suffix, encode):
    """Runs are put together from collections in any order, also with resources that do not say their run."""
    runs = [plain(SmallRun(tmp_path, number, events=3).documents) for number in range(2)]
    for name, doc in runs[1]:
        if name == "resource":
            doc.pop("run_start")
    (tmp_path / "dump").mkdir()
    for collection, docs in collections([*runs[1], *runs[0]]).items():
        (tmp_path / "dump" / f"{collection}.{suffix}").write_bytes(b"".join(map(encode, docs)))
    assert archives_in([tmp_path / "dump"]) == [tmp_path / "dump"]
    found = list(read_archive(tmp_path / "dump"))
    order = sorted(runs, key=lambda documents: documents[0][1]["time"])
    starts = [doc["uid"] for name, doc in found if name == "start"]
    assert starts == [documents[0][1]["uid"] for documents in order]
    size = len(order[0])
    for documents, got in zip(order, (found[:size], found[size:]), strict=True):
        key = lambda pair: json.dumps(pair, sort_keys=True)  # noqa: E731
        assert sorted(got, key=key) == sorted(documents, key=key)
        for name, doc in got:
            event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        assert [doc["seq_num"] for name, doc in got if name == "event"] == [1, 2, 3]
        assert got[-1][0] == "stop"


def test_what_belongs_to_no_run_is_said(tmp_path):
    """An export that lacks a run's start says how much of it is left out."""
    _, documents = run_documents(3)
    for collection, docs in collections(documents[1:]).items():
        (tmp_path / f"{collection}.json").write_bytes(b"".join(map(as_json, docs)))
    (tmp_path / "run_start.json").touch()
    faults = []
    assert list(read_archive(tmp_path, faults.append)) == []
    assert "2 documents in" in faults[0]


@pytest.mark.parametrize("write", [lines, packed, with_callback(of_tiled_writer.JSONWriter)])
def test_cut_short(tmp_path, write):
    """An archive whose writer was killed gives what is whole of it, and the rest is said."""
    documents = plain(run_documents(3)[1])
    path = write(tmp_path, documents)
    path.write_bytes(path.read_bytes()[:-20])
    faults = []
    assert list(read_archive(path, faults.append)) == documents[:-1]
    assert len(faults) == 1
    assert "cannot be read" in faults[0]
    with pytest.raises(SourceError, match="cannot be read"):
        list(read_archive(path))


def test_one_bad_line_costs_that_line(tmp_path):
    """What is no document is left out and said with its line, wherever it is; what follows is read."""
    documents = plain(run_documents(3)[1])
    path = lines(tmp_path, documents)
    good = path.read_text().splitlines()
    bad = ["{broken", '["nonsense", {}]', "17", '["event"]']
    for number, line in enumerate(bad):
        good.insert(2 * number, line)
    path.write_text("\n".join(good))
    faults = []
    assert list(read_archive(path, faults.append)) == documents
    assert [fault.split("line ")[1].split()[0].strip(":,") for fault in faults] == ["1", "3", "5", "7"]


def test_no_archives(tmp_path):
    """What is no archive, and what is not there, is an error that says what was expected."""
    (tmp_path / "other.bin").write_bytes(b"\xc1\xff\x00")
    with pytest.raises(SourceError, match="expected JSON lines, JSON or msgpack"):
        list(read_archive(tmp_path / "other.bin"))
    with pytest.raises(SourceError, match="there is no"):
        archives_in([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no archive is in"):
        archives_in([tmp_path / "empty"])


def test_archives_of_a_directory(tmp_path):
    """A directory gives its archives by name, whatever else is there; none comes twice."""
    (tmp_path / "below").mkdir()
    names = ["a.jsonl", "below/b.msgpack", "c.json.gz"]
    for name in [*names, "notes.txt"]:
        (tmp_path / name).touch()
    assert archives_in([tmp_path, tmp_path / "a.jsonl"]) == [tmp_path / name for name in names]


def halved(directory, documents):
    """As suitcase-jsonl does, compressed, and cut in the middle."""
    path = directory / "cut.jsonl.gz"
    whole = gzip.compress("".join(f"{json.dumps(pair)}\n" for pair in documents).encode())
    path.write_bytes(whole[: len(whole) // 2])
    return path


def altered(directory, documents):
    """The same, of which a byte is another one."""
    path = compressed(lines)(directory, documents)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


def cut_msgpack(directory, documents):
    """As suitcase-msgpack does, compressed, and cut."""
    path = compressed(packed)(directory, documents)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def cut_bson(directory, documents):
    """As mongodump does, and cut."""
    (directory / "dump").mkdir()
    for collection, docs in collections(documents).items():
        whole = b"".join(map(as_bson, docs))
        (directory / "dump" / f"{collection}.bson").write_bytes(whole[:-9] if collection == "event" else whole)
    return directory / "dump"


def cut_export(directory, documents):
    """As mongoexport does, compressed, and cut."""
    (directory / "dump").mkdir()
    for collection, docs in collections(documents).items():
        whole = gzip.compress(b"".join(map(as_json, docs)))
        (directory / "dump" / f"{collection}.json.gz").write_bytes(whole[:-9] if collection == "event" else whole)
    return directory / "dump"


def other_file(directory, documents):
    """No archive at all."""
    (directory / "other.msgpack").write_bytes(b"\xc1\xff\x00")
    return directory / "other.msgpack"


@pytest.mark.parametrize("damage", [halved, altered, cut_msgpack, cut_bson, cut_export, other_file])
def test_a_damaged_archive_costs_no_other(tmp_path, damage):
    """What cannot be read of one archive is said, with its name, and those that follow are read all the same."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    path = damage(first, plain(run_documents(40)[1]))
    documents = plain(run_documents(2)[1])
    source = ArchiveSource([path, lines(second, documents)])
    read = [pair for pair in source.documents() if pair is not None]
    assert read[-len(documents) :] == documents
    assert source.faults
    assert all(str(path) in fault for fault in source.faults)
    with pytest.raises(SourceError, match=r"cannot be read|is no archive"):
        list(read_archive(path))


def test_a_mark_of_utf_8(tmp_path):
    """A file that an editor of Windows has put its mark before is read as any other."""
    documents = plain(run_documents(2)[1])
    path = lines(tmp_path, documents)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_archive(path)) == documents

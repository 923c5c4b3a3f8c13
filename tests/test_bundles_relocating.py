"""Files that went elsewhere: the catalog says so, everything is read from there, and can be as it was before."""

import itertools
import shutil
import time
from contextlib import suppress
from dataclasses import replace

import event_model
import httpx
import numpy as np
import pytest
import tifffile
from bluesky_tiled_plugins import TiledWriter
from document_streams import KINDS, Camera, Case, Step, build, write_hdf5
from effort import some
from proxy import Proxy, no_fault
from small_runs import image_documents, plain
from tiled.client import from_uri
from typer.testing import CliRunner

from bluesky_filestore import (
    CatalogWriter,
    deregister_handler,
    documents,
    fill,
    open_array,
    register_handler,
    relocate,
    serve_catalog,
    undo_relocation,
    verify_run,
)
from bluesky_filestore.bundles import relocating
from bluesky_filestore.catalogs.tiled import relocating as requests
from bluesky_filestore.cli.entry import app
from bluesky_filestore.errors import CatalogUnreachableError, FileStoreError, OptionError, RelocationError
from bluesky_filestore.spool.spooled_run import find_run

numbers = itertools.count()
KEY = "cam_image"


def one_camera(kind, events=4):
    """A run of one detector."""
    camera = Camera(KEY, kind, 2, "<u2")
    return Case((camera,), {"primary": (0,)}, ((Step("primary"),) * events,))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, data_directory):
    """A catalog with these runs alone: a relocation looks through all of them."""
    with serve_catalog(tmp_path_factory.mktemp("relocating"), readable=data_directory) as server:
        yield server


@pytest.fixture
def place(data_directory):
    """A directory of its own that the server reads."""
    path = data_directory / "relocating" / str(next(numbers))
    path.mkdir(parents=True)
    return path


def deliver(client, pairs):
    """Write documents to a catalog; the run's uid."""
    with CatalogWriter(client, spool=None) as writer:
        for name, doc in pairs:
            writer(name, doc)
    return pairs[0][1]["uid"]


def frames_by_all_ways(client, uid, key=KEY):
    """The frames of a run: straight, through the server, and by its documents; asserted to be the same."""
    node = client[uid]["primary"].base[key]
    straight = open_array(node)
    assert straight.source == "files", straight.reason
    served, by_files = node.read(), straight[...]
    by_documents = open_array(documents(client[uid]), data_key=key)[...]
    filled = [doc["data"][key] for name, doc in fill(documents(client[uid])) if name == "event"]
    np.testing.assert_array_equal(served, by_files)
    np.testing.assert_array_equal(by_documents, by_files)
    np.testing.assert_array_equal(np.asarray(filled).reshape(by_files.shape), by_files)
    return by_files


def everything_in(client, uid):
    """All that a catalog says of a run, but what numbers and times it has given itself."""
    found = {}

    def look(path, node):
        sources = [
            (
                source.mimetype,
                source.parameters,
                source.properties,
                str(source.structure),
                requests._ordered(source.assets),
            )
            for source in node.data_sources() or []
        ]
        for source in sources:
            for asset in source[-1]:
                asset.id = None
        found[path] = (dict(node.metadata), [spec.name for spec in node.specs], sources)
        if node.structure_family == "container":
            for key, child in node.items():
                look((*path, key), child)

    look((), requests.node_at(requests.plain_container(client), [uid]))
    return found


@pytest.mark.parametrize("kind", some(list(KINDS)))
def test_moved(catalog, place, kind):
    """Runs of each kind whose directory was renamed are read from there by all ways, and as before after an undo."""
    built = build(one_camera(kind), place / "old")
    uid = deliver(catalog.client, built.documents)
    expected, before = frames_by_all_ways(catalog.client, uid), everything_in(catalog.client, uid)
    told = list(plain(documents(catalog.client[uid])))
    (place / "old").rename(place / "new")
    roots = {str(place / "old"): str(place / "new")}
    dry = relocate(catalog.client, roots, dry_run=True)
    assert dry.relocated == [uid]
    assert everything_in(catalog.client, uid) == before
    report = relocate(catalog.client, roots)
    assert report.ok, str(report)
    assert report.relocated == [uid]
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)
    checked = verify_run(catalog.client, uid)
    assert checked.exit_code == 0, str(checked)
    assert relocate(catalog.client, roots, [uid]).unchanged == 1
    (place / "new").rename(place / "old")
    undone = undo_relocation(catalog.client, report.journal)
    assert undone.relocated == [uid]
    assert everything_in(catalog.client, uid) == before
    assert list(plain(documents(catalog.client[uid]))) == told
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)


TWO_FILES = Case(
    (Camera(KEY, "AD_HDF5", 2, "<u2"), Camera("other_image", "stream TIFF", 1, "<u2")),
    {"primary": (0, 1)},
    ((Step("primary"),), (Step("primary"),)),
)


def died_at(number):
    """A catalog that carries out so many requests, and answers all but the last of them; then it is gone."""

    def fault(request):
        return None if request.number < number else "drop answer" if request.number == number else "cut"

    return fault


def test_killed_at_any_request(catalog, place, few_tries):
    """Wherever it is interrupted, no reader gets other frames, the same call finishes it, an undo brings all back."""
    built = build(TWO_FILES, place / "old")
    uid = deliver(catalog.client, built.documents)
    before = everything_in(catalog.client, uid)
    expected = {key: frames_by_all_ways(catalog.client, uid, key) for key in (KEY, "other_image")}
    shutil.copytree(place / "old", place / "new")
    roots, after = {str(place / "old"): str(place / "new")}, None
    with Proxy(catalog.uri) as proxy:
        client = from_uri(proxy.uri, api_key=catalog.api_key)
        for number in itertools.count(1, 2):
            proxy.requests, proxy.fault = 0, died_at(number)
            with suppress(CatalogUnreachableError):
                relocate(client, roots, [uid])
            was_whole = proxy.requests <= number
            assert_nothing_wrong(catalog.client, uid, expected)
            proxy.fault = no_fault
            report = relocate(client, roots, [uid])
            assert report.ok, str(report)
            told = everything_in(catalog.client, uid)
            relocations = told[()][0].pop("relocated")
            assert [each["roots"] for each in relocations] == [[list(pair) for pair in roots.items()]]
            assert told == (after := after or told)
            assert told != before
            proxy.requests, proxy.fault = 0, died_at(number)
            journal = report.journal or newest_journal()
            with suppress(CatalogUnreachableError):
                undo_relocation(client, journal)
            was_whole &= proxy.requests <= number
            assert_nothing_wrong(catalog.client, uid, expected)
            proxy.fault = no_fault
            undo_relocation(client, journal)
            assert everything_in(catalog.client, uid) == before
            if was_whole:
                break
        client.context.close()
    assert number > 8


def newest_journal():
    """The journal that was begun last."""
    return max(relocating.Journal.directory().iterdir(), key=lambda path: path.stat().st_mtime_ns)


def assert_nothing_wrong(client, uid, expected):
    """Each frame that can be read is the right one."""
    for key, frames in expected.items():
        node = client[uid]["primary"].base[key]
        for row in (0, len(frames) - 1):
            with suppress(httpx.HTTPStatusError, FileStoreError):
                np.testing.assert_array_equal(node[row], frames[row])
            with suppress(FileStoreError):
                np.testing.assert_array_equal(open_array(node)[row], frames[row])


@pytest.fixture
def server(request, catalog, place):
    """Gives the client of a server of a kind, and a directory that it can read."""

    def take(kind):
        if kind == "ours":
            return catalog.client, place
        client, data = request.getfixturevalue("stock")
        directory = data / str(next(numbers))
        directory.mkdir()
        return client, directory

    return take


def written_by_tiled_writer(client, pairs):
    """The same, by bluesky's own writer."""
    writer = TiledWriter(client)
    for name, doc in pairs:
        writer(name, doc)
    return pairs[0][1]["uid"]


@pytest.mark.parametrize(
    ("whose", "write", "kind"),
    [
        ("ours", deliver, "stream HDF5"),
        ("ours", written_by_tiled_writer, "stream TIFF"),
        ("stock", written_by_tiled_writer, "stream HDF5"),
        ("stock", deliver, "stream TIFF"),
    ],
)
def test_every_step(server, whose, write, kind, monkeypatch):
    """Whoever wrote a run, and whatever serves it: between two requests frames are the right ones, or an error."""
    client, directory = server(whose)
    # A series that was staged twice TiledWriter registers so that no server reads it.
    stagings = ((Step("primary"),) * 3,) if kind == "stream TIFF" else ((Step("primary"),) * 2, (Step("primary"),))
    case = Case((Camera(KEY, kind, 1, "<u2"),), {"primary": (0,)}, stagings)
    built = build(case, directory / "old")
    uid = write(client, built.documents)
    expected, before = client[uid]["primary"].base[KEY].read(), everything_in(client, uid)
    shutil.copytree(directory / "old", directory / "new")
    steps = []

    def then_look(step):
        def look(*arguments):
            step(*arguments)
            steps.append(step.__name__)
            for row in range(len(expected)):
                with suppress(httpx.HTTPError), pytest.MonkeyPatch.context() as patch:
                    patch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
                    np.testing.assert_array_equal(client[uid]["primary"].base[KEY][row], expected[row])

        return look

    for name in ("_remove_asset", "_put_assets"):
        monkeypatch.setattr(requests, name, then_look(getattr(requests, name)))
    report = relocate(client, {str(directory / "old"): str(directory / "new")}, [uid])
    assert report.ok, str(report)
    assert steps[-1] == "_put_assets"
    shutil.rmtree(directory / "old")
    np.testing.assert_array_equal(client[uid]["primary"].base[KEY].read(), expected)
    np.testing.assert_array_equal(open_array(client[uid]["primary"].base[KEY])[...], expected)
    assert verify_run(client, uid).exit_code == 0, str(verify_run(client, uid))
    undo_relocation(client, report.journal)
    assert everything_in(client, uid) == before


def missing(directory):
    """A file is not there."""
    next(directory.glob("*.h5")).unlink()


def cut_short(directory):
    """A file ends before its end."""
    path = next(directory.glob("*.h5"))
    path.write_bytes(path.read_bytes()[:-100])


def another(directory):
    """A file of the same layout has other frames."""
    import h5py

    with h5py.File(next(directory.glob("*.h5")), "r+") as file:
        file["/entry/data/data"][...] += 1


def a_run_of(directory, kind="AD_HDF5", **start):
    """The documents of a run of one detector."""
    pairs = build(one_camera(kind, events=2), directory).documents
    pairs[0][1].update(start)
    return pairs


@pytest.mark.parametrize(
    ("damage", "words"), [(missing, "is not there"), (cut_short, "cut short"), (another, "is not the")]
)
def test_refused_for_its_files(catalog, place, damage, words):
    """A run one of whose files is not there, or is another, is left as it is; unless nobody is to look."""
    uid = deliver(catalog.client, a_run_of(place / "old"))
    good = deliver(catalog.client, a_run_of(place / "good"))
    before = everything_in(catalog.client, uid)
    for name in ("old", "good"):
        shutil.copytree(place / name, place / f"new {name}")
    damage(place / "new old")
    roots = {str(place / name): str(place / f"new {name}") for name in ("old", "good")}
    report = relocate(catalog.client, roots, [uid, good])
    assert report.relocated == [good]
    assert words in report.refused[uid], str(report)
    assert everything_in(catalog.client, uid) == before
    trusted = relocate(catalog.client, roots, [uid], trust=True)
    assert trusted.relocated == [uid]
    undo_relocation(catalog.client, trusted.journal)


def test_runs_that_are_not_at_rest(catalog, place):
    """A run that is going on, or that a spool of this user still delivers, is refused with the reason."""
    pairs = a_run_of(place / "old")
    going_on = deliver(catalog.client, [pair for pair in pairs if pair[0] != "stop"])
    cut_off = deliver(catalog.client, a_run_of(place / "long ago", time=time.time() - 90_000)[:-1])
    (place / "late").mkdir()
    late = a_run_of(place / "late" / "er")
    with CatalogWriter.from_uri(catalog.uri, api_key=catalog.api_key) as writer:
        for name, doc in late[:-1]:
            writer(name, doc)
        writer.flush(10)
        report = relocate(catalog.client, {str(place): "/nowhere"}, trust=True)
        assert "no stop document" in report.refused[going_on]
        assert "uploading in the spool" in report.refused[late[0][1]["uid"]]
        assert report.relocated == [cut_off]
        writer(*late[-1])
    undo_relocation(catalog.client, report.journal)


def test_delivered_again(catalog, place):
    """A run that is relocated and then delivered from a spool once more stays relocated, and it is said why."""
    pairs = a_run_of(place / "old")
    with CatalogWriter.from_uri(catalog.uri, api_key=catalog.api_key, spool=place / "spool") as writer:
        for name, doc in pairs:
            writer(name, doc)
    uid = pairs[0][1]["uid"]
    expected = frames_by_all_ways(catalog.client, uid)
    (place / "old").rename(place / "new")
    relocate(catalog.client, {str(place / "old"): str(place / "new")}, [uid])
    relocated = everything_in(catalog.client, uid)
    (run,) = find_run([place / "spool"], uid)
    run.ask_again()
    with CatalogWriter.from_uri(catalog.uri, api_key=catalog.api_key, spool=place / "spool") as writer:
        writer.flush(10)
        status = str(writer.status())
    assert "were relocated in the catalog" in status
    assert everything_in(catalog.client, uid) == relocated
    np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), expected)


def of_a_handler(directory):
    """A run of a spec that only a handler reads."""
    directory.mkdir()
    np.save(directory / "a.npy", np.arange(24, dtype="<u2").reshape(1, 4, 6))
    return image_documents(directory / "a.npy", "RELOCATED_NPY"), "handled"


def of_nobody(directory):
    """A run of a spec that nobody reads."""
    directory.mkdir()
    (directory / "a.bin").write_bytes(bytes(48))
    return image_documents(directory / "a.bin", "NOBODY_S"), "octet"


def of_many_shapes(directory):
    """A run whose events differ in their number of frames, in two files."""
    case = replace(one_camera("AD_HDF5"), stagings=((Step("primary"),), (Step("primary"),)), varies=True)
    return build(case, directory).documents, "ragged"


@pytest.mark.parametrize("make", [of_a_handler, of_nobody, of_many_shapes])
def test_other_kinds_of_arrays(catalog, place, make):
    """What handlers read, what nobody reads, and rows of several shapes go with their files, too."""
    register_handler("RELOCATED_NPY", NumpyHandler, overwrite=True)
    try:
        pairs, mimetype = make(place / "old")
        uid = deliver(catalog.client, pairs)
        before = everything_in(catalog.client, uid)
        (place / "old").rename(place / "new")
        report = relocate(catalog.client, {str(place / "old"): str(place / "new")}, [uid])
        assert report.relocated == [uid], str(report)
        assert report.files == len(list((place / "new").iterdir()))
        found = [said for _, _, each in everything_in(catalog.client, uid).values() for said in each]
        (source,) = [said for said in found if mimetype in said[0]]
        assert all(str(place / "new") in asset.data_uri for asset in source[-1])
        if make is of_nobody:
            catalog.client[uid]["primary"].base["image"].raw_export(place / "out")
            assert len([path for path in (place / "out").rglob("*") if path.is_file()]) == 1
        else:
            assert verify_run(catalog.client, uid).exit_code == 0, str(verify_run(catalog.client, uid))
        assert relocate(catalog.client, {str(place / "new"): "/nowhere"}, [uid]).refused
        undo_relocation(catalog.client, report.journal)
        assert everything_in(catalog.client, uid) == before
    finally:
        deregister_handler("RELOCATED_NPY")


class NumpyHandler:
    """Reads a file of numpy's."""

    def __init__(self, path, **_):
        self.path = path

    def __call__(self, **_):
        """All that is in it."""
        return np.load(self.path)


def test_windows_paths(catalog, place):
    """Files that a catalog knows by paths of Windows, and documents too, are read when these are mapped to a mount."""
    image = {"source": "s", "dtype": "array", "shape": [1, 4, 6], "external": "FILESTORE:"}
    run = event_model.compose_run()
    bundle = run.compose_descriptor(name="primary", data_keys={KEY: image, "other": image})
    hdf5 = run.compose_resource(
        spec="AD_HDF5", root="Z:\\", resource_path="data\\a.h5", resource_kwargs={"frame_per_point": 1}
    )
    series = run.compose_resource(
        spec="AD_TIFF",
        root="Z:\\data",
        resource_path="run 1\\",
        resource_kwargs={"frame_per_point": 1, "template": "%s%s_%d.tiff", "filename": "f"},
    )
    pairs = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    pairs += [("resource", {**each.resource_doc, "path_semantics": "windows"}) for each in (hdf5, series)]
    for number in range(2):
        datums = {key: each.compose_datum({"point_number": number}) for key, each in ((KEY, hdf5), ("other", series))}
        pairs += [("datum", datum) for datum in datums.values()]
        data = {key: datum["datum_id"] for key, datum in datums.items()}
        timestamps = dict.fromkeys(data, 5.0)
        pairs.append(
            ("event", bundle.compose_event(data=data, timestamps=timestamps, filled=dict.fromkeys(data, False)))
        )
    uid = deliver(catalog.client, [*pairs, ("stop", run.compose_stop())])
    # The plugins say 8 bit where nobody sees the file.
    expected = np.arange(48, dtype=catalog.client[uid]["primary"].base[KEY].dtype).reshape(2, 1, 4, 6)
    before = everything_in(catalog.client, uid)
    (place / "mounted" / "run 1").mkdir(parents=True)
    write_hdf5(place / "mounted" / "a.h5", expected[:, 0])
    for number in range(2):
        tifffile.imwrite(place / "mounted" / "run 1" / f"f_{number}.tiff", expected[number, 0])
    report = relocate(catalog.client, {"z:\\DATA": str(place / "mounted")}, [uid])
    assert report.ok, str(report)
    assert report.files == 2
    for key in (KEY, "other"):
        np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid, key), expected)
    assert verify_run(catalog.client, uid).exit_code == 0, str(verify_run(catalog.client, uid))
    undo_relocation(catalog.client, report.journal)
    assert everything_in(catalog.client, uid) == before


def test_targets_under_another_name(catalog, place):
    """The catalog gets directories as its server names them, and files are looked for where this machine has them."""
    uid = deliver(catalog.client, a_run_of(place / "old"))
    roots = {str(place / "old"): "/on/the/server"}
    assert "is not there" in relocate(catalog.client, roots, [uid]).refused[uid]
    report = relocate(catalog.client, roots, [uid], root_map={"/on/the/server": str(place / "old")})
    assert report.relocated == [uid]
    assert open_array(catalog.client[uid]["primary"].base[KEY], root_map={"/on/the/server": str(place / "old")})[
        ...
    ].any()
    undo_relocation(catalog.client, report.journal)


def test_directories_exchanged(catalog, place):
    """Two directories that take each other's names: done once, however often it is asked for; undone in its order."""
    one, other = (deliver(catalog.client, a_run_of(place / name)) for name in "ab")
    roots = {str(place / "a"): str(place / "b"), str(place / "b"): str(place / "a")}
    expected = [frames_by_all_ways(catalog.client, uid) for uid in (one, other)]
    before = everything_in(catalog.client, one)
    (place / "a").rename(place / "c")
    (place / "b").rename(place / "a")
    (place / "c").rename(place / "b")
    report = relocate(catalog.client, roots, [one, other])
    assert report.ok, str(report)
    assert "would be led on" in relocate(catalog.client, roots, [one], trust=True).refused[one]
    for uid, frames in zip((one, other), expected, strict=True):
        np.testing.assert_array_equal(frames_by_all_ways(catalog.client, uid), frames)
    later = relocate(catalog.client, {str(place / "b"): str(place / "d")}, [one], trust=True)
    assert "was relocated again since" in undo_relocation(catalog.client, report.journal).refused[one]
    undo_relocation(catalog.client, later.journal)
    assert undo_relocation(catalog.client, report.journal).ok
    assert everything_in(catalog.client, one) == before


def test_journals(catalog, place):
    """A file that is no journal, is of something else, has ended or is in use is not gone by."""
    uid = deliver(catalog.client, a_run_of(place / "old"))
    roots, path = {str(place / "old"): str(place / "new")}, place / "journal"
    with pytest.raises(RelocationError, match="there is no journal"):
        undo_relocation(catalog.client, path)
    path.write_text('{"a": 1}\n')
    with pytest.raises(RelocationError, match="is no journal"):
        relocate(catalog.client, roots, [uid], journal=path)
    path.unlink()
    report = relocate(catalog.client, roots, [uid], trust=True, journal=path)
    assert report.journal == path
    for others, words in ((roots, "has ended"), ({"/a": "/b"}, "name another file")):
        with pytest.raises(RelocationError, match=words):
            relocate(catalog.client, others, [uid], journal=path)
    with relocating.Journal(path), pytest.raises(RelocationError, match="in use by another process"):
        undo_relocation(catalog.client, path)
    with path.open("ab") as file:
        file.write(b'{"cut off')
    assert undo_relocation(catalog.client, path).relocated == [uid]
    with pytest.raises(OptionError, match="OLD"):
        relocate(catalog.client, {}, [uid])


def command(*words):
    """What a command ends with, and prints."""
    result = CliRunner().invoke(app, [*map(str, words)])
    return result.exit_code, result.output


def test_command(catalog, place):
    """The commands: what would be done, done, undone, refused, copied and moved."""
    uid = deliver(catalog.client, a_run_of(place / "old"))
    before = everything_in(catalog.client, uid)
    shutil.copytree(place / "old", place / "new")
    where = ["--uri", catalog.uri, "--api-key", catalog.api_key]
    pair = f"{place / 'old'}={place / 'new'}"
    code, words = command("relocate", pair, uid[:13], "--dry-run", *where)
    assert (code, "1 runs would be relocated" in words) == (0, True), words
    assert everything_in(catalog.client, uid) == before
    code, words = command("relocate", pair, uid[:13], *where)
    assert code == 0, words
    journal = "".join(words.split("Journal: ")[1].split())
    assert command("relocate", "--undo", journal, *where)[0] == 0
    assert everything_in(catalog.client, uid) == before
    shutil.rmtree(place / "new")
    code, words = command("relocate", pair, uid, *where)
    assert (code, "is not there" in words) == (1, True), words
    for wrong in (["--dry-run"], [pair, "--undo", journal], ["/a="]):
        assert command("relocate", *wrong, *where)[0] == 2
    code, words = command("copy", uid, "--to", place / "copied", *where)
    assert (code, "1 runs copied" in words) == (0, True), words
    code, words = command("move", uid, "--to", place / "moved", *where)
    assert (code, "1 originals removed" in words) == (0, True), words

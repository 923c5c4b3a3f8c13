"""Whether runs that others wrote have their data: bluesky-tiled-plugins' writer, and databroker."""

import itertools
import time
import warnings

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import event_model
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import RunEngineInterrupted
from brokers import API_KEY, served, temporary
from command_line import run as command
from ophyd.status import Status
from small_runs import SmallRun

from bluesky_filestore import CatalogWriter, verify_run
from bluesky_filestore.catalogs.tiled.connecting import connect
from bluesky_filestore.catalogs.tiled.values import read_table
from bluesky_filestore.errors import RunNotFoundError

numbers = itertools.count()
SHAPE = (3, 4)


class Detector:
    """Writes a frame at each trigger, and emits a stream_datum of it when it is asked for documents."""

    name, parent, hints = "det", None, {"fields": []}

    def __init__(self, path, frames=1):
        self.path, self.each = path, frames
        self.triggers, self.said, self.flies = 0, 0, False
        self.resource = None

    def trigger(self):
        """Take the frames of one point."""
        self.triggers += 1
        frames = [np.full(SHAPE, number, "<u2") for number in range(self.triggers * self.each)]
        with h5py.File(self.path, "w") as file:
            file.create_dataset("/entry/data/data", data=np.stack(frames), chunks=(1, *SHAPE))
        status = Status()
        status.set_finished()
        return status

    def read(self):
        """How many frames there were."""
        return {"det_hdf_num_captured": {"value": self.triggers * self.each, "timestamp": time.time()}}

    def describe(self):
        """That, and the image."""
        image = {"source": "s", "dtype": "array", "shape": [self.each, *SHAPE], "dtype_numpy": "<u2"}
        counted = {"source": "s", "dtype": "integer", "shape": []}
        return {"det_hdf_num_captured": counted, "det_image": {**image, "external": "STREAM:"}}

    def describe_collect(self):
        """The image alone, of a flyer."""
        self.flies = True
        return {"det_image": self.describe()["det_image"]}

    def read_configuration(self):
        """Nothing."""
        return {}

    describe_configuration = read_configuration

    def get_index(self):
        """How many points are there."""
        return self.triggers

    def collect_asset_docs(self, index=None):
        """Of each trigger that was not spoken of."""
        if self.resource is None:
            self.resource = event_model.compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=f"file://localhost{self.path}",
                data_key="det_image",
                parameters={"dataset": "/entry/data/data", "chunk_shape": [1, *SHAPE]},
            )
            yield "stream_resource", self.resource.stream_resource_doc
        # For collect all that is new in one, as ophyd-async does; else one a trigger, as our mixins do.
        width = self.triggers - self.said if self.flies else 1
        for number in range(self.said, self.triggers, width or 1):
            indices = event_model.StreamRange(start=number, stop=number + width)
            yield "stream_datum", self.resource.compose_stream_datum(indices=indices)
        self.said = self.triggers


@bpp.run_decorator()
def scan(detector, paused_at=None, points=3):
    """Some points, with a pause between trigger and save of one."""
    for point in range(points):
        yield from bps.checkpoint()
        yield from bps.trigger(detector, wait=True)
        if point == paused_at:
            paused_at = None
            yield from bps.pause()
        yield from bps.create("primary")
        yield from bps.read(detector)
        yield from bps.save()


@bpp.run_decorator()
def flight(detector, points=4):
    """A stream that has frames, and no events."""
    yield from bps.declare_stream(detector, name="primary", collect=True)
    for _ in range(points):
        yield from bps.trigger(detector, wait=True)
    yield from bps.collect(detector, name="primary")


@pytest.fixture
def taken(catalog, data_directory):
    """Runs a plan with a detector and gives the clients of the run as their writer and as ours wrote it."""
    from bluesky_tiled_plugins import TiledWriter

    containers = catalog.client.create_container(f"theirs{next(numbers)}"), catalog.client

    def take(plan, frames=1, **options):
        path = data_directory / "verify writers" / f"{next(numbers)}.h5"
        path.parent.mkdir(exist_ok=True)
        engine = RunEngine({})
        with CatalogWriter(containers[1], spool=None) as writer:
            engine.subscribe(writer)
            engine.subscribe(TiledWriter(containers[0]))
            try:
                (uid,) = engine(plan(Detector(path, frames), **options))
            except RunEngineInterrupted:
                (uid,) = engine.resume()
        return containers[0][uid], containers[1][uid], path

    return take


def test_point_given_up(taken):
    """A scan that was paused between trigger and save has frames shifted by one, which their validate() takes."""
    from bluesky_tiled_plugins.writing.validator import validate

    theirs, ours, _ = taken(scan, paused_at=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert validate(theirs, fix_errors=False, write_notes=False)
    report = verify_run(theirs)
    assert report.exit_code == 1, str(report)
    assert "4 rows for 3 events" in str(report)
    # The documents tell it where ours has written them.
    report = verify_run(ours)
    assert report.exit_code == 0, str(report)
    assert "1 of 4 frames" in str(report)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("plan", [scan, flight])
def test_good(taken, plan, frames):
    """Scans and flights without fault are good, by whoever has written them, however many frames a point has."""
    for run in taken(plan, frames=frames)[:2]:
        report = verify_run(run)
        assert report.exit_code == 0, str(report)


def test_frames_that_were_counted(taken):
    """What the plugin had counted by an event has to be in the file, and no more where frames are only counted."""
    theirs, ours, path = taken(scan, points=4)
    assert "counted up to 4" in str(verify_run(ours))
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = np.zeros((3, *SHAPE), "<u2")
    for run in (theirs, ours):
        report = verify_run(run)
        assert report.exit_code == 1, str(report)
        assert str(path) in {finding.file for finding in report.problems}, str(report)
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = np.stack([np.full(SHAPE, number, "<u2") for number in range(6)])
    report = verify_run(theirs)
    assert report.exit_code == 1, str(report)
    assert "[6, 3, 4]" in str(report)


@pytest.mark.parametrize("damage", ["twice", "missing", "order"])
def test_rows_of_the_event_table(taken, damage):
    """Rows that are in an event table twice, not at all, or in another order are found, whoever wrote it."""
    for run in taken(scan, points=4)[:2]:
        stream = getattr(run["primary"], "base", run["primary"])
        ((key, table),) = [(key, child) for key, child in stream.items() if child.structure_family == "table"]
        rows = read_table(table)
        order = {"twice": [0, 1, 1, 2, 3], "missing": [0, 2, 3], "order": [0, 2, 1, 3]}[damage]
        stream.delete_contents([key], external_only=False)
        stream.write_table(rows.iloc[order].reset_index(drop=True), key=key)
        report = verify_run(run)
        assert report.exit_code == 1, str(report)
        assert {"twice": "1 rows are there twice", "missing": "", "order": "not in the order"}[damage] in str(report)
        assert any(finding.check in ("events", "rows") for finding in report.problems)


def test_real_detector(catalog, data_directory, ioc):
    """A run of a detector is good, its plugin's count among what is compared; with its file cut short it is not."""
    from bluesky_filestore.sim import SimDetectorHDF5

    directory = data_directory / "verify writers" / "detector"
    directory.mkdir(parents=True)
    detector = SimDetectorHDF5(ioc.prefix, name="det", write_path_template=str(directory), root=str(directory))
    detector.hdf5.kind = detector.hdf5.num_captured.kind = "normal"
    engine = RunEngine({})
    with CatalogWriter(catalog.client, spool=None) as writer:
        engine.subscribe(writer)
        (uid,) = engine(count([detector], 3))
        writer.flush(30)
    report = verify_run(catalog.client, uid)
    assert report.exit_code == 0, str(report)
    assert "the plugin counted up to 3" in str(report)
    (path,) = directory.rglob("*.h5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = verify_run(catalog.client, uid)
    assert report.exit_code == 1, str(report)
    assert report.problems[0].file == str(path)


def test_databroker(tmp_path):
    """Runs of a databroker are looked at by their documents: in this process, by a client of a server, by command."""
    good, bad = (SmallRun(tmp_path, number) for number in range(2))
    broker = temporary()
    with served() as (uri, tree):
        for run in (good, bad):
            for name, doc in run.documents:
                broker.insert(name, doc)
                tree.get_serializer()(name, doc)
        (tmp_path / "small 1.h5").unlink()
        client = connect(uri, api_key=API_KEY)
        for of in (broker, broker.v2, client):
            assert verify_run(of, good.uid).exit_code == 0, str(verify_run(of, good.uid))
            assert verify_run(of, bad.uid).exit_code == 1
        assert verify_run(broker[good.uid]).exit_code == 0
        assert "small 1.h5" in str(verify_run(client[bad.uid]))
        with pytest.raises(RunNotFoundError, match="no run"):
            verify_run(broker, "nothing like it")
        client.context.close()
        done = command("verify", "--all", "--uri", uri, "--api-key", API_KEY)
        assert done.returncode == 1, done.stdout + done.stderr
        assert bad.uid in done.stdout
        done = command("verify", good.uid, "--uri", uri, "--api-key", API_KEY)
        assert (done.returncode, "all is well" in done.stdout) == (0, True), done.stdout + done.stderr

"""The page by itself: a spool that is written to, a list of many runs, and a server that may be restarted."""

import threading
import time
from contextlib import closing, contextmanager

import event_model
import h5py
import numpy as np
import uvicorn

from bluesky_filestore import SpoolWriter
from bluesky_filestore.live.page import WithPage, page_app
from bluesky_filestore.live.page_state import Watched
from bluesky_filestore.serving.binding import bound_socket
from bluesky_filestore.serving.guard import Guard

KEY = "thekey"
NUMBER = {"source": "s", "dtype": "number", "shape": []}
HOSTILE = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"


class ManyRuns(Watched):
    """With a list of many runs."""

    count = 2000

    def runs(self, offset, limit):
        """Some of them."""
        listed = [self.listed(number) for number in range(offset, min(offset + limit, self.count))]
        return {"runs": listed, "count": self.count, "why": ""}

    def listed(self, number):
        """One of them, of which each hundredth lacks frames."""
        names = {"uid": f"{number:08d}-run", "scan": str(5000 - number), "plan": "count", "sample": HOSTILE}
        facts = {"time": 1.7e9 - number, "seconds": 2.0, "events": number, "status": "success"}
        return {**names, **facts, "frames": "found" if number % 100 else "lacking", "why": ""}


class Scan:
    """A scan of a motor and a camera, whose events are written one by one."""

    def __init__(self, directory, *, points=20, size=64, **metadata):
        self.size, self.path = size, directory / "frames of a camera.h5"
        self.writer = SpoolWriter(directory / "spool")
        self.file = h5py.File(self.path, "w", libver="latest")
        shape = (0, size, size)
        self.frames = self.file.create_dataset("entry/data/data", shape, "u2", maxshape=(None, size, size), chunks=True)
        self.file.swmr_mode = True
        hints = {"dimensions": [[["motor"], "primary"]]}
        about = {"scan_id": 7, "plan_name": "scan", "detectors": ["camera"], "motors": ["motor"], "num_points": points}
        self.run = event_model.compose_run(metadata={**about, "hints": hints, **metadata})
        image = {"source": "s", "dtype": "array", "shape": [1, size, size], "dtype_numpy": "<u2", "external": "X:"}
        keys = {"motor": NUMBER, "signal": NUMBER, "image": image}
        self.bundle = self.run.compose_descriptor(name="primary", data_keys=keys)
        self.resource = self.run.compose_resource(
            spec="AD_HDF5_SWMR",
            root=str(directory),
            resource_path=self.path.name,
            resource_kwargs={"frame_per_point": 1},
        )
        self.uid = self.run.start_doc["uid"]
        for name, doc in (
            ("start", self.run.start_doc),
            ("descriptor", self.bundle.descriptor_doc),
            ("resource", self.resource.resource_doc),
        ):
            self.writer(name, doc)

    def frame(self, row):
        """A frame, of which no two are the same."""
        return (np.arange(self.size**2).reshape(self.size, self.size) + row).astype("u2")

    def take(self, events=1):
        """Take more points."""
        for _ in range(events):
            row = len(self.frames)
            self.frames.resize(row + 1, axis=0)
            self.frames[row] = self.frame(row)
            self.frames.flush()
            self.add(row)

    def add(self, row):
        """The documents of a point."""
        datum = self.resource.compose_datum(datum_kwargs={"point_number": row})
        data = {"motor": row / 10, "signal": row**2 / 7 if row != 3 else float("nan"), "image": datum["datum_id"]}
        event = self.bundle.compose_event(data=data, timestamps=dict.fromkeys(data, 5.0), filled={"image": False})
        self.writer("datum", datum)
        self.writer("event", event)

    def stop(self):
        """End it."""
        self.writer("stop", self.run.compose_stop())
        self.writer.close()
        self.file.close()


@contextmanager
def served(watched, port=0):
    """The page as `watch` serves it; its port."""
    bound = bound_socket(port)
    server = None
    page = page_app(watched, is_over=lambda: server.should_exit)

    async def elsewhere(scope, receive, send):
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(Guard(WithPage(elsewhere, page), KEY), log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    with closing(bound):
        try:
            until = time.monotonic() + 20
            while not server.started and time.monotonic() < until:
                time.sleep(0.01)
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()

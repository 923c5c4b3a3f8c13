"""Events of real detectors, filled while the run goes on and from the catalog."""

import numpy as np
import pytest

from bluesky_filestore import CatalogWriter, documents, fill, sim
from bluesky_filestore.sim import pattern


@pytest.fixture
def detector(ioc, request):
    """A simulated detector of some kind, whose documents are of some kind."""
    kind, asset_docs = request.param
    made = getattr(sim, kind)(
        ioc.prefix, name="det", write_path_template=f"{ioc.directory}/%Y", root=ioc.directory, num_images=2,
        asset_docs=asset_docs,
    )  # fmt: skip
    made.wait_for_connection(timeout=10)
    yield made
    made.destroy()


KINDS = [(kind, docs) for kind in ("SimDetectorHDF5", "SimDetectorTIFF") for docs in ("datum", "stream")]


def check(filled):
    """Each event has the two frames that were taken for it, and no other has."""
    arrays = [doc["data"]["det_image"] for name, doc in filled if name == "event"]
    assert [array.shape[0] for array in arrays] == [2, 2, 2]
    frames = np.concatenate(arrays)
    numbers = [pattern.number(frame) for frame in frames]
    assert np.diff(numbers).tolist() == [1] * 5
    for number, frame in zip(numbers, frames, strict=True):
        np.testing.assert_array_equal(frame, pattern.frame(number, frame.shape, frame.dtype))


@pytest.mark.parametrize("detector", KINDS, indirect=True)
def test_detectors(detector, run_engine, catalog):
    """The documents of the RunEngine, and those that the catalog gives back, are filled alike."""
    from bluesky.plans import count

    received = []
    run_engine.subscribe(lambda name, doc: received.append((name, doc)))
    with CatalogWriter(catalog.client) as writer:
        run_engine.subscribe(writer)
        (uid,) = run_engine(count([detector], num=3))
        writer.flush(timeout=30)
    check(list(fill(received)))
    check(list(fill(documents(catalog.client[uid]))))
    check([(name, doc) for name, doc in _computed(fill(received, lazy=True))])


def _computed(filled):
    for name, doc in filled:
        if name == "event":
            yield name, {**doc, "data": {"det_image": doc["data"]["det_image"].compute()}}


@pytest.mark.parametrize("detector", [("SimDetectorTIFF", "datum")], indirect=True)
def test_while_the_run_goes_on(detector, run_engine):
    """Files that are closed frame by frame are read as soon as the event is there."""
    from bluesky.plans import count

    came, seen = [], []

    def receive(name, doc):
        came.append((name, doc))
        if name == "event":
            *_, (_, last) = fill(list(came), patience=10)
            seen.append((len(came), last))

    run_engine.subscribe(receive)
    run_engine(count([detector], num=3))
    check([("event", event) for _, event in seen])

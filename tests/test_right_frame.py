"""Row i of every external array belongs to row i of its stream's event table, for any legal stream of documents."""

import itertools
import os

import numpy as np
import pytest
from document_streams import build, cases, complete_rows, expressible
from hypothesis import HealthCheck, event, given, note, settings

from bluesky_filestore import CatalogWriter

numbers = itertools.count()
# A nightly run asks for thousands.
EXAMPLES = int(os.environ.get("RIGHT_FRAME_EXAMPLES", "60"))


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A stock Tiled server, with nothing of ours in it."""
    from tiled.client import from_uri
    from tiled.server import SimpleTiledServer

    data = tmp_path_factory.mktemp("stock data")
    with SimpleTiledServer(tmp_path_factory.mktemp("stock"), readable_storage=[data]) as server:
        client = from_uri(server.uri)
        yield client, data
        client.context.close()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@pytest.mark.timeout(max(120, 4 * EXAMPLES))
@given(case=cases())
def test_every_frame_belongs_to_its_event(stock, case):
    """What is registered is right, what is not registered is said, and a stock server reads it."""
    client, data = stock
    built = build(case, data / str(next(numbers)))
    note("\n".join(f"{name} {doc}" for name, doc in built.documents))
    with CatalogWriter(client) as writer:
        for name, doc in built.documents:
            writer(name, doc)
    assert writer.status().problems == ()
    run = client[built.uid]
    said = run.metadata.get("filestore", {})
    for stream, rows in built.rows.items():
        node = run[stream]
        assert node["seq_num"].read().tolist() == [seq_num for seq_num, _ in rows]
        assert node["motor"].read().tolist() == [motor for _, motor in rows]
        for index in case.streams[stream]:
            check_array(case, built, stream, case.cameras[index], node, said)


def check_array(case, built, stream, camera, node, said):
    """One external array of a stream."""
    expected = np.stack(built.frames[stream, camera.key])
    complete = complete_rows(built, stream, camera.key)
    if camera.key not in node:
        event("refused")
        reason = said.get("refused", {}).get(stream, {}).get(camera.key)
        assert not case.stopped or reason, f"{stream}/{camera.key} is not there and nothing says why: {said}"
        assert complete == 0 or not expressible(built, camera, stream), reason
        return
    array = node[camera.key].read()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected[: len(array)])
    if case.stopped:
        assert len(array) == complete
        assert (complete == len(expected)) == (camera.key not in said.get("missing", {}).get(stream, {}))

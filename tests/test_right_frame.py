"""Row i of every external array belongs to row i of its stream's event table, for any legal stream of documents."""

import itertools

import numpy as np
import pytest
from document_streams import build, cases, complete_rows, expressible
from effort import times
from hypothesis import HealthCheck, event, given, note, settings

from bluesky_filestore import CatalogWriter

numbers = itertools.count()
# For each server.
EXAMPLES = times(10)


@pytest.fixture(scope="module", params=["stock", "ours"])
def place(request):
    """A client, the directory that its server can read, and whether the server has our adapters."""
    if request.param == "stock":
        return (*request.getfixturevalue("stock"), False)
    return request.getfixturevalue("catalog").client, request.getfixturevalue("data_directory") / "right frame", True


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@pytest.mark.timeout(max(600, 4 * EXAMPLES))
@given(case=cases())
def test_every_frame_belongs_to_its_event(place, case):
    """What is registered is right, what is not registered is said, and the server reads it with the stock client."""
    client, data, ours = place
    number = next(numbers)
    built = build(case, data / str(number))
    note("\n".join(f"{name} {doc}" for name, doc in built.documents))
    # With a view of them, a stock server addresses any rows, too.
    views = data / "views" if number % 2 and not ours else None
    with CatalogWriter(client, settle=0.2, views=views) as writer:
        for name, doc in built.documents:
            writer(name, doc)
    assert writer.status().problems == ()
    run = client[built.uid]
    said = run.metadata.get("filestore", {})
    for stream, rows in built.rows.items():
        # The special client of a stream asks for much more than that.
        node = run[stream].base
        table = node["internal"].read(["seq_num", "motor"])
        assert list(zip(table["seq_num"], table["motor"], strict=True)) == rows
        for index in case.streams[stream]:
            check_array(case, built, stream, case.cameras[index], node, said, ours or views is not None)


def check_array(case, built, stream, camera, node, said, ours):
    """One external array of a stream: our server addresses any rows, and a stock one with views."""
    expected = np.stack(built.frames[stream, camera.key])
    complete = complete_rows(built, stream, camera.key)
    if camera.key not in node:
        event("refused")
        reason = said.get("refused", {}).get(stream, {}).get(camera.key)
        assert not case.stopped or reason, f"{stream}/{camera.key} is not there and nothing says why: {said}"
        assert complete == 0 or not (ours or expressible(built, camera, stream)), reason
        return
    array = node[camera.key].read()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected[: len(array)])
    if case.stopped:
        assert len(array) == complete
        assert (complete == len(expected)) == (camera.key not in said.get("missing", {}).get(stream, {}))

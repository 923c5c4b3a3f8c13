"""The frame map."""

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_filestore.model.frame_map import Assets, FrameMap, Rows, Source, Span, StreamRange
from bluesky_filestore.model.paths import pure_path


def source(uid):
    """A source that is known by its uid alone."""
    return Source(uid, "application/x-hdf5", pure_path(f"/data/{uid}.h5", "posix"))


@pytest.fixture
def assets():
    """Two resources, with a hundred datums each."""
    known = Assets()
    for uid in ("a", "b"):
        known.add_source(source(uid))
        for index in range(100):
            known.add_datum(f"{uid}/{index}", uid, index)
    return known


def rows_for(assets, *datum_ids, stream="primary", key="image"):
    """The rows of one array after these events."""
    frames = FrameMap(assets)
    for number, datum_id in enumerate(datum_ids):
        frames.add_event(stream, number + 1, {key: datum_id})
    return frames.rows(stream, key)


def listed(rows):
    """The rows one by one."""
    return [(span.source, index) for span in rows.spans for index in span.indices()]


@pytest.mark.parametrize(
    ("indices", "spans"),
    [
        ([0, 1, 2, 3], [Span("a", 0, 4)]),
        ([4], [Span("a", 4, 1)]),
        ([1, 3, 5], [Span("a", 1, 3, 2)]),
        ([3, 2, 1, 0], [Span("a", 3, 4, -1)]),
        ([2, 2, 2], [Span("a", 2, 3, 0)]),
        ([0, 1, 3, 4], [Span("a", 0, 2), Span("a", 3, 2)]),
    ],
)
def test_regular_rows_are_one_span(assets, indices, spans):
    """Rows at a constant distance cost one span, however many they are."""
    assert list(rows_for(assets, *(f"a/{index}" for index in indices)).spans) == spans


def test_interleaved_streams_share_a_resource(assets):
    """Each stream has the rows that its own events name."""
    frames = FrameMap(assets)
    for index, stream in enumerate(["light", "dark", "dark", "light"]):
        frames.add_event(stream, index + 1, {"image": f"a/{index}"})
    assert listed(frames.rows("light", "image")) == [("a", 0), ("a", 3)]
    assert listed(frames.rows("dark", "image")) == [("a", 1), ("a", 2)]
    assert frames.arrays() == [("light", "image"), ("dark", "image")]


def test_staged_again(assets):
    """Rows go on in the next resource."""
    rows = rows_for(assets, "a/0", "a/1", "b/0", "b/1")
    assert rows.spans == (Span("a", 0, 2), Span("b", 0, 2))
    assert (rows.count, rows.expected, rows.problem) == (4, 4, "")


def test_datum_after_its_event():
    """Rows wait for the datum of the first of them, and go on when it comes."""
    assets = Assets()
    assets.add_source(source("a"))
    frames = FrameMap(assets)
    for number in range(3):
        frames.add_event("primary", number + 1, {"image": f"a/{number}"})
    assets.add_datum("a/1", "a", 1)
    assert frames.rows("primary", "image").count == 0
    assert "datum 'a/0' of event 0 was never announced" in frames.rows("primary", "image").problem
    assets.add_datum("a/0", "a", 0)
    assert frames.rows("primary", "image").count == 2
    assets.add_datum("a/2", "a", 2)
    assert frames.rows("primary", "image").spans == (Span("a", 0, 3),)


def test_event_without_a_datum(assets):
    """An event that names no datum ends the rows, so that no later row can slip into its place."""
    frames = FrameMap(assets)
    frames.add_event("primary", 1, {"image": "a/0"})
    frames.add_event("primary", 2, {})
    frames.add_event("primary", 3, {"image": "a/1"})
    rows = frames.rows("primary", "image")
    assert (rows.count, rows.expected) == (1, 3)
    assert rows.problem == "event 1 of the stream has no datum for it"


def test_datum_read_twice(assets):
    """A detector that is read again without a trigger names the same datum."""
    assert listed(rows_for(assets, "a/0", "a/1", "a/1")) == [("a", 0), ("a", 1), ("a", 1)]


def test_unusable_resource():
    """Why a resource cannot be followed is why its rows are not there."""
    assets = Assets()
    assets.add_datum("x/0", "x", 0)
    assets.add_unusable("x", "spec 'X' is not known")
    assert rows_for(assets, "x/0").problem == "spec 'X' is not known"


def test_datum_of_several_indices(assets):
    """A datum may stand for several indices, which are one event's."""
    assets.add_datum("many", "a", 4, 3)
    assert rows_for(assets, "many").spans == (Span("a", 4, 1, 3, 3),)


def test_used_datums_are_forgotten_in_the_end():
    """The memory of a long run does not grow with its datums."""
    assets = Assets()
    assets.add_source(source("a"))
    frames = FrameMap(assets)
    for index in range(30_000):
        assets.add_datum(f"a/{index}", "a", index)
        frames.add_event("primary", index + 1, {"image": f"a/{index}"})
    assert frames.rows("primary", "image").spans == (Span("a", 0, 30_000),)
    assert len(assets._used) == 10_000


def ranges_for(ranges, seq_nums):
    """The rows after these stream_datums and events."""
    frames = FrameMap(Assets())
    for start, seq_num, count in ranges:
        frames.add_range("primary", "image", StreamRange("a", start, seq_num, count))
    for seq_num in seq_nums:
        frames.add_event("primary", seq_num, {})
    return frames.rows("primary", "image")


def test_ranges_follow_the_events():
    """One range, or one for each event, is the same."""
    assert ranges_for([(0, 1, 3)], [1, 2, 3]).spans == (Span("a", 0, 3),)
    assert ranges_for([(0, 1, 1), (1, 2, 1), (2, 3, 1)], [1, 2, 3]).spans == (Span("a", 0, 3),)


def test_ranges_ahead_of_the_events_wait():
    """Frames that no event speaks of yet are no rows yet."""
    rows = ranges_for([(0, 1, 5)], [1, 2])
    assert (rows.spans, rows.count, rows.problem) == ((Span("a", 0, 2),), 2, "")


_SERIES = {"data_key": "image", "template": "/data/%d.tiff"}


@pytest.mark.parametrize(
    ("documented", "declared", "frame", "count"),
    [
        # What handlers of a Resource go by, whatever the descriptor says.
        ({"frames_per_index": 3}, (1, 4, 6), (4, 6), 3),
        ({"frames_per_index": 3}, (7, 4, 6), (4, 6), 3),
        ({}, (7, 4, 6), (4, 6), 7),
        ({}, None, (4, 6), 1),
        # A StreamResource of ophyd-async, whose descriptor has the shape of a frame or of the event.
        ({"data_key": "image", "frames_per_index": 5}, (1, 4, 6), (4, 6), 5),
        ({"data_key": "image", "frames_per_index": 5}, (4, 6), (4, 6), 5),
        ({"data_key": "image", "frames_per_index": 5}, (5, 4, 6), (4, 6), 5),
        ({"data_key": "image", "frames_per_index": 5}, (7, 4, 6), (4, 6), 7),
        ({"data_key": "image", "frames_per_index": 5}, None, (4, 6), 5),
        # A series: how many files an event has, each of which may hold several frames.
        ({"files_per_index": 2, **_SERIES}, (6, 4, 6), (4, 6), 2),
        ({"parameters": {"chunk_shape": (2, 4, 6)}, **_SERIES}, (6, 4, 6), (2, 4, 6), 3),
        ({"parameters": {"chunk_shape": (1, 4, 6)}, **_SERIES}, (6, 4, 6), (4, 6), 6),
        ({"parameters": {"chunk_shape": (4, 4, 6)}, **_SERIES}, (6, 4, 6), (4, 6), 6),
        ({"parameters": {"chunk_shape": (2, 4, 3)}, **_SERIES}, (6, 4, 6), (4, 6), 6),
        ({"parameters": {"chunk_shape": (2, 4, 6)}, "data_key": "image"}, (6, 4, 6), (4, 6), 6),
    ],
)
def test_frames_of_an_event(documented, declared, frame, count):
    """How many frames, or files, an event has, by whatever says so."""
    one = replace(source("a"), **documented)
    assert one.frames_per_event(declared, frame) == count
    assert one.is_joined == (one.template is not None and one.data_key == "image")


def test_the_document_of_a_datum(assets):
    """It is had back before and after it was used, of the resource that was announced, or of that it is a part of."""
    assets.add_source(replace(source("part"), resource="whole"))
    assets.add_datum("part/1", "part", 1, kwargs={"point_number": 1})
    for _ in range(2):
        assert assets.datum_document("a/3") == {"datum_id": "a/3", "datum_kwargs": {}, "resource": "a"}
        assert assets.datum_document("part/1") == {
            "datum_id": "part/1",
            "datum_kwargs": {"point_number": 1},
            "resource": "whole",
        }
        assets.datum("a/3")
        assets.datum("part/1")
    assert assets.datum_document("a/1000") is None
    assets.keep_document("datum", "odd", {"datum_id": "odd"})
    assets.keep_document("resource", "a", {"uid": "a"})
    assert assets.datum_document("odd") == {"datum_id": "odd"}
    assert assets.datum_document("a") is None


def told(*story, ask=lambda: False):
    """The rows after stream_datums and events in this order, asked for in between whenever `ask` says so."""
    frames, seen = FrameMap(Assets()), []
    frames.add_range("primary", "image", StreamRange("a", 0, 0, 0))
    for number, one in enumerate(story):
        if isinstance(one, tuple):
            frames.add_range("primary", "image", StreamRange("a", *one))
        else:
            frames.add_event("primary", one, {})
        if any(isinstance(before, int) for before in story[: number + 1]) and ask():
            seen.append((number, listed(frames.rows("primary", "image"))))
    frames.end()
    rows = frames.rows("primary", "image")
    for number, before in seen:
        assert listed(rows)[: len(before)] == before, f"rows changed that were given out after document {number}"
    return rows, frames.untaken("primary", "image")


A, B = (1, 2, 1), (2, 2, 1)
"""The frames of two triggers for the second point."""


@pytest.mark.parametrize(
    ("story", "indices", "untaken", "problem"),
    [
        # As bluesky tells it: the plan is rewound after the event, or between the trigger and its event.
        (((0, 1, 1), 1, A, 2, B, 2, (3, 3, 1), 3), [0, 1, 2, 3], [], ""),
        (((0, 1, 1), 1, A, B, 2, (3, 3, 1), 3), [0, 2, 3], [A], ""),
        (((0, 1, 1), 1, A, B, (3, 2, 1), 2), [0, 3], [A, B], ""),
        (((0, 1, 1), 1, A, 2, B, (3, 2, 1), 2), [0, 1, 3], [B], ""),
        # Told of ahead, for many events; rewound, and told of again.
        (((0, 1, 10), 1, 2, 3, (10, 2, 10), 2, 3, 4, 5), [0, 1, 2, 10, 11, 12, 13], None, ""),
        (((0, 1, 4), (4, 3, 4), 1, 2, 3, 4, 5), [0, 1, 4, 5, 6], [(2, 3, 2), (7, 6, 1)], ""),
        (((0, 1, 3), (3, 1, 1), 1, 2, 3), [3, 1, 2], [(0, 1, 1)], ""),
        # Told of ahead, and taken from the middle: what lies on either side is left for its own.
        (((0, 1, 5), 3, 1, 5), [2, 0, 4], [(1, 2, 1), (3, 4, 1)], ""),
        # Read again without a trigger: whose frame that is, nobody says.
        (((0, 1, 1), 1, A, 2, 2, (3, 3, 1), 3), [0, 1], None, "no stream_datum covers event 2 (seq_num 2)"),
        (((0, 1, 1), 1, A, B, 2, 2), [0, 2], [A], "no stream_datum covers event 2 (seq_num 2)"),
        # Late: after their events.
        ((1, 2, 3, (0, 1, 3)), [0, 1, 2], [], ""),
        ((1, 2, 2, 3, (0, 1, 1), A, B, (3, 3, 1)), [0, 1, 2, 3], [], ""),
        ((1, (0, 1, 1), A, 2, 3, (3, 3, 1)), [0, 1, 3], [], ""),
        (((0, 1, 1), 1, A, 2, 2, B), [0, 1, 2], [], ""),
        # Late, and rewound: both events may have lost their frame.
        (((0, 1, 1), 1, 2, A, 2, B), [0], [B], "two events have seq_num 2"),
        (((0, 1, 1), 1, 2, 3, 4, A, 2, (3, 3, 2)), [0], None, "two events have seq_num 2"),
    ],
)
@pytest.mark.parametrize("asked", [False, True])
def test_ranges_belong_to_the_events_that_follow_them(story, indices, untaken, problem, asked):
    """An event gets the latest range before it; asking in between changes nothing."""
    rows, left = told(*story, ask=lambda: asked)
    assert [index for _, index in listed(rows)] == indices
    assert rows.problem.startswith(problem)
    assert bool(problem) == bool(rows.problem)
    if untaken is not None:
        numbers = {(one.start + place, one.seq_num + place) for one in left for place in range(one.count)}
        assert numbers == {(start + place, seq + place) for start, seq, count in untaken for place in range(count)}


@given(st.lists(st.one_of(st.integers(1, 6), st.tuples(st.integers(1, 6), st.integers(1, 4))), max_size=25), st.data())
def test_when_rows_are_asked_for_does_not_matter(story, data):
    """Of any order of events and ranges, the same rows come out, and are the latest range before each event."""
    story = [one if isinstance(one, int) else (100 * place, *one) for place, one in enumerate(story)]
    rows, _ = told(*story)
    assert told(*story, ask=lambda: data.draw(st.booleans()))[0] == rows
    events = [place for place, one in enumerate(story) if isinstance(one, int)]
    taken = set()
    for place, (_, index) in zip(events, listed(rows), strict=False):
        ranges = [one for one in story[:place] if isinstance(one, tuple) and 0 <= story[place] - one[1] < one[2]]
        latest = ranges[-1][0] + story[place] - ranges[-1][1] if ranges else None
        assert index not in taken
        if latest is not None and latest not in taken:
            assert index == latest
        else:
            assert index // 100 > place, "neither the latest range before it nor one that came later"
        taken.add(index)


def test_hole_in_the_ranges():
    """An event without a frame ends the rows."""
    rows = ranges_for([(0, 1, 1), (1, 3, 1)], [1, 2, 3])
    assert rows.count == 1
    assert rows.problem == "no stream_datum covers event 1 (seq_num 2)"


def test_frames_that_no_event_speaks_of_are_left_out():
    """The frames of a trigger whose event was never saved belong to no row."""
    assert listed(ranges_for([(0, 1, 1), (1, 2, 1), (2, 2, 1)], [1, 2])) == [("a", 0), ("a", 2)]


def test_fly_scan_without_events():
    """Without events the ranges' own order is that of the rows."""
    rows = ranges_for([(0, 1, 4), (4, 5, 2)], [])
    assert (rows.spans, rows.count, rows.expected) == ((Span("a", 0, 6),), 6, 6)


def test_fly_scan_that_has_nothing_yet():
    """An array of which nothing was documented lacks nothing until the run is over."""
    frames = FrameMap(Assets())
    frames.add_range("primary", "image", StreamRange("a", 0, 1, 0))
    assert frames.rows("primary", "image") == Rows((), 0, 0)
    frames.add_range("primary", "other", StreamRange("b", 0, 1, 2))
    assert frames.rows("primary", "image") == Rows((), 0, 0)
    frames.end()
    rows = frames.rows("primary", "image")
    assert (rows.count, rows.expected) == (0, 2)
    assert rows.problem == "its stream_datums speak of 0 of the 2 points of its stream"


@pytest.mark.parametrize(
    ("ranges", "numbers"),
    [
        ([(0, 1, 4), (4, 6, 2)], [(1, 4), (6, 2)]),
        ([(0, 1, 4), (4, 1, 4), (8, 5, 4)], [(1, 4), (1, 8)]),
        ([(7, 5, 2), (9, 7, 1)], [(5, 3)]),
        ([(0, 1, 2), (2, 3, 0), (2, 2, 2)], [(1, 2), (2, 2)]),
    ],
)
def test_fly_scan_whose_numbers_jump(ranges, numbers):
    """Without events each point that was documented is a row, as often as the plan went back to it."""
    frames = FrameMap(Assets())
    for start, seq_num, count in ranges:
        frames.add_range("primary", "image", StreamRange("a", start, seq_num, count))
    rows = frames.rows("primary", "image")
    indices = [start + place for start, _, count in ranges for place in range(count)]
    assert [index for _, index in listed(rows)] == indices
    assert (rows.count, rows.expected, rows.problem) == (len(indices), len(indices), "")
    assert frames.numbers_without_events("primary") == numbers
    frames.add_event("primary", 1, {})
    assert frames.numbers_without_events("primary") == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 4)), max_size=20))
def test_arrays_without_events_share_their_rows(documented):
    """Row by row all arrays of a stream are of the same sequence number; one that is not ends before that row."""
    frames, said, shared = FrameMap(Assets()), {}, []
    for key, seq_num, count in documented:
        frames.add_range("primary", key, StreamRange(key, 10 * len(said.get(key, ())), seq_num, count))
        for number in range(seq_num, seq_num + count):
            rows = said.setdefault(key, [])
            if None not in rows and len(rows) == len(shared):
                shared.append(number)
            rows.append(number if None not in rows and shared[len(rows)] == number else None)
    assert [first + after for first, count in frames.numbers_without_events("primary") for after in range(count)] == (
        shared
    )
    for key, rows in said.items():
        known = frames.rows("primary", key)
        good = rows.index(None) if None in rows else len(rows)
        assert (known.count, known.expected, bool(known.problem)) == (good, len(rows), None in rows)
        assert sum(span.count for span in known.spans) == good
    frames.end()
    for key, rows in said.items():
        known = frames.rows("primary", key)
        # In the end one that is behind the others lacks rows.
        assert known.expected == max(len(rows), len(shared))
        assert bool(known.problem) == (known.count < known.expected)


@given(
    st.lists(st.tuples(st.sampled_from(["light", "dark"]), st.sampled_from(["a", "b"]), st.integers(0, 9)), max_size=40)
)
def test_any_order_is_kept(events):
    """The map is what a list of every event's own datum would be."""
    assets, expected = Assets(), defaultdict(list)
    frames = FrameMap(assets)
    for uid in ("a", "b"):
        assets.add_source(source(uid))
    for number, (stream, uid, index) in enumerate(events):
        assets.add_datum(f"{number}", uid, index)
        frames.add_event(stream, number + 1, {"image": f"{number}"})
        expected[stream].append((uid, index))
    for stream, rows in expected.items():
        assert listed(frames.rows(stream, "image")) == rows

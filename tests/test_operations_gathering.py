"""What is said of a stream whose events do not come in the order of their numbers."""

import pytest

from bluesky_filestore.operations.gathering import Numbering


@pytest.mark.parametrize(
    ("numbers", "retaken", "late"),
    [
        ([1, 2, 3], 0, 0),
        ([1, 2, 2, 3], 1, 0),
        ([1, 2, 3, 2, 3, 4], 2, 0),
        ([2, 1, 3], 0, 1),
        ([3, 1, 2, 1], 1, 2),
        ([5, 6], 0, 0),
        ([1, 10**9, 2], 1, 0),
    ],
)
def test_numbering(numbers, retaken, late):
    """A number that came before was taken again; one that was passed over came late."""
    numbering = Numbering()
    for number in numbers:
        numbering.add(number)
    assert (numbering.retaken, numbering.late) == (retaken, late)
    notes = numbering.notes("primary")
    assert ["taken again" in note for note in notes] == [True] * bool(retaken) + [False] * bool(late)
    assert not late or f"{late} events of stream 'primary' came after later ones" in notes[-1]

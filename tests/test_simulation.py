"""Histories that seeds make: nothing is lost, doubled or held up, whatever befalls them."""

from itertools import islice

import pytest
from effort import times
from simulation.documents import make_files
from simulation.many import kinds_of, lived, told
from simulation.mends import MENDS

HISTORIES, AT_ONCE = times(1000), 25
AT_MOST, MOST_SEEDS = 100, 10_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Where the images are that documents refer to."""
    directory = tmp_path_factory.mktemp("files")
    make_files(directory)
    return directory


@pytest.mark.parametrize("first", range(0, HISTORIES, AT_ONCE))
def test_histories(tmp_path, files, first):
    """Each ends as was promised; one that does not is told from its beginning to its end."""
    for seed in range(first, first + AT_ONCE):
        history, found = lived(seed, tmp_path / str(seed), files)
        assert not found, f"seed {seed}\n{told(history, found)}"


@pytest.mark.parametrize("seed", [202386, 15886, 303725, 304563, 314193, 400591, 402660, 411102])
def test_histories_that_found_something(tmp_path, files, seed):
    """Those that were found among many thousands."""
    history, found = lived(seed, tmp_path / "it", files)
    assert not found, told(history, found)


def test_a_seed_is_a_history(tmp_path, files):
    """The same happens each time, to the microsecond."""
    first, second = (lived(14, tmp_path / name, files)[0] for name in "ab")
    assert len(first.world.happened) > 30
    assert first.world.happened == second.world.happened


@pytest.mark.parametrize("name", [name for name, mend in MENDS.items() if mend.seed is not None])
def test_what_is_taken_out_is_missed(tmp_path, files, name):
    """Without a mend its fault is found, in the history that is known for it, or one of the next if it has changed."""
    mend = MENDS[name]
    others = (seed for seed in range(MOST_SEEDS) if mend.may_be_found(kinds_of(seed)))
    with mend.taken_out():
        for number, seed in enumerate([mend.seed, *islice(others, AT_MOST)]):
            _, found = lived(seed, tmp_path / str(number), files)
            if any(mend.words in words for words in found):
                return
    pytest.fail(f"not found; `python -m tests.simulation --without '{name}' --histories 20000` may find a seed for it")

"""Histories that seeds make: nothing is lost, doubled or held up, whatever befalls them."""

import pytest
from simulation.documents import make_files
from simulation.many import lived, told

HISTORIES, AT_ONCE = 600, 50


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


def test_a_seed_is_a_history(tmp_path, files):
    """The same happens each time, to the microsecond."""
    first, second = (lived(14, tmp_path / name, files)[0] for name in "ab")
    assert len(first.world.happened) > 30
    assert first.world.happened == second.world.happened

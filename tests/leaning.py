"""What tests of leanings share."""

import pytest

from bluesky_filestore import leanings


@pytest.fixture
def logged_anew(monkeypatch):
    """Nothing has been logged yet of what is logged once a process."""
    monkeypatch.setattr(leanings, "_logged", set())

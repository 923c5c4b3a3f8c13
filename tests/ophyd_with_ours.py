"""A pytest plugin: ophyd's own tests of areaDetector with our mixins in place of its own, on a simulated IOC.

``FILE_STORES`` says whose mixins, ``AD_PREFIX`` where the IOC is; without it the tests that need one are left out.
"""

import os
from typing import Any

import pytest
from ophyd.areadetector import filestore_mixins, trigger_mixins

import bluesky_filestore
from bluesky_filestore.mixins import plugin


class _TheirClock:
    """The tests set the clock of ophyd's module; ours follows."""

    @staticmethod
    def now() -> Any:
        """The time that the tests have set."""
        return filestore_mixins.datetime.now()


def pytest_configure() -> None:
    """Replace the classes before the tests import them."""
    if os.environ["FILE_STORES"] != "ours":
        return
    plugin.datetime = _TheirClock  # type: ignore[attr-defined,misc]
    for module in (filestore_mixins, trigger_mixins):
        for name in set(vars(module)) & set(bluesky_filestore.__all__) - {"__version__"}:
            setattr(module, name, getattr(bluesky_filestore, name))


def pytest_collection_modifyitems(session: pytest.Session, items: list[Any]) -> None:
    """Put our prefix in place of ophyd's, which asks for IOCs that are not there."""
    for item in items:
        infos = getattr(item, "_fixtureinfo", None)
        if infos is not None and "ad_prefix" in infos.name2fixturedefs:
            definition = infos.name2fixturedefs["ad_prefix"][-1]
            definition.func = lambda: os.environ["AD_PREFIX"]

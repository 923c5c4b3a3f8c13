"""ophyd's own tests of its file stores, with our classes in place of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ophyd.tests
import pytest

from bluesky_filestore.sim import client_environment

THEIR_TESTS = Path(ophyd.tests.__file__).parent / "test_areadetector.py"
WITHOUT_IOC = "file_store or relative_root or ndderived or ADTriggerStatus or make_data_key or stubbing"
WITH_IOC = "fstiff"


def outcomes(ioc, stores, choice):
    """What became of each test, by its name."""
    environment = {
        **os.environ,
        **client_environment(ioc.port),
        "AD_PREFIX": ioc.prefix,
        "FILE_STORES": stores,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "ophyd_with_ours",
        "-p",
        "no:cacheprovider",
        "-rA",
        "-q",
        "--tb=line",
    ]
    command += [
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(THEIR_TESTS.parent),
        "-k",
        choice,
        str(THEIR_TESTS),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) \S*?::(\S+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {name: outcome for outcome, name in found}


# Their tests wait for a process a record: half a minute on a quiet machine.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("choice", [WITHOUT_IOC, WITH_IOC], ids=["without an IOC", "with an IOC"])
def test_none_fails_that_passes_with_stock(ioc, choice):
    """Whatever passes with ophyd's mixins passes with ours."""
    ours, good = outcomes(ioc, "ours", choice), ("PASSED", "XPASS")
    if any(outcome not in good for outcome in ours.values()):
        stock = outcomes(ioc, "stock", choice)
        assert stock.keys() == ours.keys()
        assert [name for name in stock if stock[name] in good and ours[name] not in good] == []
    assert sum(outcome in good for outcome in ours.values()) > 1

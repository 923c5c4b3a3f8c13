"""Whether a catalog is there, as far as its answers tell."""

import threading
from types import SimpleNamespace

import pytest

from bluesky_filestore.delivery import health as health_module
from bluesky_filestore.delivery.health import CatalogHealth, Listener
from bluesky_filestore.errors import CatalogFaultError, CatalogUnreachableError

STEP = 0.05


class Catalog:
    """One that answers after so many seconds of the test's clock, or hangs until the test is over."""

    def __init__(self, clock):
        self.clock, self.takes, self.hangs = clock, 0.01, False
        self.over, self.asked = threading.Event(), 0
        self.error = None

    def check(self):
        """Answer."""
        self.asked += 1
        if self.hangs:
            self.over.wait(30)
        if self.error is not None:
            raise self.error
        self.clock.now += self.takes


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def catalog(clock):
    """A catalog."""
    catalog = Catalog(clock)
    yield catalog
    catalog.over.set()


def seconds_until_given_up(health, clock, *, most=20.0, delivers=True):
    """For how long somebody listens; None if to the end."""
    began, listener = clock.now, Listener(health)
    while clock.now - began < most:
        clock.now += STEP
        if listener.hears_nothing(delivers=delivers):
            return clock.now - began
        question = health._question
        if question is not None and not health._catalog.hangs:
            question.join()
    return None


@pytest.mark.parametrize(
    ("took", "least", "most"),
    [
        ([], 1.0, 1.2),
        ([0.002] * 2, 1.0, 1.2),
        ([0.002] * 3, 0.15, 0.25),
        ([0.002] * 8, 0.15, 0.25),
        ([5.0, *[0.002] * 7], 0.15, 0.25),
        ([*[0.4] * 3, 5.0], 2.3, 2.6),
    ],
    ids=["never", "hardly", "quick", "usually quick", "connected to first", "slow"],
)
def test_hangs(clock, catalog, took, least, most):
    """A catalog that hangs is waited for according to what it usually takes; one long answer makes no difference."""
    health = CatalogHealth(catalog)
    for catalog.takes in took:
        health.check()
    catalog.hangs = True
    with health.asking():
        assert least <= seconds_until_given_up(health, clock) <= most
    assert catalog.asked == len(took) + 1


def test_slow_request(clock, catalog):
    """While questions are answered a request may take as long as it likes; the catalog is not asked all the time."""
    health = CatalogHealth(catalog)
    with health.asking():
        assert seconds_until_given_up(health, clock) is None
    assert 10 < catalog.asked < 60


def test_at_something_else(clock, catalog):
    """What the delivery does beside asking is no silence of the catalog; what another process does may be."""
    health = CatalogHealth(catalog)
    for _ in range(3):
        health.check()
    catalog.hangs = True
    assert seconds_until_given_up(health, clock) is None
    assert seconds_until_given_up(health, clock, delivers=False) < 0.5


def test_standing_still(clock, catalog):
    """A process that was stopped for a minute has not listened for a minute."""
    health = CatalogHealth(catalog)
    for _ in range(3):
        health.check()
    catalog.hangs = True
    with health.asking():
        listener = Listener(health)
        clock.now += 60.0
        assert not listener.hears_nothing(delivers=True)
        assert seconds_until_given_up(health, clock) < 0.5


@pytest.mark.parametrize("meanwhile", [False, True])
def test_error(clock, catalog, meanwhile):
    """A question that fails is said, but not if the delivery has got an answer meanwhile."""
    noticed = []
    health = CatalogHealth(catalog, noticed.append)
    catalog.hangs, catalog.error = True, CatalogUnreachableError("away")
    health.ask_aside()
    clock.now += 1.0
    if meanwhile:
        with pytest.raises(CatalogFaultError), health.asking():
            raise CatalogFaultError("however bad it was")
    with pytest.raises(CatalogUnreachableError), health.asking():
        raise CatalogUnreachableError("no answer")
    catalog.over.set()
    health._question.join()
    assert noticed == ([] if meanwhile else [catalog.error])


def test_refused_at_once(clock, catalog):
    """A catalog that is away is asked now and then, however often its questions wake whoever waits."""
    health = CatalogHealth(catalog)
    catalog.error = CatalogUnreachableError("Connection refused")
    with health.asking():
        listener = Listener(health)
        for _ in range(1000):
            clock.now += 0.001
            listener.hears_nothing(delivers=True)
            if health._question is not None:
                health._question.join()
    assert 10 < catalog.asked <= 20

"""What a catalog shall still do for one run, and what becomes of it where the catalog fails at it.

A queue of operations is in one of three states:

=============  =================================  ====================================================================
state          an operation                       next
=============  =================================  ====================================================================
going          succeeds, or is refused            going
going          fails, the catalog answers others  waiting
waiting        is due and succeeds                going
waiting        is due and fails                   waiting for twice as long; after `tries` and `patience` it is given up
given up       the next ones succeed              stays given up: the run is not complete
given up       the next ones fail                 each is tried once more, without patience
given up       the last one, the end, fails       is tried once a minute for as long as the process lives
=============  =================================  ====================================================================

A catalog that is away, where nothing or an error answers whatever is asked, changes no state: nobody's patience is used
up. Only the thread that delivers may touch it.
"""

import time
from collections import deque
from dataclasses import dataclass, field

from bluesky_filestore.errors import CatalogError
from bluesky_filestore.operations.operations import Operation

__all__ = ["CatalogHealth", "Outgoing"]

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_TRIES_WITHOUT_PATIENCE = 2
# As many runs, and nothing else: a server whose disk is full answers questions, and takes nothing.
_FAILING_RUNS = 3


@dataclass(slots=True)
class CatalogHealth:
    """Whether a catalog that answers questions takes anything, of whatever run."""

    last_success: float = field(default_factory=time.monotonic)
    """When it last carried something out, on the monotonic clock."""
    failing_since: dict[str, float] = field(default_factory=dict)
    """The runs at which it fails, by uid, and since when."""

    def succeeded(self, run: str) -> None:
        """It carried something out for a run."""
        self.last_success = time.monotonic()
        self.forget(run)

    def forget(self, run: str) -> None:
        """What failed of a run is no longer waited for."""
        self.failing_since.pop(run, None)

    def failed(self, run: str) -> bool:
        """It failed at a run; whether it does at everything, so that it is not for the runs to wait."""
        self.failing_since.setdefault(run, time.monotonic())
        return len(self.failing_since) >= _FAILING_RUNS and self.last_success < min(self.failing_since.values())


@dataclass(slots=True)
class Outgoing:
    """The operations of one run that the catalog has not carried out, in their order."""

    operations: deque[Operation] = field(default_factory=deque)
    """What is to be done; the first is the one that is tried."""
    error: CatalogError | None = None
    """Why the first one fails; None while nothing does."""
    failed_first: float = 0.0
    """When it failed for the first time, on the monotonic clock."""
    failures: int = 0
    """How often it has failed."""
    next_try: float = 0.0
    """When it may be tried again, on the monotonic clock."""
    has_given_up: bool = False
    """Whether something of the run was left out already."""
    _only_tries_to_end: bool = False

    @property
    def is_due(self) -> bool:
        """Whether there is something to be tried now."""
        return bool(self.operations) and time.monotonic() >= self.next_try

    def succeeded(self) -> None:
        """The first operation is done with."""
        self.operations.popleft()
        self.error, self.failures, self.next_try = None, 0, 0.0

    def failed(self, error: CatalogError, *, tries: int, patience: float) -> bool:
        """The catalog failed at the first operation, and answers others; whether it is to be tried again."""
        now = time.monotonic()
        if not self.failures:
            self.failed_first = now
        self.error, self.failures = error, self.failures + 1
        if self.has_given_up:
            tries, patience = min(tries, _TRIES_WITHOUT_PATIENCE), 0.0
        if self.failures >= tries and now - self.failed_first >= patience:
            return False
        self.next_try = now + min(_FIRST_WAIT * 2 ** min(self.failures, 10), _LONGEST_WAIT)
        return True

    @property
    def is_parked(self) -> bool:
        """Whether nothing but the run's end is left, which has been tried for long enough."""
        return self.has_given_up and self._only_tries_to_end

    def keep_trying(self) -> None:
        """Try the run's end, which comes last, again now and then, for as long as this process lives."""
        self.has_given_up = self._only_tries_to_end = True
        self.failures = 0
        self.next_try = time.monotonic() + _LONGEST_WAIT

    def give_up(self) -> None:
        """Leave the first operation out."""
        self.has_given_up = True
        self.succeeded()

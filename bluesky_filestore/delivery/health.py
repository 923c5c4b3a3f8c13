"""Whether a catalog is there, as far as its answers tell.

=============  =================================================  ====================================================
state          it is so when                                      whoever waits
=============  =================================================  ====================================================
answers        an answer came, to the delivery or to a question,  waits on; with nothing heard for a moment it is asked
               however bad or slow it was
silent         it was asked, and nothing was heard for several    does so no longer: `Listener.hears_nothing`
               times as long as it usually takes
takes nothing  it answers questions, and fails at three runs      does so no longer, for the delivery is in error:
               with nothing going between                         `CatalogHealth.failed`
=============  =================================================  ====================================================

The thread that delivers says with `asking` and `check` when it waits for the catalog; what it is at otherwise, such as
looking into files, is no silence of the catalog's. A thread that waits, a plan's, makes no request itself: its
`Listener` has a thread of its own ask. `_is_asked`, `_last_success` and `_failing_since` are the delivering thread's;
`_heard` and `_took` are written by whoever got an answer, and of two at once either may be kept.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bluesky_filestore.errors import CatalogError, CatalogUnreachableError
from bluesky_filestore.operations.operations import Catalog

__all__ = ["CatalogHealth", "Listener"]

_LEAST_PATIENCE, _FIRST_PATIENCE = 0.15, 1.0
_TIMES_USUAL = 6
_ASK_AFTER, _LONGEST_ASK_AFTER = 0.05, 0.5
_LONGEST_STEP = 0.05
_FEWEST, _REMEMBERED = 3, 8
# As many runs, and nothing else: a server whose disk is full answers questions, and takes nothing.
_FAILING_RUNS = 3


class CatalogHealth:
    """What the answers of a catalog say of it.

    Parameters
    ----------
    catalog : Catalog
        The catalog.
    notice : callable, optional
        Called with the error if a question of a `Listener` failed, and nothing else was answered meanwhile; from
        another thread.
    """

    def __init__(self, catalog: Catalog, notice: Callable[[CatalogError], None] = lambda _: None) -> None:
        self._catalog, self._notice = catalog, notice
        self._last_success = time.monotonic()
        self._failing_since: dict[str, float] = {}
        self._is_asked = False
        self._heard = 0.0
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._question: threading.Thread | None = None
        self._next_question = 0.0

    def succeeded(self, run: str) -> None:
        """It carried something out for a run."""
        self._last_success = time.monotonic()
        self.forget(run)

    def forget(self, run: str) -> None:
        """What failed of a run is no longer waited for."""
        self._failing_since.pop(run, None)

    def failed(self, run: str) -> bool:
        """It failed at a run; whether it does at everything, so that it is not for the runs to wait."""
        self._failing_since.setdefault(run, time.monotonic())
        return len(self._failing_since) >= _FAILING_RUNS and self._last_success < min(self._failing_since.values())

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The delivery waits for an answer of the catalog inside."""
        self._is_asked, is_answer = True, True
        try:
            yield
        except CatalogUnreachableError:
            is_answer = False
            raise
        finally:
            self._is_asked = False
            if is_answer:
                self._heard = time.monotonic()

    def check(self) -> None:
        """Ask, for the delivery, whether the catalog answers; raises as its own `check` does."""
        with self.asking():
            self._ask()

    @property
    def is_asked(self) -> bool:
        """Whether the delivery waits for an answer just now."""
        return self._is_asked

    @property
    def heard(self) -> float:
        """When the last answer came, on the monotonic clock."""
        return self._heard

    @property
    def patience(self) -> float:
        """For how many seconds after a question nothing may be heard, by what the catalog usually takes to answer."""
        longest = sorted(self._took)[-2:]
        # But for the longest, when it may have been connected to.
        usual = _TIMES_USUAL * longest[0] if longest else 0.0
        return max(usual, _LEAST_PATIENCE if len(self._took) >= _FEWEST else _FIRST_PATIENCE)

    def ask_aside(self) -> None:
        """Have a thread ask whether the catalog answers, if none does, or has a moment ago."""
        is_asked = self._question is not None and self._question.is_alive()
        # Where nobody listens a question is over at once, and whoever waits is woken by that.
        if not is_asked and time.monotonic() >= self._next_question:
            self._question = threading.Thread(target=self._ask_and_notice, name="catalog-question", daemon=True)
            self._question.start()

    def _ask(self) -> None:
        began = time.monotonic()
        self._catalog.check()
        self._heard = time.monotonic()
        self._took.append(self._heard - began)

    def _ask_and_notice(self) -> None:
        heard = self._heard
        try:
            self._ask()
        except CatalogError as error:
            # The delivery may have got an answer meanwhile, and knows better.
            if self._heard == heard:
                self._notice(error)
        finally:
            self._next_question = time.monotonic() + _ASK_AFTER


class Listener:
    """Listens for signs of life of a catalog while somebody waits for it; for one thread.

    Parameters
    ----------
    health : CatalogHealth
        What is known of the catalog.
    """

    def __init__(self, health: CatalogHealth) -> None:
        self._health = health
        self._heard, self._silent = health.heard, 0.0
        self._ask_after = _ASK_AFTER
        self._looked = time.monotonic()

    def hears_nothing(self, *, delivers: bool) -> bool:
        """Whether the catalog, which is asked, has been silent for too long; to be called every now and then.

        Parameters
        ----------
        delivers : bool
            Whether it is this process that delivers; else it is what another does that is waited for.
        """
        now = time.monotonic()
        # Where a moment took long, all of the machine did, or the process stood still, and not the catalog alone.
        step, self._looked = min(now - self._looked, _LONGEST_STEP), now
        if self._health.heard != self._heard:
            self._heard, self._silent = self._health.heard, 0.0
            self._ask_after = min(2 * self._ask_after, _LONGEST_ASK_AFTER)
        elif delivers and not self._health.is_asked:
            self._silent = 0.0
        else:
            self._silent += step
        if self._silent < self._ask_after:
            return False
        self._health.ask_aside()
        return self._silent >= self._ask_after + self._health.patience

    @property
    def words(self) -> str:
        """For how long nothing was heard."""
        return f"it has not answered for {self._silent:.1f} s."

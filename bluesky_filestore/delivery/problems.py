"""What went wrong while writing, in words, by run."""

from collections import OrderedDict

from bluesky_filestore.logs import get_logger
from bluesky_filestore.visible import storable

__all__ = ["Problems"]

_logger = get_logger(__name__)
_MOST_A_RUN = 100
_MOST_RUNS = 1000


class Problems:
    """Sentences by run; each is logged and kept once, and of each run no more than some hundred are.

    Of runs that are on their way (`_going`) all is kept: what they lack says whether they are delivered. Of the others,
    and of what can be told of no run, that of the last thousand is, whose uids are in `_others`.
    """

    def __init__(self) -> None:
        self._going: set[str] = set()
        self._others: OrderedDict[str, None] = OrderedDict()
        self._sentences: dict[str, dict[str, None]] = {}
        self._more: dict[str, int] = {}
        self._losses: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def begin(self, run: str) -> None:
        """A run is on its way from now on."""
        self._going.add(run)
        self._others.pop(run, None)

    def end(self, run: str) -> None:
        """What has become of a run is written down, or it is no concern any more."""
        self._going.discard(run)
        if run in self._sentences or self.loss(run):
            self._keep_some(run)

    def end_all(self) -> None:
        """Whoever delivered them does so no more."""
        for run in list(self._going):
            self.end(run)

    def add(self, run: str, sentence: str, *, lost: bool = True) -> None:
        """Put a sentence on record.

        Parameters
        ----------
        run : str
            The uid of the run it is about; empty if that cannot be told.
        sentence : str
            What went wrong.
        lost : bool
            Whether something of what was received is not in the catalog for it.
        """
        # It goes into databases and into JSON, and may quote names that are no UTF-8.
        sentence = storable(sentence)
        self._keep_some(run)
        if lost:
            self._losses.setdefault(run, sentence)
        sentences = self._sentences.setdefault(run, {})
        if sentence in sentences:
            return
        if len(sentences) >= _MOST_A_RUN:
            self._more[run] = self._more.get(run, 0) + 1
            return
        _logger.error("%s", sentence)
        sentences[sentence] = None

    def add_loss(self, run: str, sentence: str) -> None:
        """Something of a run is not in the catalog, which the run itself says already; what `add` is told is worse."""
        self._keep_some(run)
        self._said.setdefault(run, storable(sentence))

    def forget(self, run: str) -> None:
        """The run is written again from its beginning."""
        self._others.pop(run, None)
        for known in (self._sentences, self._more, self._losses, self._said):
            known.pop(run, None)

    def of(self, run: str) -> tuple[str, ...]:
        """The sentences about one run."""
        more = self._more.get(run)
        return (*self._sentences.get(run, ()), *((f"and {more} more problems",) if more else ()))

    def loss(self, run: str) -> str:
        """The first sentence about something of a run that is not in the catalog; empty if there is none."""
        return self._losses.get(run) or self._said.get(run, "")

    def all(self) -> tuple[str, ...]:
        """The sentences about all runs."""
        return tuple(sentence for run in self._sentences for sentence in self.of(run))

    def _keep_some(self, run: str) -> None:
        """Know of a run that is not on its way, and forget the one of these that has been known for longest."""
        if run not in self._going:
            self._others[run] = None
            if len(self._others) > _MOST_RUNS:
                self.forget(next(iter(self._others)))

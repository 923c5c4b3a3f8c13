"""What went wrong while writing, in words, by run."""

import logging

__all__ = ["Problems"]

_logger = logging.getLogger(__name__)
_MOST_A_RUN = 100
_MOST_RUNS = 1000


class Problems:
    """Sentences by run; each is logged and kept once, and of each run no more than some hundred are."""

    def __init__(self) -> None:
        self._sentences: dict[str, dict[str, None]] = {}
        self._more: dict[str, int] = {}

    def add(self, run: str, sentence: str) -> None:
        """Put a sentence on record.

        Parameters
        ----------
        run : str
            The uid of the run it is about; empty if that cannot be told.
        sentence : str
            What went wrong.
        """
        sentences = self._sentences.setdefault(run, {})
        if sentence in sentences:
            return
        if len(sentences) >= _MOST_A_RUN:
            self._more[run] = self._more.get(run, 0) + 1
            return
        _logger.error("%s", sentence)
        sentences[sentence] = None
        if len(self._sentences) > _MOST_RUNS:
            oldest = next(iter(self._sentences))
            del self._sentences[oldest]
            self._more.pop(oldest, None)

    def of(self, run: str) -> tuple[str, ...]:
        """The sentences about one run."""
        more = self._more.get(run)
        return (*self._sentences.get(run, ()), *((f"and {more} more problems",) if more else ()))

    def all(self) -> tuple[str, ...]:
        """The sentences about all runs."""
        return tuple(sentence for run in self._sentences for sentence in self.of(run))

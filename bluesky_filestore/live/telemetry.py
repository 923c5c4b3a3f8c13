"""The numbers of `metrics`, for OpenTelemetry where that is installed and has somewhere to send them."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from .metrics import KINDS, PREFIX, Samples, samples_of_spools

__all__ = ["observe"]

_ONE_LOOK_SECONDS = 0.5


def observe(spools: Callable[[], Iterable[Path]], is_over: Callable[[], bool] = lambda: False) -> None:
    """Have OpenTelemetry ask for the numbers of spools, as often as whoever has set it up wants them.

    They are called as for Prometheus, without ``_total``. It knows no histogram that is asked for: of one there are the
    count and the sum. Without the package, or where nothing is set up (``opentelemetry-instrument``, or a
    ``MeterProvider`` of the process), nothing is ever looked at.

    Parameters
    ----------
    spools : callable
        The spool directories.
    is_over : callable
        Whether there is nothing to tell any more: instruments cannot be taken back.
    """
    with suppress(ModuleNotFoundError):
        from opentelemetry import metrics

        meter = metrics.get_meter("bluesky_filestore")
        looks = _Looks(spools, is_over)
        for metric, (kind, meaning) in KINDS.items():
            make = meter.create_observable_gauge if kind == "gauge" else meter.create_observable_counter
            name = PREFIX + metric.removesuffix("_total")
            for end in ("_count", "_sum") if kind == "histogram" else ("",):
                make(name + end, [partial(looks.observations, metric, end)], description=meaning)


class _Looks:
    """The spools as they were a moment ago: all that is told at once is of one look."""

    def __init__(self, spools: Callable[[], Iterable[Path]], is_over: Callable[[], bool]) -> None:
        self._spools, self._is_over = spools, is_over
        self._samples: Samples = {}
        self._until = 0.0

    def observations(self, metric: str, end: str, _options: Any) -> Iterator[Any]:
        """What there is of one metric."""
        from opentelemetry.metrics import Observation

        if self._is_over():
            return
        if time.monotonic() > self._until:
            self._samples = samples_of_spools(self._spools())
            self._until = time.monotonic() + _ONE_LOOK_SECONDS
        yield from (Observation(value, labels) for each, labels, value in self._samples[metric] if each == end)

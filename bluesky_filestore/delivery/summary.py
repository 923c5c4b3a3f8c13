"""What is said of a run in the log when its stop document has come."""

from collections.abc import Mapping
from typing import Any

__all__ = ["RunSummary"]

_LENGTH = 8


class RunSummary:
    """Remembers the starts of runs, for a line about each at its end.

    Examples
    --------
    >>> summary = RunSummary()
    >>> summary.start({"uid": "3f2a9c01-77aa", "scan_id": 12, "time": 100.0})
    >>> summary.stop({"run_start": "3f2a9c01-77aa", "time": 112.3, "num_events": {"primary": 30, "baseline": 2}})
    'Run 3f2a9c01 (scan 12, success): primary 30 events, baseline 2 events in 12.3 s'
    """

    def __init__(self) -> None:
        self._starts: dict[str, tuple[object, object]] = {}

    def start(self, doc: Mapping[str, Any]) -> None:
        """A run begins."""
        self._starts[str(doc.get("uid", ""))] = doc.get("scan_id"), doc.get("time")

    def stop(self, doc: Mapping[str, Any]) -> str:
        """A run ends: the line, without a full stop; empty if the run is not known."""
        uid = str(doc.get("run_start", ""))
        if uid not in self._starts:
            return ""
        scan, began = self._starts.pop(uid)
        named = "" if scan is None else f"scan {scan}, "
        words = f"Run {uid[:_LENGTH]} ({named}{doc.get('exit_status', 'success')})"
        counts = doc.get("num_events")
        if isinstance(counts, Mapping):
            told = ", ".join(f"{stream} {count} event{'' if count == 1 else 's'}" for stream, count in counts.items())
            words += f": {told or 'no events'}"
        ended = doc.get("time")
        if isinstance(began, int | float) and isinstance(ended, int | float):
            words += f" in {max(0.0, ended - began):.1f} s"
        return words

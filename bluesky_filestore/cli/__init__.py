"""The command ``bluesky-filestore``: a thin shell that turns options into calls and errors into sentences."""

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .entry import app

__all__ = ["app", "main"]

_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console command; Ctrl-C ends it without a traceback, also while it loads."""
    # What is imported is no garbage: that Python looks through it so often is a fifth of the time until it is there.
    gc.set_threshold(20_000, 20, 20)
    try:
        from .entry import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def __getattr__(name: str) -> Any:
    if name == "app":
        from .entry import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

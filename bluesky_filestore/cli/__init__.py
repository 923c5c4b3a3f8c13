"""The command ``bluesky-filestore``: a thin shell that turns options into calls and errors into sentences."""

from .entry import app, main

__all__ = ["app", "main"]

"""The embedded Tiled server."""

from bluesky_filestore.model.limits import Limits

from .server import CatalogServer, serve_catalog

__all__ = ["CatalogServer", "Limits", "serve_catalog"]

"""The embedded Tiled server."""

from .server import CatalogServer, serve_catalog

__all__ = ["CatalogServer", "serve_catalog"]

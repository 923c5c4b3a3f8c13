"""From documents to a catalog."""

from .catalog_writer import CatalogWriter, WriterStatus

__all__ = ["CatalogWriter", "WriterStatus"]

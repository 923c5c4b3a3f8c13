"""Catalogs that operations are applied to, one a folder."""

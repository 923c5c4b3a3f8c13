"""Catalogs of databroker 2, behind a Tiled client: they take documents as they are."""

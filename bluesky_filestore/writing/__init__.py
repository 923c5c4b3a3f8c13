"""From documents to a catalog."""

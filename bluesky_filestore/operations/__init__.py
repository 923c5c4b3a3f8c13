"""From the documents of a run to what shall be the case in a catalog. Pure."""

"""A Tiled server as a catalog. Nothing else that writes talks to one."""

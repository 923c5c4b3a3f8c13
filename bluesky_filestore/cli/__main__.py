"""``python -m bluesky_filestore.cli``: the same as ``bluesky-filestore``."""

from . import main

main()

"""``python -m bluesky_filestore``: the same as ``bluesky-filestore``."""

from .cli import main

if __name__ == "__main__":
    main()

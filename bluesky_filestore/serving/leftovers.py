"""Arrays that a server was making in its storage when it was killed, and that its catalog knows nothing of.

Tiled makes the storage of an array before others can see it in the database: whoever asks again finds it nowhere, and
cannot have it made, for ever, as something is in its place.
"""

import shutil
import time
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from bluesky_filestore.logs import get_logger

__all__ = ["replace_leftovers"]

_logger = get_logger(f"tiled.{__name__}")
_REMOVED_SECONDS = 1.0


def replace_leftovers() -> None:
    """Have Tiled's arrays made where something is left of one, in all applications of this process.

    Raises
    ------
    ImportError, AttributeError
        If Tiled, or zarr, has it otherwise.
    """
    from tiled.adapters.zarr import ZarrArrayAdapter
    from tiled.storage import FileStorage
    from zarr.errors import ContainsArrayError

    make = ZarrArrayAdapter.init_storage.__func__
    if hasattr(make, "replaces_leftovers"):
        return

    @wraps(make)
    def init_storage(cls: Any, storage: Any, data_source: Any, path_parts: list[str]) -> Any:
        # Before, its node was put into the database, where there is none beside: in its place is nobody's array.
        try:
            return make(cls, storage, data_source, path_parts)
        except ContainsArrayError:
            if not isinstance(storage, FileStorage):
                raise
        # Of one that is just being removed the node is gone before the storage is.
        time.sleep(_REMOVED_SECONDS)
        left = Path(storage.path, *map(quote_plus, path_parts))
        if left.exists():
            _logger.warning("What was left in %s of an array that the catalog does not know is removed.", left)
            shutil.rmtree(left)
        return make(cls, storage, data_source, path_parts)

    init_storage.replaces_leftovers = True  # type: ignore[attr-defined]
    ZarrArrayAdapter.init_storage = classmethod(init_storage)

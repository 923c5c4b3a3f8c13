"""Values of tables and arrays of a catalog, by a plain request each.

Tiled's client plans what it reads with dask, which takes longer than a small answer does, and keeps a thread busy.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from numpy.typing import NDArray

from bluesky_filestore.extras import from_extra

from .connecting import catalog_errors

if TYPE_CHECKING:
    import pyarrow
    from pandas import DataFrame
    from tiled.client.array import ArrayClient
    from tiled.client.dataframe import DataFrameClient

__all__ = ["read_array", "read_table", "rows_of_message"]

_MOST_BYTES = 2**26
_ARROW = "application/vnd.apache.arrow.file"


def read_table(node: "DataFrameClient", columns: Sequence[str] = ()) -> "DataFrame":
    """The rows of a table, all columns of them or some.

    Raises
    ------
    CatalogError
        If the catalog does not give them.
    """
    with catalog_errors(str(node.uri), node):
        if node.structure().npartitions == 1:
            link = node.item["links"]["partition"].format(index=0)
            answer = _asked(node, link, _ARROW, {"column": list(columns)} if columns else {})
            if answer.is_success:
                with from_extra("write"):
                    import pyarrow

                table: DataFrame = pyarrow.ipc.open_file(answer.content).read_pandas()
                return table
        # Of several parts, and what is refused, its client makes the best.
        return node.read(list(columns) or None)


def rows_of_message(message: Mapping[str, Any]) -> "pyarrow.Table":
    """The rows that a server says are being appended to a table.

    Raises
    ------
    KeyError, ValueError, TypeError
        If the message is about something else.
    """
    with from_extra("write"):
        import pyarrow

    if not message["append"] or message["mimetype"] != _ARROW:
        raise ValueError(f"{message['mimetype']} of partition {message['partition']}; expected {_ARROW}, appended")
    return pyarrow.ipc.open_file(message["payload"]).read_all()


def read_array(node: "ArrayClient", index: Sequence[int | slice] = ()) -> NDArray[Any]:
    """A part of an array, by an integer or a slice an axis (of the first axes, or of none: all of it).

    Raises
    ------
    CatalogError
        If the catalog does not give it.
    """
    from tiled.ndslice import NDSlice

    keys = NDSlice(tuple(index)).expand_for_shape(node.shape)
    shape, dtype = tuple(keys.shape_after_slice(node.shape)), node.dtype
    with catalog_errors(str(node.uri), node):
        if 0 < prod(shape) * dtype.itemsize <= _MOST_BYTES:
            asked = {"expected_shape": ",".join(map(str, shape)) or "scalar"}
            if index:
                asked["slice"] = keys.to_numpy_str()
            answer = _asked(node, node.item["links"]["full"], "application/octet-stream", asked)
            if answer.is_success:
                return np.frombuffer(answer.content, dtype).reshape(shape)
        return np.asarray(node.read(tuple(index) or None))


def _asked(node: Any, link: str, media_type: str, query: dict[str, Any]) -> httpx.Response:
    url = httpx.URL(link)
    answer: httpx.Response = node.context.http_client.get(
        url.copy_with(query=None), headers={"Accept": media_type}, params={**dict(url.params), **query}
    )
    return answer

"""A tiny Tiled server in memory: the routes that the delivery asks for, answered as the real one answers them.

`tests/test_simulation_server.py` compares it with the real one. It lies in one place on purpose: where the real one
answers with MessagePack, this one does with JSON, which its client reads as well.
"""

import base64
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow

URI = "http://catalog/api/v1"
_JSON, _ARROW, _BYTES = "application/json", "application/vnd.apache.arrow.file", "application/octet-stream"
_EXTERNAL = ("application/x-hdf5", _BYTES)
_PAGE = 100

Path = tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """A node, of which another one is made when it changes."""

    family: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    specs: tuple[Any, ...] = ()
    source: Mapping[str, Any] | None = None
    table: pyarrow.Table | None = None
    array: np.ndarray | None = None

    @property
    def structure(self) -> Any:
        """What its clients read it by."""
        return None if self.source is None else self.source["structure"]


class RefusedError(Exception):
    """What a server answers instead."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Server:
    """The server, with its nodes by path.

    Parameters
    ----------
    mimetypes : tuple of str
        What it has adapters for, beside HDF5.
    """

    def __init__(self, mimetypes: tuple[str, ...] = ()) -> None:
        self.nodes: dict[Path, Node] = {(): Node("container")}
        self.changes: list[tuple[Path, Node | None]] = []
        """What was there before each change."""
        self._mimetypes = (*_EXTERNAL, *mimetypes)
        self._numbers = 0

    def forget(self, changes: int) -> int:
        """Lose the last changes, as after a power failure, but none of a run that was closed; how many were lost."""
        lost = 0
        for _ in range(min(changes, len(self.changes))):
            path, before = self.changes.pop()
            if not path or {"stop", "notes"} & set(self.nodes.get(path[:1], self.nodes[()]).metadata):
                break
            lost += 1
            if before is None:
                for below in [each for each in self.nodes if each[: len(path)] == path]:
                    del self.nodes[below]
            else:
                self.nodes[path] = before
        return lost

    def answer(self, method: str, path: str, query: httpx.QueryParams, body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and content of the answer to a request."""
        try:
            found = self._answer(method, path, query, body)
        except RefusedError as refusal:
            return refusal.status, _JSON, orjson.dumps({"detail": refusal.detail})
        if isinstance(found, pyarrow.Table):
            sink = io.BytesIO()
            with pyarrow.ipc.new_file(sink, found.schema) as writer:
                writer.write_table(found)
            return 200, _ARROW, sink.getvalue()
        if isinstance(found, np.ndarray):
            return 200, _BYTES, found.tobytes()
        return 200, _JSON, orjson.dumps(found)

    def _answer(self, method: str, path: str, query: httpx.QueryParams, body: bytes) -> Any:
        route, _, below = path.removeprefix("/api/v1/").partition("/")
        if route in ("table", "array"):
            kind, _, below = below.partition("/")
            route = f"{route}/{kind}"
        where = tuple(part for part in below.split("/") if part)
        if where not in self.nodes:
            raise RefusedError(404, f"No such entry: {list(where)}")
        routes: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "metadata"): lambda: {"data": self._item(where, node), "error": None, "links": None, "meta": {}},
            ("GET", "search"): lambda: self._search(where, query),
            ("POST", "metadata"): lambda: self._make(where, orjson.loads(body)),
            ("POST", "register"): lambda: self._make(where, orjson.loads(body)),
            ("PATCH", "metadata"): lambda: self._patch(where, node, orjson.loads(body)["metadata"]),
            ("PUT", "data_source"): lambda: self._put(where, node, orjson.loads(body)["data_source"]),
            ("DELETE", "metadata"): lambda: self._remove(where),
            ("PATCH", "table/partition"): lambda: self._append(where, node, body),
            ("GET", "table/partition"): lambda: node.table.select(query.get_list("column") or node.table.column_names),
            ("PATCH", "array/full"): lambda: self._write(where, node, query, body),
            ("GET", "array/full"): lambda: node.array,
        }
        if (method, route) not in routes:
            raise RefusedError(405, f"{method} {route} is not simulated")
        node = self.nodes[where]
        return routes[method, route]()

    def _set(self, path: Path, node: Node | None) -> None:
        self.changes.append((path, self.nodes.get(path)))
        if node is None:
            del self.nodes[path]
        else:
            self.nodes[path] = node

    def _links(self, path: Path, node: Node) -> dict[str, str]:
        below = "/".join(path)
        links = {"self": f"{URI}/metadata/{below}"}
        if node.family == "container":
            links |= {"search": f"{URI}/search/{below}", "full": f"{URI}/container/full/{below}"}
        elif node.family == "table":
            links["partition"] = f"{URI}/table/partition/{below}?partition={{index}}"
            links["full"] = f"{URI}/table/full/{below}"
        elif node.family == "array":
            axes = ",".join(f"{{{axis}}}" for axis in range(len(node.structure["shape"])))
            links |= {"full": f"{URI}/array/full/{below}", "block": f"{URI}/array/block/{below}?block={axes}"}
        return links

    def _item(self, path: Path, node: Node) -> dict[str, Any]:
        structure = node.structure
        if node.family == "container":
            structure = {"contents": None, "count": len(self._children(path))}
        attributes = {
            "ancestors": path[:-1],
            "structure_family": node.family,
            "specs": node.specs,
            "metadata": node.metadata,
            "structure": structure,
            "access_tags": [],
            "sorting": [{"key": "", "direction": 1}] if node.family == "container" else None,
            "data_sources": [] if node.source is None else [node.source],
        }
        name = path[-1] if path else ""
        return {"id": name, "attributes": attributes, "links": self._links(path, node), "meta": None}

    def _children(self, path: Path) -> list[Path]:
        return [each for each in self.nodes if len(each) == len(path) + 1 and each[:-1] == path]

    def _search(self, path: Path, query: httpx.QueryParams) -> dict[str, Any]:
        begin = int(query.get("page[offset]", 0))
        children, fields = self._children(path), query.get("fields")
        page = [self._item(each, self.nodes[each]) for each in children[begin : begin + _PAGE] if fields != "count"]
        if fields == "":
            page = [{**item, "attributes": dict.fromkeys(item["attributes"])} for item in page]
        more = f"{URI}/search/{'/'.join(path)}?page[offset]={begin + _PAGE}" if begin + _PAGE < len(children) else None
        return {"data": page, "error": None, "links": {"next": more}, "meta": {"count": len(children)}}

    def _make(self, parent: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
        sources = asked["data_sources"]
        for source in sources:
            is_own = source["management"] != "external"
            if not is_own and source["mimetype"] not in self._mimetypes:
                words = "is not one that the Tiled server knows how to read."
                raise RefusedError(415, f"The given data source mimetype, {source['mimetype']}, {words}")
        path = (*parent, asked["id"])
        if path in self.nodes:
            raise RefusedError(409, f"/{'/'.join(path)} is in the catalog already, made by another writer")
        source = self._kept(sources[0]) if sources else None
        node = Node(asked["structure_family"], asked["metadata"], tuple(asked["specs"]), source)
        if node.family == "table":
            node = replace(node, table=_schema(node.structure).empty_table())
        elif node.family == "array" and source["management"] != "external":
            dtype = _dtype(node.structure["data_type"])
            node = replace(node, array=np.zeros(node.structure["shape"], dtype))
        self._set(path, node)
        return {
            "id": path[-1],
            "links": self._links(path, node),
            "data_sources": [] if source is None else [source],
            "access_tags": [],
        }

    def _kept(self, source: Mapping[str, Any]) -> dict[str, Any]:
        self._numbers += 1
        mimetype = source["mimetype"] or "application/x-zarr"
        return {**source, "id": self._numbers, "mimetype": mimetype}

    def _patch(self, path: Path, node: Node, patch: list[dict[str, Any]]) -> dict[str, Any]:
        if any(each["op"] != "add" or each["path"].count("/") != 1 for each in patch):
            raise RefusedError(422, "only entries of metadata are set here")
        entries = {each["path"][1:]: each["value"] for each in patch}
        self._set(path, replace(node, metadata={**node.metadata, **entries}))
        return {"id": path[-1]}

    def _put(self, path: Path, node: Node, source: Mapping[str, Any]) -> None:
        if node.source is None or node.source["id"] != source["id"]:
            raise RefusedError(404, f"No data_source {source['id']} on this node.")
        known = {asset["data_uri"]: asset for asset in node.source["assets"]}
        # Assets are added, and none is taken away.
        assets = [*known.values(), *(each for each in source["assets"] if each["data_uri"] not in known)]
        self._set(path, replace(node, source={**source, "assets": assets}))

    def _remove(self, path: Path) -> None:
        if self._children(path):
            raise RefusedError(409, "Cannot delete a node that is not empty.")
        self._set(path, None)

    def _append(self, path: Path, node: Node, body: bytes) -> None:
        rows = pyarrow.ipc.open_file(body).read_all()
        try:
            rows = rows.cast(node.table.schema)
        except (pyarrow.ArrowException, ValueError) as error:
            raise RefusedError(500, str(error)) from error
        self._set(path, replace(node, table=pyarrow.concat_tables([node.table, rows])))

    def _write(self, path: Path, node: Node, query: httpx.QueryParams, body: bytes) -> Any:
        offset, shape = (tuple(map(int, query[name].split(","))) for name in ("offset", "shape"))
        values = np.frombuffer(body, node.array.dtype).reshape(shape)
        array = np.zeros(
            [max(*sizes) for sizes in zip(node.array.shape, np.add(offset, shape), strict=True)], values.dtype
        )
        array[tuple(map(slice, node.array.shape))] = node.array
        array[tuple(slice(begin, begin + size) for begin, size in zip(offset, shape, strict=True))] = values
        chunks = [[size] for size in array.shape]
        structure = {**node.structure, "shape": list(array.shape), "chunks": chunks}
        self._set(path, replace(node, array=array, source={**node.source, "structure": structure}))
        return structure


def _schema(structure: Mapping[str, Any]) -> pyarrow.Schema:
    encoded = re.sub("^data:.*?;base64,", "", structure["arrow_schema"])
    return pyarrow.ipc.read_schema(pyarrow.BufferReader(base64.b64decode(encoded)))


def _dtype(data_type: Mapping[str, Any]) -> np.dtype[Any]:
    order = {"little": "<", "big": ">", "not_applicable": "|"}[data_type["endianness"]]
    return np.dtype(f"{order}{data_type['kind']}{data_type['itemsize'] // (4 if data_type['kind'] == 'U' else 1)}")

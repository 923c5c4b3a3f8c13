"""Databrokers of documents: one in this process, and one behind a server on loopback."""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bluesky_filestore.model.limits import DEFAULT_LIMITS
from bluesky_filestore.serving.guard import _keep_settings_apart

API_KEY = "secret"


def temporary() -> Any:
    """What `databroker.temp()` gives."""
    import databroker

    with warnings.catch_warnings():
        # Of starlette's test client, which is what databroker's catalogs in this process go by.
        warnings.simplefilter("ignore")
        broker = databroker.temp()
    # Of two servers in one process, the key of the last is that of both.
    _keep_settings_apart(broker.v2.context.http_client.app, broker.v2.context.api_key, DEFAULT_LIMITS)
    return broker


@contextmanager
def served() -> Iterator[tuple[str, Any]]:
    """A Tiled server with databroker's Mongo tree: its address, and the tree, of which nobody knows beyond it."""
    import uvicorn
    from databroker.mongo_normalized import MongoAdapter
    from tiled.config import Authentication
    from tiled.server.app import build_app

    tree = MongoAdapter.from_mongomock()
    app = build_app(tree, authentication=Authentication(single_user_api_key=API_KEY))
    _keep_settings_apart(app, API_KEY, DEFAULT_LIMITS)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", tree
    server.should_exit = True
    thread.join(30)


def counts(tree: Any) -> dict[str, int]:
    """How many documents there are of each kind, in a tree of databroker."""
    names = ("run_start", "event_descriptor", "resource", "datum", "event", "run_stop")
    return {name: tree.database[name].count_documents({}) for name in names}

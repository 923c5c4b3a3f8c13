"""The client of a catalog of runs that a server hands out itself: of bluesky-tiled-plugins, and a container still."""

from functools import partial
from typing import Any

from bluesky_tiled_plugins.clients import catalog_of_bluesky_runs as plugins
from tiled.client.container import Container
from tiled.utils import OneShotCachedMap

__all__ = ["CatalogOfBlueskyRuns", "with_names"]


class CatalogOfBlueskyRuns(plugins.CatalogOfBlueskyRuns):  # type: ignore[misc]
    """Finds what is called so, at whatever path, before it takes a text for the beginning of a uid."""

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if parts and all(isinstance(part, str) for part in parts):
            try:
                return Container.__getitem__(self, key)
            except KeyError:
                if len(parts) > 1 or "/" in key:
                    raise
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        try:
            self[key]
        except (KeyError, ValueError):
            return False
        return True


def with_names(client: Container) -> Container:
    """The same client, where it is one of a catalog of runs, so that things that are no runs are found by name."""
    if type(client) is not plugins.CatalogOfBlueskyRuns:
        return client
    # Not a copy of what there is: copies share their content, and every client of this process would be changed.
    known = client.structure_clients
    clients = OneShotCachedMap({name: partial(known.__getitem__, name) for name in known})
    clients.set("CatalogOfBlueskyRuns", lambda: CatalogOfBlueskyRuns)
    return CatalogOfBlueskyRuns(client.context, item=client.item, structure_clients=clients)

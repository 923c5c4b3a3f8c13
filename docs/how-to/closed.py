"""Tiled's application without what it answers to people who have no key, for uvicorn --factory closed:app."""

from starlette.responses import PlainTextResponse
from tiled.server.app import app_factory

CLOSED = ("/zarr", "/api/graphql")


def app():
    """Make it, from the configuration that the environment variable TILED_CONFIG names."""
    tiled, refusal = app_factory(), PlainTextResponse("This is closed here.", 404)

    async def closed(scope, receive, send):
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        await (refusal if path.startswith(CLOSED) else tiled)(scope, receive, send)

    return closed

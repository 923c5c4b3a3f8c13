"""Runs on a server that says by tags who may see what."""

import asyncio
import time

import httpx
import numpy as np
import pytest
from serving import configured_server
from small_runs import SmallRun
from tiled.access_control.access_tags import AccessTagsCompiler
from tiled.access_control.scopes import ScopeName
from tiled.client import from_uri
from tiled.server.connection_pool import close_database_connection_pool
from tiled.server.settings import DatabaseSettings

from bluesky_filestore import CatalogWriter, documents

ALICE = sorted(
    scope.value
    for scope in ScopeName
    if scope.value.partition(":")[0] in ("read", "write", "create", "register", "delete")
    and scope.value.partition(":")[2] in ("", "metadata", "data", "node", "revision")
)
READ = ["read:data", "read:metadata"]
# Alice may write into the root, and give the tag "experiment", which lets Bob read; "secret" is not hers to give.
TAGS = {
    "tags": {
        "root": {"users": [{"name": "alice", "scopes": ALICE}, {"name": "bob", "scopes": READ}]},
        "experiment": {"users": [{"name": "alice", "scopes": ALICE}, {"name": "bob", "scopes": READ}]},
        "secret": {"users": [{"name": "alice", "scopes": ALICE}]},
    },
    "tag_owners": {"experiment": {"users": [{"name": "alice"}]}},
}


async def define_tags(uri):
    """Write down who may do what in a catalog's database, as the administrator of a server does."""
    settings = DatabaseSettings(uri=uri)
    compiler = AccessTagsCompiler({scope.value for scope in ScopeName}, TAGS, settings, lambda group: [])
    compiler.load_tag_config()
    await compiler.compile()
    await close_database_connection_pool(settings)


def configuration(directory, data):
    """Of a server with two users, and access by tags."""
    return {
        "authentication": {
            "providers": [
                {
                    "provider": "toy",
                    "authenticator": "tiled.authenticators:DictionaryAuthenticator",
                    "args": {"users_to_passwords": {"alice": "a", "bob": "b"}},
                }
            ],
            # Nobody else may register files; but whoever has a key for everything is above all tags.
            "tiled_admins": [{"provider": "toy", "id": "alice"}],
            "secret_keys": ["secret"],
        },
        "database": {"uri": f"sqlite:///{directory}/users.db", "init_if_not_exists": True},
        "access_control": {
            "access_policy": "tiled.access_control.access_policies:TagBasedAccessPolicy",
            "args": {
                "provider": "toy",
                "access_tags_parser": "tiled.access_control.access_tags:AccessTagsParser",
                "scopes": sorted({*ALICE, "create:apikeys", "revoke:apikeys"}),
            },
        },
        "trees": [
            {
                "path": "/",
                "tree": "catalog",
                "args": {
                    "uri": f"sqlite:///{directory}/catalog.db",
                    "init_if_not_exists": True,
                    "top_level_access_tags": ["root"],
                    "writable_storage": [str(directory / "storage"), f"sqlite:///{directory}/tables.db"],
                    "readable_storage": [str(data)],
                },
            }
        ],
    }


def key_of(uri, user, scopes):
    """A new API key of a user."""
    form = {"grant_type": "password", "username": user, "password": user[0]}
    answer = httpx.post(f"{uri}/api/v1/auth/provider/toy/token", data=form, timeout=30).raise_for_status()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    answer = httpx.post(f"{uri}/api/v1/auth/apikey", headers=bearer, json={"expires_in": 3600, "scopes": scopes})
    return answer.raise_for_status().json()["secret"]


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """Clients of two users of one server, and a directory that it can read."""
    directory, data = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("data")
    asyncio.run(define_tags(f"sqlite:///{directory}/catalog.db"))
    with configured_server(configuration(directory, data), directory) as uri:
        clients = [from_uri(uri, api_key=key_of(uri, *user)) for user in (("alice", ALICE), ("bob", READ))]
        yield *clients, data
        for client in clients:
            client.context.close()


def tagged(directory, number, tags):
    """A run with tags in its start document."""
    run = SmallRun(directory, number)
    name, start = run.documents[0]
    if tags is not None:
        run.documents[0] = (name, {**start, "tiled_access_tags": tags})
    return run


def test_a_tag_lets_others_read(users):
    """Whoever a run's tag lets read it reads its streams, tables and arrays; without a tag it is its writer's alone."""
    alice, bob, data = users
    run, untagged = tagged(data, 0, ["experiment"]), tagged(data, 1, None)
    with CatalogWriter(alice) as writer:
        for name, doc in [*run.documents, *untagged.documents]:
            writer(name, doc)
    assert {run.uid, untagged.uid} <= set(alice)
    assert set(bob) == {run.uid}
    node = bob[run.uid]
    assert list(node.access_tags) == ["experiment"]
    assert list(node["primary"].base.access_tags) == ["experiment"]
    np.testing.assert_array_equal(node["primary"]["image"].read()[:, 0], run.images)
    np.testing.assert_array_equal(node["primary"]["x"].read(), run.x)
    assert "tiled_access_tags" not in node.start
    assert next(documents(node)) == run.documents[0]


def test_a_tag_that_is_not_ours_to_give(users):
    """A run with a tag that its writer may not give is parked, with the reason of the catalog; others go on."""
    alice, _, data = users
    run, other = tagged(data, 7, ["secret"]), tagged(data, 8, ["experiment"])
    with CatalogWriter(alice, park_after=3.0) as writer:
        for name, doc in [*run.documents, *other.documents]:
            writer(name, doc)
        # Closing says so of a run that the catalog fails at, and has not been given up yet.
        deadline = time.monotonic() + 90
        while run.uid not in writer.status().catalogs[0].parked and time.monotonic() < deadline:
            time.sleep(0.05)
    reason = writer.status().catalogs[0].parked[run.uid]
    assert "Access policy rejects the provided access tags" in reason
    assert "user='alice' is not an owner of tag='secret'" in reason
    assert "API key" not in reason
    assert run.uid not in alice
    other.compare(alice)

"""The runs of a catalog a page at a time, with no more of their metadata than a list shows."""

from typing import TYPE_CHECKING, Any

from bluesky_filestore.errors import CatalogFaultError
from bluesky_filestore.visible import shown_address

from .connecting import catalog_errors

if TYPE_CHECKING:
    from tiled.client.container import Container

__all__ = ["list_runs"]

# A JMESPath: a start may hold megabytes of what nobody lists.
_SHOWN = (
    "{start: start.{uid: uid, scan_id: scan_id, plan_name: plan_name, time: time, sample: sample_name}, "
    "stop: stop.{time: time, exit_status: exit_status, num_events: num_events}, "
    "filestore: filestore.{missing: missing, unreadable: unreadable, refused: refused, uncollected: uncollected}, "
    "has_said: filestore != `null`, has_ended: notes != `null`}"
)


def list_runs(client: "Container", offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Some of the runs, the latest first, by what is shown of their metadata; and how many there are.

    Raises
    ------
    CatalogError
        If the catalog does not answer, does not let us in, or lists its runs in another way than is known here.
    """
    options = {"page[offset]": offset, "page[limit]": limit, "sort": "-start.time", "select_metadata": _SHOWN}
    with catalog_errors(str(client.uri)):
        answer = client.context.http_client.get(
            client.item["links"]["search"], params=options, headers={"Accept": "application/json"}
        )
        answer.raise_for_status()
        content = answer.json()
    try:
        return [_selected(item) for item in content["data"]], int(content["meta"]["count"])
    except (LookupError, TypeError, AttributeError) as error:
        raise CatalogFaultError(
            f"the catalog at {shown_address(client.uri)} does not list its runs in the way that is known ({error!r})."
        ) from error


def _selected(item: Any) -> dict[str, Any]:
    return {"key": item["id"], **item["attributes"]["metadata"]["selected"]}

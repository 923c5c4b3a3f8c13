"""Documents of one run in, for a catalog that holds documents: they are what shall be there, as they are."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bluesky_filestore.errors import PathError
from bluesky_filestore.model.paths import join_resource

from .operations import CloseRun, InsertDocument, Operation

__all__ = ["DocumentRun"]

_NO_PLACE = ("stream_resource", "stream_datum")


class DocumentRun:
    """Turns the documents of one run into operations of `Catalog.takes_documents`; otherwise as `Run`.

    Parameters
    ----------
    start : Mapping
        The RunStart document.
    """

    settled = True
    """Whether looking at its files again will not help: nobody looks at them."""
    is_looking = False
    """Whether somebody still looks for frames in its files."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        self.uid: str = start["uid"]
        self._pending: list[Operation] = [InsertDocument(self.uid, "start", start)]
        self._losses: list[str] = []
        self.files: list[str] = []
        """The files, or directories of files, that its Resources name."""

    def receive(self, name: str, doc: Mapping[str, Any], *, is_shared: bool = False) -> None:
        """Take one document of any kind, or a page of them; what is shared may have come with another run before."""
        if name in _NO_PLACE:
            self._losses.append(
                f"databroker has no place for a {name} document, and no data for what it announces: it is left out."
            )
            return
        self._pending.append(InsertDocument(self.uid, name, doc, is_shared))
        if name == "resource":
            with suppress(PathError):
                self.files.append(str(join_resource(doc.get("root") or "", str(doc.get("resource_path")))))
        if name == "stop":
            self._pending.append(CloseRun(self.uid, {}))

    def ask_what_is_read(self) -> None:
        """Nothing depends on it."""

    def take(self, *, final: bool = False) -> list[Operation]:
        """The operations that were not taken yet."""
        operations, self._pending = self._pending, []
        return operations

    def take_losses(self) -> list[str]:
        """What the catalog has no place for."""
        losses, self._losses = self._losses, []
        return losses

    def end_without_stop(self, reason: str) -> list[Operation]:
        """What is left to be done for a run whose stop document will not come: it has none there either."""
        return [*self.take(), CloseRun(self.uid, {})]

    def settle(self) -> list[Operation]:
        """There is nothing to be looked at again."""
        return []

"""StreamResource and StreamDatum documents of a file store, made when they are collected."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from event_model import ComposeStreamResourceBundle

from bluesky_filestore.model.compose import compose_stream_resource

__all__ = ["AssetDocs", "StreamDocuments", "check_asset_docs"]

AssetDocs = Literal["datum", "stream"]


def check_asset_docs(value: str) -> AssetDocs:
    """Return `value` if it is one we know.

    Raises
    ------
    ValueError
        For any other.
    """
    match value:
        case "datum" | "stream":
            return value
    raise ValueError(f"asset_docs is {value!r}; expected 'datum' or 'stream'.")


class StreamDocuments:
    """What has been asked for and not been told yet, of one file or file series.

    An index stands for the frames of one point, counted from the beginning of the file over all data keys: so each
    index says exactly which frames are meant, whatever the keys are interleaved like.
    """

    def __init__(self, spec: str, path: str, parameters: Mapping[str, Any]) -> None:
        self._spec = spec
        self._path = path
        self._parameters = parameters
        self._bundles: dict[str, ComposeStreamResourceBundle] = {}
        self._pending: list[tuple[str, int, int]] = []
        self._next = 0
        self.keys: dict[str, None] = {}
        """The data keys there have been, in their order."""

    @property
    def pending(self) -> int:
        """How many ranges of indices have not been collected."""
        return len(self._pending)

    def add(self, key: str, count: int = 1) -> None:
        """The next `count` indices belong to `key`."""
        self.keys[key] = None
        self._pending.append((key, self._next, self._next + count))
        self._next += count

    def skip(self, count: int) -> None:
        """The first `count` indices of the file belong to nobody here."""
        self._next += count

    def renew(self) -> None:
        """Begin new StreamResources with the next documents: another run must be complete in itself."""
        self._bundles.clear()

    def collect(self) -> Iterator[tuple[str, Any]]:
        """Hand out what is pending, and first of all the StreamResource of each key."""
        pending, self._pending = self._pending, []
        for key, start, stop in pending:
            if key not in self._bundles:
                self._bundles[key] = compose_stream_resource(
                    spec=self._spec, path=self._path, data_key=key, parameters=self._parameters
                )
                # A copy: bluesky writes the run's uid into it.
                yield "stream_resource", dict(self._bundles[key].stream_resource_doc)
            yield "stream_datum", self._bundles[key].compose_stream_datum({"start": start, "stop": stop})

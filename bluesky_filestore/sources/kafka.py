"""Documents from Kafka, as bluesky-kafka's `Publisher` sends them: a message holds ``(name, doc)`` in msgpack.

It asks librdkafka itself where bluesky-kafka's `BasicConsumer` would, which goes on after an error as if a message had
been dealt with, and changes what msgpack's functions are in its process.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bluesky_filestore.errors import SourceError
from bluesky_filestore.extras import from_extra
from bluesky_filestore.logs import get_logger
from bluesky_filestore.visible import shown_address

from .wire import document_in, named

__all__ = ["KafkaSource", "properties_in"]

_logger = get_logger(__name__)
_WAIT_SECONDS = 0.2
_AT_ONCE = 500
_OURS = ("enable.auto.commit", "enable.auto.offset.store", "bootstrap.servers", "group.id")


class KafkaSource:
    """What is in topics of a Kafka cluster; see `bluesky_filestore.sources.Source`.

    It begins where its group left off, which is after the last document that was on a disk; a group that is new begins
    with the oldest there is.

    Parameters
    ----------
    address : str
        ``kafka://host:port/topic``; with several brokers and topics, separated by commas.
    group : str
        The consumer group.
    options : mapping, optional
        What else librdkafka is to know, e.g. ``{"security.protocol": "SASL_SSL"}``.

    Raises
    ------
    SourceError
        If it is no such address, or the options are none.
    """

    def __init__(
        self, address: str, *, group: str = "bluesky-filestore", options: Mapping[str, Any] | None = None
    ) -> None:
        with from_extra("kafka"):
            from confluent_kafka import Consumer, KafkaException

        self.name = shown_address(address)
        brokers, topics = _parts(address)
        self._offsets: dict[tuple[str, int], int] = {}
        self._said: set[str] = set()
        refused = sorted(set(options or {}).intersection(_OURS))
        if refused:
            raise SourceError(f"the option {refused[0]} is not to be had otherwise; leave it out, or see --group.")
        settings = {
            "auto.offset.reset": "earliest",
            **(options or {}),
            "bootstrap.servers": brokers,
            "group.id": group,
            "enable.auto.commit": False,
            "error_cb": self._say,
        }
        try:
            self._consumer = Consumer(settings)
            self._consumer.subscribe(topics, on_revoke=self._revoked)
        except KafkaException as error:
            raise SourceError(f"Kafka's client refuses its options ({error}); expected those of librdkafka.") from error

    def documents(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        """The documents as they come; None when none has come for a moment."""
        while True:
            messages = self._consumer.consume(_AT_ONCE, _WAIT_SECONDS)
            for message in messages:
                if message.error():
                    self._say(message.error())
                    continue
                where = str(message.topic()), int(message.partition() or 0)
                try:
                    document = named(_listed(document_in(message.value() or b"")))
                except SourceError as error:
                    _logger.error(
                        "Message %s of %s is left out: %s", message.offset(), "/".join(map(str, where)), error
                    )
                else:
                    yield document
                # Not before the document was taken: that is so when we are asked for the next.
                self._offsets[where] = int(message.offset() or 0) + 1
            yield None

    def acknowledge(self) -> None:
        """All documents that were taken are on the disk: the group goes on after them."""
        from confluent_kafka import KafkaException, TopicPartition

        offsets = [TopicPartition(*where, offset) for where, offset in self._offsets.items()]
        if offsets:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                # They come again then, and are known.
                _logger.warning("%s does not take how far we are: %s", self.name, error)
            else:
                self._offsets.clear()

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        # Somebody else reads them now, and says how far.
        for each in partitions:
            self._offsets.pop((each.topic, each.partition), None)

    def _say(self, error: Any) -> None:
        words = str(error)
        if words not in self._said:
            self._said.add(words)
            _logger.warning("Kafka at %s: %s", self.name, words)


def _listed(item: Any) -> Any:
    return list(item) if isinstance(item, tuple) else item


def _parts(address: str) -> tuple[str, list[str]]:
    scheme, _, rest = address.partition("://")
    brokers, _, topics = rest.partition("/")
    if scheme != "kafka" or not brokers or not topics.strip("/,"):
        raise SourceError(f"{shown_address(address)!r} is no address of a topic; expected kafka://host:port/topic.")
    if "@" in rest or "?" in rest:
        # librdkafka would take it for the name of a host, and print it.
        raise SourceError(
            f"the address of {shown_address(address)} has a user or a query; expected kafka://host:port/topic. Give "
            f"sasl.username and sasl.password in a file, with --kafka-config."
        )
    return brokers, [topic for topic in topics.strip("/").split(",") if topic]


def properties_in(path: Path) -> dict[str, str]:
    """The options in a file, ``name=value`` a line, as Kafka's tools have them; ``#`` begins a comment.

    Raises
    ------
    SourceError
        If a line is none.
    """
    options = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, equals, value = text.partition("=")
            if not equals:
                # Not the line, which may be a password.
                raise SourceError(f"line {number} of {path} is no option; expected name=value.")
            options[name.strip()] = value.strip()
    return options

"""What documents from elsewhere cost, beside the direct callback; and what a writer costs that only spools.

    python benchmarks/sources.py [--events 20000]

Consumers read what is there already, so that their own pace is measured and not their publisher's; and it is the time
of the processor that counts, of all threads of the process, so that what else the machine does is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import event_model
import msgpack
import msgpack_numpy

from bluesky_filestore import SpoolWriter
from bluesky_filestore.sources.consuming import ArchiveSource, consume
from bluesky_filestore.sources.intake import Intake
from bluesky_filestore.spool import Store


def run_documents(events: int) -> list[tuple[str, Any]]:
    """A run of scalars."""
    run = event_model.compose_run()
    keys = {f"x{number}": {"source": "s", "dtype": "number", "shape": []} for number in range(5)}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", bundle.descriptor_doc)]
    data, times = dict.fromkeys(keys, 1.5), dict.fromkeys(keys, 2.5)
    documents += [("event", bundle.compose_event(data=data, timestamps=times, validate=False)) for _ in range(events)]
    return [*documents, ("stop", run.compose_stop())]


def report(name: str, count: int, seconds: float) -> None:
    """One line."""
    print(f"{name:<28} {count / seconds:>12,.0f} documents/s")


def direct(documents: list[tuple[str, Any]]) -> None:
    """The callback of a writer that only spools, and the append alone, by turns; and by documents a second."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        store = stack.enter_context(closing(Store(place / "append")))
        writer = stack.enter_context(SpoolWriter(place / "callback"))
        ways: dict[str, tuple[Callable[..., Any], list[float]]] = {
            "append": (store.append, []),
            "callback": (writer, []),
        }
        for document in documents:
            for call, took in ways.values():
                began = time.perf_counter()
                call(*document)
                took.append(time.perf_counter() - began)
        again = stack.enter_context(SpoolWriter(place / "again"))
        began = time.process_time()
        for document in documents:
            again(*document)
        report("direct callback", len(documents), time.process_time() - began)
    p50 = {name: statistics.median(took) for name, (_, took) in ways.items()}
    for name in ways:
        print(f"{name:<28} {p50[name] * 1e6:>12.1f} us p50")
    print(f"{'callback / append':<28} {p50['callback'] / p50['append']:>12.2f}")


def consumed(source: Any, count: int) -> float:
    """How many seconds it takes to have so many documents of a source in a spool."""
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        store = stack.enter_context(closing(Store(Path(place), source=source.name)))
        intake = stack.enter_context(Intake(store))
        consume(_Timed(source), store, intake, lambda: store.documents >= count)
        return time.process_time() - _Timed.began


class _Timed:
    """A source whose clock begins with its first document."""

    began = 0.0

    def __init__(self, source: Any) -> None:
        self._source, self.name = source, source.name
        self.acknowledge = source.acknowledge

    def documents(self) -> Iterator[Any]:
        """The same."""
        _Timed.began = 0.0
        for document in self._source.documents():
            if document is not None and not _Timed.began:
                _Timed.began = time.process_time()
            yield document


def archives(documents: list[tuple[str, Any]]) -> None:
    """JSON lines and msgpack."""
    with tempfile.TemporaryDirectory() as place:
        lines, packed = Path(place) / "a.jsonl", Path(place) / "a.msgpack"
        lines.write_text("".join(f"{json.dumps(pair)}\n" for pair in documents))
        packed.write_bytes(b"".join(msgpack.packb(pair, default=msgpack_numpy.encode) for pair in documents))
        for name, path in (("JSON lines", lines), ("msgpack", packed)):
            report(name, len(documents), consumed(ArchiveSource([path]), len(documents)))


def zmq(documents: list[tuple[str, Any]]) -> None:
    """From a 0MQ publisher, all of whose messages are there before the first is taken."""
    from bluesky.callbacks.zmq import Proxy, Publisher

    from bluesky_filestore.sources.zmq import ZMQSource

    proxy = Proxy("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
    into, out_of = proxy.in_port, proxy.out_port
    threading.Thread(target=proxy.start, daemon=True).start()
    source, publisher = ZMQSource(str(out_of).replace("tcp", "zmq")), Publisher(str(into))
    time.sleep(1.0)
    for begin in range(0, len(documents), 500):
        for document in documents[begin : begin + 500]:
            publisher(*document)
        # The publisher and the proxy drop what is more than a thousand messages ahead.
        time.sleep(0.2)
    report("0MQ", len(documents), consumed(source, len(documents)))


def kafka(documents: list[tuple[str, Any]]) -> None:
    """From a topic of librdkafka's own broker."""
    from bluesky_kafka import Publisher
    from confluent_kafka import Producer

    from bluesky_filestore.sources.kafka import KafkaSource

    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    address = f"{broker.host}:{broker.port}"
    publisher = Publisher("runs", address, "key", producer_config={"acks": "all", "linger.ms": 20})
    # This broker keeps 5 MB of a topic.
    documents = documents[:10_000]
    for document in documents:
        publisher(*document)
    publisher.flush()
    source = KafkaSource(f"kafka://{address}/runs")
    report("Kafka", len(documents), consumed(source, len(documents)))
    source.close()


def import_seconds() -> None:
    """How much longer a bare interpreter takes with the writer that only spools."""
    took = {}
    for name, code in (("bare", "pass"), ("SpoolWriter", "from bluesky_filestore import SpoolWriter")):
        times = []
        for _ in range(7):
            began = os.times()
            subprocess.run([sys.executable, "-c", code], check=True)
            ended = os.times()
            times.append(ended[2] + ended[3] - began[2] - began[3])
        took[name] = min(times)
    print(f"{'import over a bare start':<28} {took['SpoolWriter'] - took['bare']:>12.3f} s")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    documents = run_documents(parser.parse_args().events)
    import_seconds()
    direct(documents)
    archives(documents)
    zmq(documents)
    kafka(documents)


if __name__ == "__main__":
    main()

"""Documents from Kafka: a real client against librdkafka's own broker, which answers on a port of this machine."""

import random
import threading
import time
from contextlib import closing

import bluesky_kafka
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from consuming import consumer, ended, in_spool, key, wait_for
from small_runs import SmallRun, plain
from spooled import run_documents
from tiled.client import from_uri

from bluesky_filestore import documents as documents_of
from bluesky_filestore.errors import SourceError
from bluesky_filestore.sources.kafka import KafkaSource, properties_in
from bluesky_filestore.spool.status import look_at


@pytest.fixture(scope="module")
def broker():
    """The address of a broker."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    (found,) = cluster.list_topics(timeout=10).brokers.values()
    return f"{found.host}:{found.port}", cluster


def publish(address, topic, documents, pause=0.0):
    """Send documents as bluesky-kafka does."""
    publisher = bluesky_kafka.Publisher(topic, address, "a key", producer_config={"acks": "all"})
    for name, doc in documents:
        publisher(name, doc)
        time.sleep(pause)
    publisher.flush()


def committed(address, topic, group="bluesky-filestore"):
    """How many messages a group has dealt with."""
    asking = Consumer({"bootstrap.servers": address, "group.id": group})
    partitions = [TopicPartition(topic, number) for number in asking.list_topics(topic, 10).topics[topic].partitions]
    offsets = [each.offset for each in asking.committed(partitions, 10)]
    asking.close()
    return sum(max(0, offset) for offset in offsets)


def test_killed_at_random(tmp_path, broker, catalog, data_directory):
    """However often a consumer is killed, spool and catalog have each document once in the end, and Kafka knows it."""
    address, _ = broker
    small = SmallRun(data_directory, 31, events=150)
    runs = [small.documents, run_documents(150)[1], run_documents(150)[1]]
    documents, left = [], [list(documents) for documents in runs]
    chosen = random.Random(5)
    while any(left):
        documents.append(chosen.choice([each for each in left if each]).pop(0))
    (tmp_path / "kafka").write_text("# quick\nsession.timeout.ms=6000\ngroup.instance.id = one\n")
    arguments = [f"kafka://{address}/killed", "--spool", tmp_path / "spool", "--kafka-config", tmp_path / "kafka"]
    arguments += ["--catalog", catalog.uri, "--api-key", catalog.api_key]
    half = len(documents) // 2
    for begin, part in ((0, documents[:half]), (half, documents[half:])):
        publish(address, "killed", part[:5])
        with consumer(*arguments):
            wait_for(lambda begin=begin: in_spool(tmp_path / "spool").total() > begin)
            # What is there at once is taken at once: it shall be killed in between.
            sending = threading.Thread(target=publish, args=(address, "killed", part[5:], 0.004))
            sending.start()
            enough = begin + 5 + chosen.randrange(half // 2)
            wait_for(lambda enough=enough: in_spool(tmp_path / "spool").total() > enough)
        sending.join()
    with consumer(*arguments) as process:
        wait_for(lambda: in_spool(tmp_path / "spool").total() >= len(documents))
        wait_for(lambda: committed(address, "killed") == len(documents))
        wait_for(lambda: [each.runs for each in look_at(tmp_path / "spool").catalogs] == [{"delivered": 3}])
        assert ended(process) == 0
    assert in_spool(tmp_path / "spool") == {key(name, doc): 1 for name, doc in documents}
    client = from_uri(catalog.uri, api_key=catalog.api_key)
    with closing(client.context):
        small.compare(client)
        for of_run in runs:
            run = client[of_run[0][1]["uid"]]
            assert list(plain(documents_of(run))) == list(plain(of_run))
            assert "did not come" not in str(run.metadata["notes"])


def test_what_is_no_document(tmp_path, broker, caplog):
    """Messages of others are left out with a line in the log, and what follows is taken."""
    address, _ = broker
    other = Producer({"bootstrap.servers": address})
    other.produce("mixed", b"hello", key="a key")
    other.produce("mixed", b"", key="a key")
    other.flush()
    documents = run_documents(1)[1]
    publish(address, "mixed", documents)
    source = KafkaSource(f"kafka://{address}/mixed", group="other")
    came = []
    for document in source.documents():
        came += [document] if document is not None else []
        if len(came) == len(documents):
            break
    source.close()
    assert [name for name, _ in came] == [name for name, _ in documents]
    assert len([record for record in caplog.records if "is left out" in record.getMessage()]) == 2


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("kafka://", {}, "expected kafka://host:port/topic"),
        ("kafka://broker:9092", {}, "expected kafka://host:port/topic"),
        ("kafka://broker:9092/", {}, "expected kafka://host:port/topic"),
        ("zmq://broker:9092/topic", {}, "expected kafka://host:port/topic"),
        ("kafka://broker:9092/topic", {"enable.auto.commit": "true"}, "is not to be had otherwise"),
        ("kafka://broker:9092/topic", {"no.such": "option"}, "expected those of librdkafka"),
    ],
)
def test_what_is_wrong_is_said(address, options, said):
    """An address or an option that means nothing is an error before anything is read."""
    with pytest.raises(SourceError, match=said):
        KafkaSource(address, options=options)


def test_options_in_a_file(tmp_path):
    """Options come from a file as Kafka's tools have them; what is no option is said without showing it."""
    path = tmp_path / "client.properties"
    path.write_text("# of ours\n\nsasl.password = a=b\nsecurity.protocol=SASL_SSL\n")
    assert properties_in(path) == {"sasl.password": "a=b", "security.protocol": "SASL_SSL"}
    path.write_text("secret")
    with pytest.raises(SourceError, match=r"line 1 of .* expected name=value") as raised:
        properties_in(path)
    assert "secret" not in str(raised.value)

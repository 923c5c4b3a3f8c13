"""What OpenTelemetry is told."""

import subprocess
import sys

import pytest
from spooled import Applied, put, run_documents

from bluesky_filestore.live.metrics import KINDS
from bluesky_filestore.live.telemetry import observe


@pytest.fixture
def told(monkeypatch):
    """What a reader of OpenTelemetry's own SDK is told, by name and labels."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)

    def collect():
        data = reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {
            (metric.name.removeprefix("bluesky_filestore_"), *point.attributes.values()): point.value
            for scope in scopes
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    yield collect
    provider.shutdown()


def test_the_same_numbers(tmp_path, told):
    """Each metric that Prometheus has, and the numbers of a spool that waits; nothing once it is over."""
    _, documents = run_documents(3)
    put(tmp_path / "spool", documents, catalogs=[Applied.uri])
    over = []
    observe(lambda: [tmp_path / "spool"], lambda: bool(over))
    found = told()
    uri = "http://applied/api/v1/metadata/"
    assert found["documents_taken", "spool"] == found["documents_waiting", "spool", uri] == len(documents)
    assert found["runs", "spool", uri, "waiting"] == 1
    assert found["callback_seconds_count", "spool", "other"] >= 0
    assert {name for name, *_ in found} == {
        name.removesuffix("_total") + end
        for name, (kind, _) in KINDS.items()
        for end in (("_count", "_sum") if kind == "histogram" else ("",))
    }
    over.append(True)
    assert not told()


def test_without_the_package_nothing_is_missed(tmp_path):
    """Where it is not installed, and where nothing is set up, no spool is looked at."""
    program = (
        "import sys\n"
        "from bluesky_filestore.live.telemetry import observe\n"
        "observe(lambda: sys.exit('looked at'))\n"
        "import opentelemetry.metrics\n"
        "sys.modules['opentelemetry'] = sys.modules['opentelemetry.metrics'] = None\n"
        "observe(lambda: sys.exit('looked at'))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)

"""Every metric is declared once, with its meaning, and shown at /metrics."""

import re
import subprocess
import sys

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from shared.telemetry import metrics
from shared.telemetry.catalogue import METRICS, as_markdown
from shared.telemetry.metrics import (
    LABEL_VALUES_MAX,
    UnknownMetric,
    bounded,
    counter,
    gauge,
    histogram,
    metric,
    render_metrics,
)


def test_names_are_unique():
    names = [m.name for m in METRICS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("declared", METRICS, ids=lambda m: m.name)
def test_name_tells_service_kind_and_unit(declared):
    assert re.fullmatch(r"tieout_(ingest|matcher|alerts)_[a-z_]+|reconciliation_[a-z_]+", declared.name)
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    if declared.unit in ("seconds", "bytes"):
        assert declared.name.endswith(f"_{declared.unit}")
    assert bool(declared.buckets) == (declared.kind == "histogram")
    assert list(declared.buckets) == sorted(declared.buckets)
    assert declared.meaning.endswith(".")
    assert "|" not in declared.meaning


@pytest.mark.parametrize("declared", METRICS, ids=lambda m: m.name)
def test_label_never_holds_what_grows_with_the_traffic(declared):
    assert not {"org", "key", "record", "id", "account"} & set(declared.labels)


@pytest.mark.parametrize("declared", METRICS, ids=lambda m: m.name)
def test_each_metric_has_its_instrument(declared):
    kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
    assert type(metric(declared.name)) is kinds[declared.kind]
    assert metric(declared.name) is metric(declared.name)


def test_undeclared_metric_is_refused_and_says_where_to_declare_it():
    with pytest.raises(UnknownMetric, match=r"tieout_nope is not declared in shared/telemetry/catalogue\.py"):
        metric("tieout_nope")


def test_metric_of_another_kind_is_refused():
    with pytest.raises(UnknownMetric, match="is a gauge, not a counter"):
        counter("tieout_matcher_state_bytes")


def test_what_was_counted_is_rendered():
    before = rendered()
    counter("reconciliation_runs_total").labels(status="of this test").inc(3)
    gauge("tieout_matcher_partitions_owned").set(12)
    histogram("tieout_matcher_commit_seconds").observe(0.02)
    after = rendered()

    def grown(*sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert grown("reconciliation_runs_total", "of this test") == 3
    assert after["tieout_matcher_partitions_owned",] == 12
    assert grown("tieout_matcher_commit_seconds_bucket", "0.01") == 0
    assert grown("tieout_matcher_commit_seconds_bucket", "0.025") == 1


def rendered() -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    body, content_type = render_metrics()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_scraper_that_asks_for_openmetrics_gets_it():
    body, content_type = render_metrics("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_values_from_outside_are_bounded(monkeypatch):
    monkeypatch.setattr(metrics, "_values_seen", {})
    given = [bounded("type", f"t{n}") for n in range(LABEL_VALUES_MAX + 5)]
    assert given[-6:] == [f"t{LABEL_VALUES_MAX - 1}"] + ["other"] * 5
    assert (bounded("type", "t0"), bounded("source", "t999")) == ("t0", "t999")


def test_docs_page_lists_every_metric_once():
    rows = re.findall(r"^\| `(\w+)` \|", as_markdown(), re.MULTILINE)
    assert rows == [m.name for m in METRICS]


def test_generator_prints_the_page():
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "shared.telemetry.catalogue"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (printed.stdout, printed.stderr) == (as_markdown(), "")

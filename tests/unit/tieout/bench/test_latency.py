"""Figures of the latency benchmark."""

from tieout.bench.latency import Observed, Seen, _figures


def _seen(sent: float, topic_s: float, webhook_s: float) -> Seen:
    return Seen(sent, {"answered": sent + 0.01, "readable": sent + topic_s, "arrival": sent + webhook_s})


def test_percentiles_are_milliseconds_over_all_payments() -> None:
    payments = {f"pay_{n}": _seen(100.0, n / 1000, n / 500) for n in range(101)}
    figures = _figures(Observed(payments), events_per_second=500, seconds=1, sent=202)
    assert figures["topic_ms"] == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    assert figures["webhook_ms"] == {"p50": 100.0, "p99": 198.0, "max": 200.0}


def test_the_quietest_window_is_the_one_whose_webhooks_came_soonest() -> None:
    payments = {"a": _seen(100.0, 0.2, 0.9), "b": _seen(111.0, 0.1, 0.3), "c": _seen(122.0, 0.05, 0.5)}
    figures = _figures(Observed(payments), events_per_second=500, seconds=30, sent=6)
    assert figures["quietest_ms"]["webhook"] == {"p50": 300.0, "p99": 300.0, "max": 300.0}
    assert figures["quietest_ms"]["topic"]["p50"] == 100.0


def test_a_stage_counts_only_payments_seen_at_both_ends() -> None:
    whole = Seen(1.0, {"answered": 1.1, "inbox": 1.02, "leg": 1.05, "readable": 1.2, "arrival": 1.3})
    partly = Seen(1.0, {"answered": 1.1, "inbox": 1.5, "readable": 1.2, "arrival": 1.3})
    figures = _figures(Observed({"a": whole, "b": partly}), events_per_second=500, seconds=1, sent=4)
    assert figures["stages_ms"]["inbox to leg"] == {"p50": 30.0, "p99": 30.0, "max": 30.0}
    assert figures["stages_ms"]["leg to result"] == {}

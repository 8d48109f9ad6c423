"""A provider that could not be read: its check is in error until it can be again, and no balance changes by it."""

from pathlib import Path
from typing import Any

from shared.strict_yaml import parse_yaml
from tests.support.offline import run_offline

RULES = Path(__file__).parents[3] / "shared/packs/stack/rules.yaml"


def reading(minute: int, amount: str | None, **attrs: str) -> dict[str, Any]:
    event = {"source": "circle", "type": "balance.total", "id": f"r{minute}", "account": "usdc_buffer"}
    at = f"2026-11-20T10:{minute:02}:00Z"
    event |= {
        "org": "acme",
        "received_at": at,
        "currency": "USDC",
        "occurred_at": at,
        "attrs": {"accounts": "2"} | attrs,
    }
    return event | ({"amount": amount} if amount else {})


def test_a_failed_read_is_a_verdict_and_no_dead_letter() -> None:
    """What was found before it stays, and the next whole read is judged as ever."""
    document: Any = parse_yaml(RULES.read_text(), "rules.yaml")
    rule = next(one for one in document["rules"] if one["name"] == "stack.circle_balance")
    failed = reading(10, None, read_failed="rate_limited: GET /v1/w3s/wallets: 429 from the provider")
    events = [reading(0, "5"), reading(5, "4"), failed, reading(15, "5")]
    engine, refused = run_offline([rule], events, "2026-11-20T11:00:00Z")
    assert refused == 0
    assert [(one.result, one.difference, one.reason) for one in engine.checks] == [
        ("opening", None, None),
        ("failed", "-1.000000", None),
        ("error", None, "could not be read: rate_limited: GET /v1/w3s/wallets: 429 from the provider"),
        ("passed", "0.000000", None),
    ]
    assert not engine.dead_letters
    assert [one.state for one in engine.revisions] == ["raised", "resolved"]

"""The executable cases of `tests/cases/report.yaml`, laid over their defaults and turned into what a run reads."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from services.alerts.domain.history import (
    DiscrepancyHistory,
    ItemState,
    RaisedType,
    SideState,
    SideTotal,
)
from services.alerts.domain.period import Period, local_day
from services.alerts.domain.report import PriorRun, Reading, RuleSides

REPORT_CASES = Path(__file__).parents[3] / "cases" / "report.yaml"
NOT_LIVE = {"created", "pending", "authorized", "processing", "failed", "canceled", "voided", "expired"}


@dataclass(frozen=True)
class ReportCase:
    """One case: what is stored, and the figures that count."""

    name: str
    period: Period
    rules: list[RuleSides]
    reading: Reading
    expect: dict[str, Any]


def load_report_cases(path: Path = REPORT_CASES) -> list[ReportCase]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [_case(raw, document["defaults"]) for raw in document["cases"]]


def _case(raw: dict[str, Any], defaults: dict[str, Any]) -> ReportCase:
    zone = raw.get("zone", "UTC")
    default_sides = tuple(defaults["rules"][0]["sides"])
    rules = [
        RuleSides(rule["name"], tuple(rule.get("sides", default_sides))) for rule in raw.get("rules", defaults["rules"])
    ]
    sides = {rule.name: rule.sides for rule in rules}
    at = instant(raw["at"])
    items, discrepancies = [], []
    for place, fields in enumerate(raw["items"]):
        rule = fields.get("rule", defaults["rules"][0]["name"])
        revisions = [
            _revision(f"item-{place}", rule, sides[rule], {**fields, **revision}, defaults["leg"], at)
            for revision in fields.get("revisions", [{}])
        ]
        items.append([state for state, _ in revisions])
        discrepancies += revisions[-1][1]
    return ReportCase(
        name=raw["name"],
        period=Period(date.fromisoformat(raw["period"]["start"]), date.fromisoformat(raw["period"]["end"]), zone),
        rules=rules,
        reading=Reading(
            at=at,
            progress=instant(raw.get("progress", raw["at"])),
            items=items,
            discrepancies=discrepancies,
            prior_runs=[
                PriorRun(
                    Period(local_day(instant(run["start"]), zone), local_day(instant(run["end"]), zone), zone),
                    instant(run["completed_at"]),
                )
                for run in raw.get("prior_runs", [])
            ],
        ),
        expect=raw["expect"]["reports"],
    )


def _revision(
    item_id: str, rule: str, sides: tuple[str, ...], fields: dict[str, Any], leg: dict[str, Any], at: datetime
) -> tuple[ItemState, list[DiscrepancyHistory]]:
    legs = {side: {**leg, **fields[side]} for side in sides if side in fields}
    times = [instant(one["occurred_at"]) for one in legs.values()]
    first = legs.get(sides[0])
    currency = next(iter(legs.values()))["currency"]
    histories = [
        _history(f"{item_id}-{place}", rule, fields["key"], one, currency, min(times))
        for place, one in enumerate(fields.get("discrepancies", []))
    ]
    made_at = instant(fields["at"]) if "at" in fields else min(times)
    state = ItemState(
        item_id=item_id,
        rule=rule,
        key=fields["key"],
        status=fields["status"],
        at=made_at,
        occurred_at=instant(first["occurred_at"]) if first else min(times),
        live=any(one["status"] not in NOT_LIVE for one in legs.values()),
        sides={side: _side(legs[side]) if side in legs else None for side in sides},
        raised=tuple(
            RaisedType(one.type, one.difference, one.currency)
            for one in histories
            if len(one.until(at).raised) > len(one.until(at).resolved)
        ),
    )
    return state, histories


def _side(leg: dict[str, Any]) -> SideState:
    if leg["status"] in NOT_LIVE:
        return SideState()
    return SideState(totals={leg["currency"]: SideTotal(leg.get("count", 1), Decimal(leg["amount"]))})


def _history(
    id_: str, rule: str, key: str, fields: dict[str, Any], currency: str, first_leg: datetime
) -> DiscrepancyHistory:
    difference = fields.get("difference")
    return DiscrepancyHistory(
        discrepancy_id=id_,
        rule=rule,
        type=fields["type"],
        key=key,
        currency=fields.get("currency", currency),
        difference=None if difference is None else Decimal(difference),
        raised=tuple(instant(time) for time in fields.get("raised", [])) or (first_leg,),
        resolved=tuple(instant(time) for time in fields.get("resolved", [])),
    )


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)

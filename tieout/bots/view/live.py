"""How the bots stand by what alerts has stored: the same findings that `reconcile` reports."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from shared.contracts.discrepancy import Check, Discrepancy, LogPosition
from shared.packs.bots.findings import findings_of
from shared.packs.bots.names import INPUT_RULE, PARITY_RULE, STATE_RULE
from shared.packs.bots.thresholds import Thresholds
from tieout.api import AlertsApi
from tieout.bots.view.standing import Figures, Standing, bots_of

PACK = "bots"
CHECKS_ROWS = 1_000
DISCREPANCY_ROWS = 200
LOOK_BACK = timedelta(days=1)
"""Of bots that said nothing for longer only what is open is shown."""
LATE = timedelta(minutes=5)
"""How long after its log time a verdict may be stored; the next look asks for those again."""

Place = tuple[str, str, str | None, str | None]
"""Rule, bot, check, currency."""


@dataclass(slots=True)
class LiveView:
    """Looks at alerts again and again; only what was judged since the last look is asked for."""

    api: AlertsApi
    _last: dict[Place, Check] = field(default_factory=dict)
    _looked_at: datetime | None = None

    def standing(self, thresholds: Thresholds) -> Standing:
        """Ask alerts for what is open and for the last verdicts.

        Raises:
            TieoutError: alerts does not answer, or refuses the key.
        """
        now = datetime.now(UTC)
        since = now - LOOK_BACK if self._looked_at is None else self._looked_at - LATE
        for row in _checks(self.api, {"pack": PACK, "latest": "true", "judged_since": since.isoformat()}):
            check = _check(row)
            place = (check.rule, str(check.key), check.code, check.currency)
            if place not in self._last or _rank(self._last[place]) <= _rank(check):
                self._last[place] = check
        self._looked_at = now
        checks = [check for check in self._last.values() if check.log.time >= now - LOOK_BACK]
        findings = findings_of((_discrepancy(row) for row in _open(self.api)), _still_true(checks), thresholds)
        names = {str(check.key) for check in checks if thresholds.of(str(check.key)).enabled}
        return Standing(f"alerts at {self.api.url}", now, bots_of(names, findings, _last_figures(checks)), findings)


def standing_of_alerts(api: AlertsApi, thresholds: Thresholds) -> Standing:
    """Ask alerts once; see `LiveView.standing`."""
    return LiveView(api).standing(thresholds)


def _still_true(checks: list[Check]) -> Iterator[Check]:
    """Leave out what says `stale` where a newer reading has been judged since."""
    newest: dict[tuple[str, str], tuple[datetime, int]] = {}
    for check in checks:
        place = (check.rule, str(check.key))
        newest[place] = max(newest.get(place, _rank(check)), _rank(check))
    for check in checks:
        if check.result != "stale" or _rank(check) == newest[check.rule, str(check.key)]:
            yield check


def _rank(check: Check) -> tuple[datetime, int]:
    return check.log.time, check.log.offset


def _last_figures(checks: Iterable[Check]) -> dict[str, Figures]:
    said: dict[str, dict[str, Check]] = {}
    for check in checks:
        if check.rule == STATE_RULE and check.code in {"inventory_drift", "exchange_drift"}:
            said.setdefault(str(check.key), {})[check.code] = check
    found = {}
    for bot, codes in said.items():
        inventory, exchange = codes.get("inventory_drift"), codes.get("exchange_drift")
        told = [check for check in (inventory, exchange) if check is not None]
        found[bot] = Figures(
            max(check.as_of for check in told),
            next((_number(check.actual) for check in told if check.actual is not None), None),
            _number(inventory.expected) if inventory is not None else None,
            _number(exchange.expected) if exchange is not None else None,
        )
    return found


def _open(api: AlertsApi) -> Iterator[Mapping[str, Any]]:
    for rule in (STATE_RULE, PARITY_RULE, INPUT_RULE):
        query = {"rule": rule, "state": "raised", "limit": str(DISCREPANCY_ROWS)}
        # What a person has settled with a reason is theirs until it changes.
        yield from (row for row in _pages(api, "/v1/discrepancies", query) if row["status"] != "resolved")


def _checks(api: AlertsApi, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    return _pages(api, "/v1/checks", {**query, "limit": str(CHECKS_ROWS)})


def _pages(api: AlertsApi, path: str, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    cursor: str | None = None
    while True:
        answer = api.get(path, query if cursor is None else {**query, "cursor": cursor})
        yield from answer["data"]
        cursor = answer["next_cursor"]
        if cursor is None:
            return


def _discrepancy(row: Mapping[str, Any]) -> Discrepancy:
    said = {name: row[name] for name in Discrepancy.__struct_fields__ if name in row}
    # Only what findings are made of: a person's reason stands under the engine's name here.
    return msgspec.convert(said | {"sides": {}, "reason": row.get("cause")}, Discrepancy, strict=False)


def _check(row: Mapping[str, Any]) -> Check:
    return Check(
        org="",
        rule=row["rule"],
        pack=row["pack"],
        key=row["key"],
        code=row["code"],
        result=row["result"],
        currency=row["currency"],
        as_of=_time(row["as_of"]),
        expected=row["expected"],
        actual=row["actual"],
        difference=row["difference"],
        log=LogPosition(partition=row["log_partition"], offset=row["log_offset"], time=_time(row["log_time"])),
        reason=row["reason"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _number(text: str | None) -> Decimal | None:
    try:
        number = Decimal(text) if text is not None else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None

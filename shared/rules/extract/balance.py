"""Legs of `balance` rules: movements and readings of an account. All currencies of an account go to one cell."""

from shared.contracts.dead_letter import Reason
from shared.contracts.event import Event
from shared.contracts.leg import Leg, group_key
from shared.rules.balance_rule import PARTS_JOINED_BY, BalanceRule, BalanceRuleModel
from shared.rules.extract.common import (
    KeyedLeg,
    Place,
    Problem,
    SignOf,
    filled,
    getter,
    leg_of,
    no_amount,
    signed,
)
from shared.rules.parts import Selector

MOVEMENT, READING = 0, 1
"""`side` of a leg: the place of its selector."""
ERROR = "error"
"""In the `values` of a reading's leg: why it is a dead letter; the matcher publishes it as a verdict."""
ACCOUNTS_READ = "accounts"
"""In a reading's attrs: how many accounts the read returned; none means that it says nothing, least of all zero."""
READ_FAILED = "read_failed"
"""In a reading's attrs: why its source could not be read. Nothing to send again, so no dead letter; a verdict all the same."""
READ_FAILED_LENGTH_MAX = 300
ONE = "1"
"""What a movement counts where movements are counted."""


class _Taker:
    """What movements and readings have in common: the account."""

    def __init__(self, rule: BalanceRule, model: BalanceRuleModel, selector: Selector) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.source = selector.source
        self.types = tuple(selector.type)
        self._fields = tuple(model.key)
        self._key = tuple(getter(field) for field in model.key)

    def _account(self, event: Event) -> tuple[str, ...] | None:
        key = [get(event) for get in self._key]
        return tuple(key) if filled(key) else None  # type: ignore[arg-type]  # filled: all text

    def _group(self, account: tuple[str, ...]) -> bytes:
        return group_key(self.rule.org, self.rule.name, account)

    def _is_watched(self, account: tuple[str, ...]) -> bool:
        return self.rule.watch_of(PARTS_JOINED_BY.join(account)).enabled

    def _no_account(self, event: Event) -> Problem:
        return Problem(
            self.rule_name,
            "no match key",
            f"{event.source} event {event.id}: {' or '.join(self._fields)} is empty, so no account has it",
            "Fix the producer or its mapping and send the event again under a new id; it counts nowhere until then.",
        )

    def _leg(
        self,
        side: int,
        event: Event,
        place: Place,
        amount: str | None,
        adjusts: str | None = None,
        values: dict[str, str] | None = None,
    ) -> Leg:
        leg = leg_of(self.generation, side, event, place, amount, adjusts, values)
        if self.rule.counts:
            leg.currency = None
        return leg


class MovementTaker(_Taker):
    """What changes balances."""

    def __init__(self, rule: BalanceRule, model: BalanceRuleModel) -> None:
        super().__init__(rule, model, model.movements)
        self._sign = SignOf(model.movements)

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of a movement; without an account it counts nowhere."""
        problem, amount = (None, ONE) if self.rule.counts else self._amount(event)
        account = self._account(event)
        if account is None:
            problems.append(problem or self._no_account(event))
            return
        if problem is not None:
            self._complain(account, problem, problems)
            return
        legs.append((self._group(account), self._leg(MOVEMENT, event, place, amount)))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add an adjustment where it names an account; it has the sign of a movement, and an amount even where others are counted."""
        account = self._account(event)
        if account is None:
            return False
        problem, amount = self._amount(event)
        if problem is not None:
            self._complain(account, problem, problems)
        else:
            leg = self._leg(MOVEMENT, event, place, amount, adjusts=event.refs["discrepancy"])
            legs.append((self._group(account), leg))
        return True

    def _complain(self, account: tuple[str, ...], problem: Problem, problems: list[Problem]) -> None:
        """Add a problem, except of an account that is switched off."""
        if self._is_watched(account):
            problems.append(problem)

    def _amount(self, event: Event) -> tuple[Problem | None, str | None]:
        """Return the signed amount, or why an event that counts has none. One that does not count needs none."""
        live = self.rule.movements.is_live(event.status)
        missing = "amount" if event.amount is None else None
        if missing is None and event.currency is None and not self.rule.counts:
            missing = "currency"
        if live and missing:
            return no_amount(self.rule_name, event, missing), None
        sign = self._sign.of(event)
        if sign is None and live:
            return self._sign.problem(self.rule_name, event), None
        if event.amount is None or sign is None:
            return None, None
        return None, signed(event.amount, sign)


class ReadingTaker(_Taker):
    """What says how much there is."""

    def __init__(self, rule: BalanceRule, model: BalanceRuleModel) -> None:
        super().__init__(rule, model, model.snapshots)

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of a reading. One that says nothing is a dead letter, and the matcher is told why."""
        account = self._account(event)
        failed = event.attrs.get(READ_FAILED)
        if failed:
            self._take_failure(event, place, account, failed, legs)
            return
        reason = self._unusable(event)
        if reason is not None and account is not None and not self._is_watched(account):
            return
        if reason is not None:
            problems.append(self._problem(reason, event))
        elif account is None:
            problems.append(self._no_account(event))
        if account is None:
            return
        values: dict[str, str] | None = None if reason is None else {ERROR: reason}
        legs.append((self._group(account), self._leg(READING, event, place, event.amount, values=values)))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:  # noqa: ARG002 - protocol
        """An adjustment is booked among the movements."""
        return False

    def _take_failure(
        self, event: Event, place: Place, account: tuple[str, ...] | None, failed: str, legs: list[KeyedLeg]
    ) -> None:
        if account is None or not self._is_watched(account):
            return
        values = {ERROR: f"could not be read: {failed}"[:READ_FAILED_LENGTH_MAX]}
        legs.append((self._group(account), self._leg(READING, event, place, None, values=values)))

    def _unusable(self, event: Event) -> Reason | None:
        if event.attrs.get(ACCOUNTS_READ) == "0":
            return "empty read"
        if event.amount is None or (event.currency is None and not self.rule.counts):
            return "no amount"
        return None

    def _problem(self, reason: Reason, event: Event) -> Problem:
        if reason == "no amount":
            return no_amount(self.rule_name, event, "amount" if event.amount is None else "currency")
        return Problem(
            self.rule_name,
            reason,
            f"{event.source} event {event.id}: the read returned no accounts, which says nothing about any balance",
            "Look why the source returned nothing and read again; nothing was judged by this reading.",
        )


def balance_takers(rule: BalanceRule, model: BalanceRuleModel) -> list[MovementTaker | ReadingTaker]:
    """Return the takers of a rule."""
    return [MovementTaker(rule, model), ReadingTaker(rule, model)]

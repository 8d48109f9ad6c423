"""Generated movements as a matcher would judge them: cents on each side, and the discrepancies that follow from them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from services.alerts.domain.history import DiscrepancyHistory, ItemState, RaisedType, SideState, SideTotal
from shared.contracts.item import ItemStatus

START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH_S = 30 * 24 * 3600
TOLERANCE_CENTS = 2


@dataclass(frozen=True)
class Scenario:
    """Cents of the live records per side; a deadline that has passed or not; two currencies or one."""

    internal: tuple[int, ...]
    provider: tuple[int, ...]
    second: int
    late: bool
    foreign: bool
    failed: bool
    """The provider's only record is failed: it is there and not live."""

    def currency_of(self, side: str) -> str:
        return "USD" if self.foreign and side == "provider" and self.internal else "EUR"

    @property
    def raised(self) -> tuple[RaisedType, ...]:
        found: list[RaisedType] = []
        internal, provider = self.internal, self.provider
        if internal and provider:
            if self.foreign:
                found.append(RaisedType("CurrencyMismatch", None, "EUR", "provider"))
            elif abs(provider[0] - internal[0]) > TOLERANCE_CENTS:
                found.append(self._of("AmountMismatch", provider[0] - internal[0], "provider"))
        elif internal and self.failed:
            found.append(RaisedType("StatusMismatch", None, "EUR", "provider"))
        elif internal and self.late:
            found.append(self._of("MissingProviderRecord", -internal[0], "provider"))
        elif provider and self.late:
            found.append(self._of("MissingInternalRecord", provider[0], "internal"))
        found += [self._of("DuplicateChargeSuspected", -cents, "internal") for cents in internal[1:]]
        found += [self._of("DuplicateChargeSuspected", cents, "provider") for cents in provider[1:]]
        return tuple(found)

    @property
    def status(self) -> ItemStatus:
        if self.raised:
            return "discrepant"
        return "matched" if self.internal and self.provider else "pending"

    def item(self, place: int) -> ItemState:
        return ItemState(
            item_id=f"item-{place}",
            rule="billing.payments",
            key=f"p{place}",
            status=self.status,
            at=START + timedelta(seconds=self.second),
            occurred_at=START + timedelta(seconds=self.second),
            live=bool(self.internal or self.provider),
            sides={
                "internal": self._side("internal"),
                "provider": SideState() if self.failed and not self.provider else self._side("provider"),
            },
            raised=self.raised,
        )

    def _side(self, side: str) -> SideState | None:
        cents: tuple[int, ...] = getattr(self, side)
        if not cents:
            return None
        total = SideTotal(len(cents), Decimal(sum(cents)).scaleb(-2))
        return SideState(totals={self.currency_of(side): total})

    def _of(self, type_: str, cents: int, side: str) -> RaisedType:
        currency = self.currency_of("provider" if side == "provider" and self.provider else "internal")
        if side == "internal" and not self.internal:
            currency = self.currency_of("provider")
        return RaisedType(type_, Decimal(cents).scaleb(-2), currency, side)


def scenarios() -> st.SearchStrategy[Scenario]:
    cents = st.integers(1, 10_000_000)
    side = st.one_of(st.just(()), st.tuples(cents), st.tuples(cents), st.lists(cents, max_size=3).map(tuple))

    def near(pair: tuple[tuple[int, ...], tuple[int, ...], int | None]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        internal, provider, drift = pair
        if drift is None or not internal or not provider:
            return internal, provider
        return internal, (max(1, internal[0] + drift), *provider[1:])

    sides = st.tuples(side, side, st.one_of(st.none(), st.sampled_from([-3, -2, -1, 0, 0, 0, 1, 2, 3]))).map(near)
    return st.builds(
        lambda pair, second, late, foreign, failed: Scenario(*pair, second, late, foreign, failed),
        sides,
        st.integers(0, MONTH_S - 1),
        st.booleans(),
        st.sampled_from([False, False, True]),
        st.booleans(),
    )


@st.composite
def histories(draw: st.DrawFn) -> DiscrepancyHistory:
    hours = sorted(draw(st.sets(st.integers(-24 * 60, 24 * 31), min_size=1, max_size=6)))
    times = [START + timedelta(hours=hour) for hour in hours]
    return DiscrepancyHistory(
        discrepancy_id="d",
        rule="billing.payments",
        type=draw(st.sampled_from(["AmountMismatch", "MissingProviderRecord", "StatusMismatch"])),
        key="p1",
        currency=draw(st.sampled_from(["EUR", "USD"])),
        difference=draw(st.one_of(st.none(), st.integers(-10_000, 10_000).map(lambda n: Decimal(n).scaleb(-2)))),
        raised=tuple(times[::2]),
        resolved=tuple(times[1::2]),
        severity=draw(st.sampled_from(["low", "medium", "high", "critical"])),
    )

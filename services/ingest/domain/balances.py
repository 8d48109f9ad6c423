"""What a provider said its accounts hold, and the readings (`balance.*` events) that it becomes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple, get_args

from msgspec import Meta

from shared.contracts.event import TEXT_LENGTH_MAX, PostedEvent
from shared.money import AmountError, exact_sum, format_amount, is_currency, parse_amount

PollResult = Literal[
    "ok",
    "empty",
    "unauthorised",
    "refused",
    "rate_limited",
    "unavailable",
    "timeout",
    "not_whole",
    "unknown_currency",
    "stale",
    "unreadable",
    "not_published",
]
"""What became of one look at a provider; only `ok` published anything, `not_published` perhaps a part."""
RESULTS: tuple[PollResult, ...] = get_args(PollResult)

ProviderId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
"""A provider's id of a wallet or account: it stands in addresses and in events."""
TOTAL, USER = "balance.total", "balance.user"
"""Types of the events: the sum over all accounts, and what one account or user holds."""
CREATED_MARGIN = timedelta(minutes=1)
"""How far the provider's clock may be from ours when it dates a new account."""
NAMES_SHOWN_MAX = 5
FAILURE_LENGTH_MAX = 250
"""Characters of a failure that stand in its event."""


class ReadFailed(Exception):
    """A read that says nothing about any balance; `result` is its kind, the message what a person should know."""

    def __init__(self, result: PollResult, detail: str) -> None:
        super().__init__(detail)
        self.result: PollResult = result


class Holding(NamedTuple):
    """What one account holds in one currency."""

    id: str
    """The provider's id of the wallet or account."""
    account: str
    """What the ledger calls it; several wallets may belong to one."""
    currency: str
    amount: Decimal


class Reading(NamedTuple):
    """A whole read of all accounts."""

    as_of: datetime
    """When the read began: what moves while it lasts shows as explained by a movement dated later."""
    accounts: int
    holdings: Sequence[Holding]
    left_out: Mapping[str, int]
    """Accounts and balances that were seen and not counted, by why: shown to people, so that nothing is lost unseen."""


def exact_amount(value: Decimal, of: str) -> Decimal:
    """Return `value` as an amount of ours.

    Raises:
        ReadFailed: no number, or more digits than an amount can have.
    """
    if not value.is_finite():
        raise ReadFailed("unreadable", f"the balance of {of} is no number")
    try:
        return parse_amount(format(value, "f"))
    except AmountError as error:
        raise ReadFailed("unreadable", f"the balance of {of}: {error}") from None


def known_currency(code: str, of: str) -> str:
    """Return `code`.

    Raises:
        ReadFailed: it is neither an ISO 4217 code nor a token that tieout knows.
    """
    if not is_currency(code):
        raise ReadFailed(
            "unknown_currency",
            f"{of} holds {code[:16]!r}, which is neither an ISO 4217 code nor a token that tieout knows; "
            "nothing was published, because a total without it would be wrong",
        )
    return code


def check_listings(
    before: Mapping[str, datetime | None], after: Mapping[str, datetime | None], began_at: datetime
) -> None:
    """Compare the lists of accounts from before and after their balances were read.

    Paging that skips an account shows as one that only one of the lists has; accounts that are new are no fault.

    Raises:
        ReadFailed: an account is in one list only and not new.
    """
    gone = sorted(before.keys() - after.keys())
    skipped = sorted(
        name
        for name in after.keys() - before.keys()
        if (created := after[name]) is not None and created < began_at - CREATED_MARGIN
    )
    if not gone and not skipped:
        return
    shown = ", ".join((gone + skipped)[:NAMES_SHOWN_MAX])
    raise ReadFailed(
        "not_whole",
        f"two lists of the accounts differ: {len(skipped)} were left out of the first, {len(gone)} of the second "
        f"({shown}); nothing was published",
    )


def check_count(accounts: int, accounts_min: int) -> None:
    """Refuse a read of nothing, or of fewer accounts than there must be.

    Raises:
        ReadFailed: an empty answer is an error and never a balance of zero.
    """
    if accounts == 0:
        raise ReadFailed("empty", "the provider returned no accounts at all, which says nothing about any balance")
    if accounts < accounts_min:
        raise ReadFailed(
            "not_whole", f"the provider returned {accounts} accounts, and accounts_min says there are {accounts_min}"
        )


def account_name(template: str, fields: Mapping[str, str | None], fallback: str) -> str:
    """Return the ledger's name of an account; `fallback` where the provider has left a used field empty."""
    for name, value in fields.items():
        place = f"{{{name}}}"
        if place not in template:
            continue
        if not value:
            return fallback
        template = template.replace(place, value)
    return template[:TEXT_LENGTH_MAX]


def readings(reading: Reading, *, source: str, total_account: str, users: bool) -> list[PostedEvent]:
    """Return the events of a whole read: one per total, and one per account of the ledger and currency."""
    totals: defaultdict[str, list[Holding]] = defaultdict(list)
    named: defaultdict[tuple[str, str], list[Holding]] = defaultdict(list)
    for holding in reading.holdings:
        totals[holding.currency].append(holding)
        named[holding.account, holding.currency].append(holding)
    events = [
        _event(reading, source, TOTAL, total_account, currency, totals[currency], reading.accounts)
        for currency in sorted(totals)
    ]
    if users:
        events += [
            _event(reading, source, USER, account, currency, held, len(held))
            for (account, currency), held in sorted(named.items())
        ]
    return events


def _event(
    reading: Reading, source: str, type_: str, account: str, currency: str, held: Sequence[Holding], accounts: int
) -> PostedEvent:
    as_of = reading.as_of.astimezone(UTC)
    stamp = as_of.strftime("%Y%m%dT%H%M%S.%fZ")
    kind = type_.rpartition(".")[2]
    record = f"{kind}:{account}:{currency}"[: TEXT_LENGTH_MAX - len(stamp) - 1]
    return PostedEvent(
        source=source,
        type=type_,
        id=f"{record}:{stamp}",
        record=record,
        occurred_at=as_of,
        account=account,
        amount=format_amount(exact_sum(one.amount for one in held), currency),
        currency=currency,
        attrs={"accounts": str(accounts)},
    )


def failed_reading(
    failed: PollResult, detail: str, at: datetime, *, source: str, account: str, currency: str
) -> PostedEvent:
    """Return the event that says that a source could not be read: no balance, but a verdict that no run passes over."""
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    record = f"failed:{account}:{currency}"[: TEXT_LENGTH_MAX - len(stamp) - 1]
    return PostedEvent(
        source=source,
        type=TOTAL,
        id=f"{record}:{stamp}",
        record=record,
        occurred_at=at.astimezone(UTC),
        account=account,
        currency=currency,
        attrs={"read_failed": f"{failed}: {detail}"[:FAILURE_LENGTH_MAX]},
    )


def counted(reasons: Sequence[str]) -> dict[str, int]:
    """Count reasons for leaving something out."""
    return dict(sorted(Counter(reasons).items()))

"""Alpaca Broker API (docs.alpaca.markets): what its list of accounts and its trading accounts say."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from services.ingest.domain.balances import Holding, ProviderId, ReadFailed, account_name, exact_amount, known_currency

NAME_FIELDS = ("id", "account_number")
"""What a template of the ledger's account names may use."""
Figure = Literal["buying_power", "non_marginable_buying_power", "cash", "cash_withdrawable", "equity"]
"""Which figure of a trading account is its balance."""
NEVER_OPENED = frozenset(
    {
        "ACTION_REQUIRED",
        "AML_REVIEW",
        "APPROVAL_PENDING",
        "APPROVED",
        "INACTIVE",
        "KYC_SUBMITTED",
        "ONBOARDING",
        "PAPER_ONLY",
        "REJECTED",
        "RESUBMITTED",
        "SIGNED_UP",
        "SUBMISSION_FAILED",
        "SUBMITTED",
    }
)
"""Statuses of accounts that cannot hold money yet. Every other one is read: closed, limited and unknown ones too, and those
that wait to be approved again, because they held money before. `INACTIVE` is of one kind of trading only."""
AS_OF_AGE_MAX = timedelta(days=7)
"""`balance_asof` is the last close: after a long weekend some days old, never a week."""


class Account(msgspec.Struct):
    """One line of `GET /v1/accounts`."""

    id: ProviderId
    status: str
    created_at: datetime
    account_number: str | None = None
    currency: str | None = None
    crypto_status: str | None = None

    @property
    def never_opened(self) -> bool:
        """Tell whether it can hold nothing yet. An account may be open for crypto alone."""
        return self.status in NEVER_OPENED and (self.crypto_status is None or self.crypto_status in NEVER_OPENED)


class TradingAccount(msgspec.Struct):
    """`GET /v1/trading/accounts/{id}/account`; figures by their text, whether strings or numbers."""

    currency: str
    buying_power: Decimal | None = None
    non_marginable_buying_power: Decimal | None = None
    cash: Decimal | None = None
    cash_withdrawable: Decimal | None = None
    equity: Decimal | None = None
    balance_asof: date | None = None


class Options(NamedTuple):
    """Which figure counts and what the ledger calls an account."""

    figure: Figure
    user_account: str


_accounts = msgspec.json.Decoder(list[Account]).decode
_trading = msgspec.json.Decoder(TradingAccount).decode


def read_accounts(body: bytes) -> list[Account]:
    """Read one page of the accounts.

    Raises:
        ReadFailed: it is not what the documentation says.
    """
    try:
        return _accounts(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReadFailed("unreadable", f"Alpaca's list of accounts: {error}") from None


def holding(account: Account, body: bytes, options: Options, today: date) -> Holding:
    """Read what an account holds.

    Raises:
        ReadFailed: not readable, without the figure, in an unknown currency, or days old.
    """
    try:
        trading = _trading(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReadFailed("unreadable", f"Alpaca's account {account.id}: {error}") from None
    amount: Decimal | None = getattr(trading, options.figure)
    if amount is None:
        raise ReadFailed("unreadable", f"Alpaca's account {account.id} has no {options.figure}")
    if trading.balance_asof is not None and today - trading.balance_asof > AS_OF_AGE_MAX:
        raise ReadFailed("stale", f"Alpaca's account {account.id} is as of {trading.balance_asof}; today is {today}")
    name = account_name(
        options.user_account,
        {"id": account.id, "account_number": account.account_number},
        f"alpaca:{account.id}",
    )
    currency = known_currency(trading.currency, f"account {account.id}")
    return Holding(account.id, name, currency, exact_amount(amount, f"account {account.id}"))

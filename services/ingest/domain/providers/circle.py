"""Circle Wallets (developers.circle.com, `/v1/w3s`): what its lists of wallets and token balances say."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from services.ingest.domain.balances import Holding, ProviderId, ReadFailed, account_name, exact_amount, known_currency

NAME_FIELDS = ("id", "ref_id", "user_id", "address")
"""What a template of the ledger's account names may use."""


class Wallet(msgspec.Struct, rename="camel"):
    """One wallet. Frozen ones hold money as well, so every state counts."""

    id: ProviderId
    create_date: datetime | None = None
    blockchain: str | None = None
    address: str | None = None
    ref_id: str | None = None
    user_id: str | None = None


class _Token(msgspec.Struct, rename="camel"):
    id: str | None = None
    symbol: str | None = None
    blockchain: str | None = None


class TokenBalance(msgspec.Struct, rename="camel"):
    """What a wallet holds of one token; the amount by its text, whether Circle writes a string or a number."""

    amount: Decimal
    token: _Token

    @property
    def key(self) -> str:
        """Return what names the token within its wallet."""
        return self.token.id or f"{self.token.blockchain}:{self.token.symbol}"


class _Wallets(msgspec.Struct):
    wallets: list[Wallet]


class _WalletsAnswer(msgspec.Struct):
    data: _Wallets


class _Balances(msgspec.Struct, rename="camel"):
    token_balances: list[TokenBalance]


class _BalancesAnswer(msgspec.Struct):
    data: _Balances


class Options(NamedTuple):
    """Which tokens count and what the ledger calls a wallet."""

    currencies: tuple[str, ...]
    token_ids: frozenset[str]
    """Circle's ids of the genuine tokens; empty: by symbol."""
    user_account: str


_wallets = msgspec.json.Decoder(_WalletsAnswer).decode
_balances = msgspec.json.Decoder(_BalancesAnswer).decode


def read_wallets(body: bytes) -> list[Wallet]:
    """Read one page of `GET /v1/w3s/wallets`.

    Raises:
        ReadFailed: it is not what the documentation says.
    """
    try:
        return _wallets(body).data.wallets
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReadFailed("unreadable", f"Circle's list of wallets: {error}") from None


def read_balances(body: bytes, wallet: str) -> list[TokenBalance]:
    """Read one page of `GET /v1/w3s/wallets/{id}/balances`.

    Raises:
        ReadFailed: it is not what the documentation says.
    """
    try:
        return _balances(body).data.token_balances
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ReadFailed("unreadable", f"Circle's balances of wallet {wallet}: {error}") from None


def holdings(wallet: Wallet, balances: Sequence[TokenBalance], options: Options) -> tuple[list[Holding], list[str]]:
    """Return what a wallet holds in each wished currency, zero where it has none, and why the rest is left out.

    Anybody can make a token that calls itself USDC and send it to a wallet: two of one symbol are refused until
    `token_ids` says which is genuine.

    Raises:
        ReadFailed: two tokens of one symbol, or an amount that is none.
    """
    fields = {"id": wallet.id, "ref_id": wallet.ref_id, "user_id": wallet.user_id, "address": wallet.address}
    account = account_name(options.user_account, fields, f"circle:{wallet.id}")
    held: dict[str, Decimal] = {}
    left_out: list[str] = []
    for balance in balances:
        symbol = balance.token.symbol or "a token without symbol"
        if symbol not in options.currencies:
            left_out.append(symbol)
            continue
        if options.token_ids and balance.token.id not in options.token_ids:
            left_out.append(f"{symbol} that is not in token_ids")
            continue
        if symbol in held:
            raise ReadFailed(
                "not_whole",
                f"wallet {wallet.id} holds two tokens that call themselves {symbol}; name the genuine one in token_ids",
            )
        held[known_currency(symbol, f"wallet {wallet.id}")] = exact_amount(balance.amount, f"wallet {wallet.id}")
    found = [Holding(wallet.id, account, code, held.get(code, Decimal(0))) for code in options.currencies]
    return found, left_out

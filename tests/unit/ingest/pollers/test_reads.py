"""Circle and Alpaca on a local port: what a whole read publishes, and what is no whole read publishes nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stamina
from aiohttp import web

from services.ingest.adapters.pollers import http
from services.ingest.adapters.pollers.file import read_pollers
from services.ingest.adapters.pollers.source import balance_session, balance_source
from services.ingest.ports import Appended, InboxAway
from services.ingest.use_cases.poll_balances import PollReport, poll_balances
from shared.contracts.event import PostedEvent, decode_posted
from shared.contracts.inbox import RowReceived, decode_inbox
from tests.support.providers import (
    ALPACA_KEY,
    CIRCLE_KEY,
    EPOCH,
    Alpaca,
    Circle,
    account,
    token_balance,
    trading_account,
    wallet,
)


class Inbox:
    def __init__(self) -> None:
        self.records: list[Appended] = []
        self.away = False

    async def append(self, records: list[Appended]) -> None:
        if self.away:
            raise InboxAway("Kafka does not acknowledge")
        self.records += records

    @property
    def events(self) -> list[PostedEvent]:
        rows = [decode_inbox(one.value) for one in self.records]
        assert all(isinstance(row, RowReceived) and row.org == "acme" for row in rows)
        return [decode_posted(row.row) for row in rows]  # type: ignore[union-attr]

    @property
    def told(self) -> list[tuple[str, str | None, str | None, str | None, str]]:
        return [(one.type, one.account, one.amount, one.currency, one.attrs["accounts"]) for one in self.events]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries stay, their pauses shrink."""
    monkeypatch.setattr(http, "WAIT_INITIAL_S", 0.001)
    monkeypatch.setattr(http, "WAIT_MAX_S", 0.002)
    yield
    stamina.set_active(True)


@asynccontextmanager
async def polled(
    provider: Circle | Alpaca, tmp_path: Path, key: str | None = None, **settings: Any
) -> AsyncIterator[tuple[PollReport, Inbox]]:
    name = "circle" if isinstance(provider, Circle) else "alpaca"
    inbox = Inbox()
    async with provider.serve() as address, balance_session() as session:
        given = {"provider": name, "environment": "sandbox", "base_url": address, "requests_per_s": 100} | settings
        file = tmp_path / "pollers.yaml"
        file.write_bytes(msgspec.yaml.encode({"acme": {name: given}}))
        own = CIRCLE_KEY if name == "circle" else ALPACA_KEY
        (configured,) = read_pollers(file, {f"TIEOUT_POLLER_KEY__ACME__{name.upper()}": key or own})
        source = balance_source(configured, session)
        yield await poll_balances(configured.poll, source, inbox, datetime.now(UTC)), inbox


async def refused(provider: Circle | Alpaca, tmp_path: Path, **settings: Any) -> tuple[str, str]:
    """Return result and detail of a poll that has to publish nothing."""
    async with polled(provider, tmp_path, **settings) as (report, inbox):
        assert inbox.records == []
        assert report.published == 0
        assert report.detail
        assert "secret" not in report.detail
        return report.result, report.detail


async def test_all_wallets_of_all_pages_are_added_up_exactly(tmp_path: Path) -> None:
    """120 wallets on pages of 50: one total, one reading per wallet, no float on the way."""
    circle = Circle(["0.1"] * 119 + ["1000000000000.000001"])
    before = datetime.now(UTC)
    async with polled(circle, tmp_path) as (report, inbox):
        assert (report.result, report.accounts, report.published) == ("ok", 120, 121)
        assert inbox.told[0] == ("balance.total", "usdc_buffer", "1000000000011.900001", "USDC", "120")
        assert inbox.told[1] == ("balance.user", "circle:w000", "0.100000", "USDC", "1")
        assert {one.occurred_at for one in inbox.events} == {report.as_of}
        assert report.as_of is not None
        assert before <= report.as_of <= datetime.now(UTC)
        assert len({one.id for one in inbox.events}) == 121


@pytest.mark.parametrize("links", [True, False])
async def test_paging_goes_on_with_and_without_link_headers(tmp_path: Path, links: bool) -> None:
    """With links by their cursor, whatever their address; without them while pages are full."""
    circle = Circle(["1"] * 101, page_max=50)
    circle.links = links
    async with polled(circle, tmp_path, users=False) as (report, inbox):
        assert report.accounts == 101
        assert inbox.told == [("balance.total", "usdc_buffer", "101.000000", "USDC", "101")]


async def test_smaller_pages_than_asked_for_are_followed(tmp_path: Path) -> None:
    """A collection may limit its pages further; the link tells that more follows."""
    async with polled(Circle(["1"] * 7, page_max=2), tmp_path, users=False) as (report, _):
        assert report.accounts == 7


async def test_a_number_in_json_is_read_by_its_text(tmp_path: Path) -> None:
    """Both spellings are the same amount: no binary fraction in between."""
    circle = Circle([[]])
    circle.balances["w000"] = [token_balance("AMOUNT")]

    async def balances(request: web.Request) -> web.Response:
        body = msgspec.json.encode({"data": {"tokenBalances": circle.balances["w000"]}})
        return web.Response(body=body.replace(b'"AMOUNT"', b"90071992547409.930001"), content_type="application/json")

    circle._balances = balances  # type: ignore[method-assign]
    async with polled(circle, tmp_path, users=False) as (_, inbox):
        assert inbox.told[0][2] == "90071992547409.930001"


async def test_a_wallet_without_the_token_holds_zero_and_gas_is_left_out_visibly(tmp_path: Path) -> None:
    """A wallet that was read and has no USDC is a real zero."""
    circle = Circle([[token_balance("3.2", "MATIC", "gas")], "5"])
    async with polled(circle, tmp_path) as (report, inbox):
        assert [one[1:3] for one in inbox.told] == [
            ("usdc_buffer", "5.000000"),
            ("circle:w000", "0.000000"),
            ("circle:w001", "5.000000"),
        ]
        assert report.left_out == {"MATIC": 1}


async def test_wallets_of_one_user_are_one_reading(tmp_path: Path) -> None:
    """The ledger's name is made from the wallet's fields; where one is empty the wallet's own id stands."""
    circle = Circle(["1", "2", "4"])
    circle.wallets = [wallet(0, "42"), wallet(1, "42"), wallet(2)]
    async with polled(circle, tmp_path, user_account="user:{ref_id}:usdc", total_account="assets:usdc") as (_, inbox):
        assert inbox.told == [
            ("balance.total", "assets:usdc", "7.000000", "USDC", "3"),
            ("balance.user", "circle:w002", "4.000000", "USDC", "1"),
            ("balance.user", "user:42:usdc", "3.000000", "USDC", "2"),
        ]


async def test_two_tokens_that_call_themselves_usdc(tmp_path: Path) -> None:
    """Anybody can send a wallet a token of that name: refused until token_ids names the genuine one."""
    fake = token_balance("999999", id_="made-by-somebody")
    result, detail = await refused(Circle([[token_balance("5"), fake]]), tmp_path)
    assert result == "not_whole"
    assert "token_ids" in detail
    circle = Circle([[token_balance("5"), fake]])
    async with polled(circle, tmp_path, token_ids=[token_balance("0")["token"]["id"]]) as (report, inbox):
        assert inbox.told[0][2] == "5.000000"
        assert report.left_out == {"USDC that is not in token_ids": 1}


async def test_an_empty_answer_is_no_zero(tmp_path: Path) -> None:
    """Trap 4, for both providers; and fewer accounts than there must be."""
    assert (await refused(Circle([]), tmp_path))[0] == "empty"
    assert (await refused(Alpaca([]), tmp_path))[0] == "empty"
    assert (await refused(Alpaca([account(1, "REJECTED")]), tmp_path))[0] == "empty"
    assert (await refused(Circle(["1", "2"]), tmp_path, accounts_min=3))[0] == "not_whole"


async def test_paging_that_repeats(tmp_path: Path) -> None:
    """A provider that ignores the cursor gives its first page for ever."""
    circle = Circle(["1"] * 60)
    circle.ignores_cursor = True
    result, detail = await refused(circle, tmp_path)
    assert result == "not_whole"
    assert "twice" in detail
    alpaca = Alpaca([account(number) for number in range(5)], page_max=3)
    alpaca.ignores_cursor = True
    result, detail = await refused(alpaca, tmp_path)
    assert result == "not_whole"
    assert "repeats" in detail


async def test_paging_that_skips(tmp_path: Path) -> None:
    """The list of wallets is read again after the balances: what only the second one has and is not new was skipped."""
    circle = Circle(["1"] * 5)
    circle.skips = {"w003"}
    result, detail = await refused(circle, tmp_path)
    assert result == "not_whole"
    assert "w003" in detail


async def test_a_wallet_made_while_reading_is_no_fault(tmp_path: Path) -> None:
    """It is counted from the next read on."""
    circle = Circle(["1"] * 3)
    circle.skips = {"w002"}
    circle.wallets[2]["createDate"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    async with polled(circle, tmp_path) as (report, inbox):
        assert (report.result, report.accounts, inbox.told[0][2]) == ("ok", 2, "2.000000")


@pytest.mark.parametrize("inclusive", [True, False])
async def test_all_accounts_of_all_pages(tmp_path: Path, inclusive: bool) -> None:
    """Pages by date, whether created_after includes its time or not, also over accounts of the same second."""
    same = EPOCH + timedelta(days=1)
    made = [account(number) for number in range(7)]
    made += [account(number, created_at=same + timedelta(microseconds=number)) for number in range(7, 20)]
    made += [account(20)]
    alpaca = Alpaca(made, page_max=4)
    alpaca.inclusive = inclusive
    async with polled(alpaca, tmp_path) as (report, inbox):
        assert (report.result, report.accounts, report.published) == ("ok", 21, 22)
        assert inbox.told[0] == ("balance.total", "alpaca_exposure", "2105.25", "USD", "21")
        assert inbox.told[1] == ("balance.user", "alpaca:a000", "100.25", "USD", "1")


async def test_closed_and_unknown_statuses_are_read(tmp_path: Path) -> None:
    """Only accounts that were never opened are left out, and told."""
    made = [account(1, "ACCOUNT_CLOSED"), account(2, "SOMETHING_NEW"), account(3, "SUBMITTED"), account(4, "DISABLED")]
    async with polled(Alpaca(made), tmp_path, figure="cash", user_account="user:{account_number}") as (report, inbox):
        assert report.accounts == 3
        assert report.left_out == {"account SUBMITTED": 1}
        assert inbox.told[0][2] == "150.375"
        assert inbox.told[1][1] == "user:900000001"


async def test_accounts_that_hold_money_whatever_their_first_status_says(tmp_path: Path) -> None:
    """Open for crypto alone, limited, being closed, waiting to be approved again; and those that really never opened."""
    made = [
        account(1, "INACTIVE") | {"crypto_status": "ACTIVE"},
        account(2, "LIMITED"),
        account(3, "ACCOUNT_CLOSED_PENDING"),
        account(4, "REAPPROVAL_PENDING"),
        account(5, "INACTIVE") | {"crypto_status": "INACTIVE"},
        account(6, "KYC_SUBMITTED") | {"crypto_status": "SUBMITTED"},
        account(7, "PAPER_ONLY"),
    ]
    async with polled(Alpaca(made), tmp_path, users=False) as (report, inbox):
        assert (report.accounts, inbox.told[0][2]) == (4, "401.00")
        assert report.left_out == {"account INACTIVE": 1, "account KYC_SUBMITTED": 1, "account PAPER_ONLY": 1}


async def test_tokens_that_the_console_does_not_monitor_are_asked_for_where_the_genuine_one_is_named(
    tmp_path: Path,
) -> None:
    """A list of monitored tokens without USDC would show every wallet as empty."""
    circle = Circle(["5"])
    async with polled(circle, tmp_path, token_ids=[token_balance("0")["token"]["id"]]):
        pass
    assert [path for path in circle.requests if "/balances" in path and "includeAll=true" in path]
    circle = Circle(["5"])
    async with polled(circle, tmp_path):
        pass
    assert not [path for path in circle.requests if "includeAll" in path]


async def test_currencies_are_told_apart_and_unknown_ones_refused(tmp_path: Path) -> None:
    """A total without an account in a strange currency would be wrong."""
    alpaca = Alpaca([account(1), account(2)])
    alpaca.trading["a002"] = trading_account(2, currency="EUR", buying_power="7")
    async with polled(alpaca, tmp_path, users=False) as (_, inbox):
        assert [one[2:4] for one in inbox.told] == [("7.00", "EUR"), ("100.25", "USD")]
    alpaca.trading["a002"] = trading_account(2, currency="ZZQ")
    assert (await refused(alpaca, tmp_path))[0] == "unknown_currency"


@pytest.mark.parametrize("amount", ["NaN", "1e400", "twelve", None, "1." + "1" * 19])
async def test_what_is_no_amount(tmp_path: Path, amount: Any) -> None:
    """Nothing is rounded or guessed."""
    alpaca = Alpaca([account(1)])
    alpaca.trading["a001"] = trading_account(1, buying_power=amount)
    assert (await refused(alpaca, tmp_path))[0] == "unreadable"


async def test_a_listed_account_that_cannot_be_read(tmp_path: Path) -> None:
    """One account less is another total."""
    alpaca = Alpaca([account(1), account(2)])
    alpaca.trading["a002"] = None  # type: ignore[assignment]
    result, detail = await refused(alpaca, tmp_path)
    assert result == "refused"
    assert "a002" in detail


async def test_a_wrong_key_is_told_and_not_shown(tmp_path: Path) -> None:
    """No retries: a key does not become right, and some providers lock it."""
    circle = Circle(["1"])
    assert (await refused(circle, tmp_path, key="TEST_API_KEY:other:secret"))[0] == "unauthorised"
    assert len(circle.requests) == 1


async def test_retry_after_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After waits for as long as the provider asks, then goes on."""
    circle = Circle(["1"])
    circle.faults = [web.Response(status=429, headers={"Retry-After": "1"})]
    began = asyncio.get_running_loop().time()
    async with polled(circle, tmp_path) as (report, _):
        assert report.result == "ok"
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_provider_that_asks_for_an_hour_is_asked_at_the_next_interval(tmp_path: Path) -> None:
    """A poll does not sleep for an hour; the report says what was asked."""
    circle = Circle(["1"])
    circle.faults = [web.Response(status=429, headers={"Retry-After": "3600"})]
    result, detail = await refused(circle, tmp_path)
    assert result == "rate_limited"
    assert "3600 s" in detail
    assert len(circle.requests) == 1


async def test_a_passing_fault_is_tried_again_and_a_lasting_one_told(tmp_path: Path) -> None:
    """5xx and 429 without Retry-After back off, five times at most."""
    circle = Circle(["1"])
    circle.faults = [web.Response(status=503), web.Response(status=500), web.Response(status=429)]
    async with polled(circle, tmp_path) as (report, _):
        assert report.result == "ok"
    circle.faults = [web.Response(status=502) for _ in range(10)]
    assert (await refused(circle, tmp_path))[0] == "unavailable"
    assert len(circle.faults) == 5


async def test_a_fault_in_the_middle_publishes_nothing(tmp_path: Path) -> None:
    """Half of the wallets are not the balance."""
    circle = Circle(["1"] * 20)
    circle.balances["w013"] = "broken"
    async with polled(circle, tmp_path) as (report, inbox):
        assert report.result != "ok"
        assert inbox.records == []


async def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    """A time-out is its own result."""
    circle = Circle(["1"])
    circle.hold = asyncio.get_running_loop().create_future()
    assert (await refused(circle, tmp_path, timeout_s=0.05))[0] == "timeout"


async def test_nobody_listens(tmp_path: Path) -> None:
    """A refused connection is told without the request's headers."""
    assert (await refused(Circle(["1"]), tmp_path, base_url="http://127.0.0.1:9"))[0] == "unavailable"


@pytest.mark.parametrize("header", ["Date", "Age"])
async def test_a_snapshot_from_yesterday(tmp_path: Path, header: str) -> None:
    """An answer from a cache or a stalled replica is no reading of today."""
    circle = Circle(["1"])
    yesterday = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    circle.headers = {header: yesterday if header == "Date" else "86400"}
    assert (await refused(circle, tmp_path))[0] == "stale"


async def test_an_account_as_of_weeks_ago(tmp_path: Path) -> None:
    """`balance_asof` is the last close, which is never a week old."""
    alpaca = Alpaca([account(1)])
    alpaca.trading["a001"] = trading_account(1, balance_asof=str(datetime.now(UTC).date() - timedelta(days=8)))
    assert (await refused(alpaca, tmp_path))[0] == "stale"


@pytest.mark.parametrize("body", ["", "null", "<html>maintenance</html>", '{"data": {}}', '{"data": {"wallets": 1}}'])
async def test_an_answer_that_is_something_else(tmp_path: Path, body: str) -> None:
    """A page for people, or another shape, is no empty list."""
    circle = Circle(["1"])
    circle.faults = [web.Response(text=body)]
    assert (await refused(circle, tmp_path))[0] == "unreadable"


@pytest.mark.parametrize("strange", ["../../v1/other", "", "a b", "x" * 200])
async def test_an_id_that_is_none(tmp_path: Path, strange: str) -> None:
    """Ids become a part of addresses: nothing but letters, digits, - and _ goes there."""
    circle = Circle(["1"])
    circle.wallets[0]["id"] = strange
    assert (await refused(circle, tmp_path))[0] == "unreadable"
    assert len(circle.requests) == 1


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    """The key would go along."""
    circle = Circle(["1"])
    circle.faults = [web.Response(status=302, headers={"Location": "/v1/w3s/wallets"})]
    assert (await refused(circle, tmp_path))[0] == "refused"
    assert len(circle.requests) == 1


async def test_kafka_away(tmp_path: Path) -> None:
    """The read was whole and is lost; the report says so."""
    circle = Circle(["1"])
    inbox = Inbox()
    inbox.away = True
    async with circle.serve() as address, balance_session() as session:
        file = tmp_path / "pollers.yaml"
        file.write_text(f"acme: {{circle: {{provider: circle, environment: sandbox, base_url: '{address}'}}}}")
        (one,) = read_pollers(file, {"TIEOUT_POLLER_KEY__ACME__CIRCLE": CIRCLE_KEY})
        report = await poll_balances(one.poll, balance_source(one, session), inbox, datetime.now(UTC))
    assert (report.result, report.published, report.accounts) == ("not_published", 0, 1)

"""Goal: low exceptions are mended by real actions, each judged by what the matcher says afterwards; no ledger changes by tieout.

Method: real processes on Kafka and PostgreSQL, Circle and a ledger on local ports. A reading that was wrong goes away when
the provider is asked again; money that nobody booked goes away when the ledger books it, and stays when it does not.
"""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from services.alerts.adapters.database import Database
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import validate_rules
from shared.strict_yaml import parse_yaml
from tests.support.ledger import LEDGER_KEY, Ledger
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.providers import CIRCLE_KEY, Circle, token_balance
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, prepared
from tests.support.stored_rows import become, contain, rows

ROOT = Path(__file__).parents[2]
TRIED = "SELECT rule, key #>> '{}', action, state, outcome FROM corrections"
OPEN = "SELECT rule, key #>> '{}', severity, difference::text FROM discrepancies WHERE state = 'raised'"
TOTAL, USER = "stack.circle_balance", "stack.circle_balance.users"

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=2, inbox=1)]


def pack() -> Any:
    """The pack's two rules of Circle's balances, judged after a moment."""
    document = parse_yaml((ROOT / "shared/packs/stack/rules.yaml").read_text(), "rules.yaml")
    document["rules"] = [rule | {"settle": "500ms"} for rule in document["rules"] if rule["name"] in {TOTAL, USER}]
    return validate_rules(document)


def reading(type_: str, account: str, amount: str) -> Event:
    at = datetime.now(UTC).isoformat()
    event = {"source": "circle", "type": type_, "id": f"{account}-{at}", "account": account, "amount": amount}
    event |= {"currency": "USDC", "occurred_at": at, "attrs": {"accounts": "2"}}
    return Event(0.0, "ledger", "circle", str(event["id"]), event)


async def test_a_wrong_reading_is_read_again_and_missing_money_is_booked_by_the_ledger_or_told(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str, tmp_path: Path
) -> None:
    """One action helps, another fails its validation; the rate is told; only what the ledger booked itself changed it."""
    circle = Circle(["5.000000", "7.250000"])
    clients: list[ProducerClient] = []

    async def tell(entry: dict[str, Any]) -> None:
        await clients[0].send([Event(0.0, "ledger", "ledger", entry["id"], entry)])

    ledger = Ledger(tell)
    # It says yes to entries for users and never books them.
    ledger.answers["circle:w000"] = lambda _: web.json_response({"id": "later"}, status=202)
    async with circle.serve() as provider, ledger.serve() as address:
        (tmp_path / "pollers.yaml").write_text(
            f"{ORG}: {{circle: {{provider: circle, environment: sandbox, base_url: '{provider}', interval_s: 86400}}}}"
        )
        (tmp_path / "corrections.yaml").write_text(
            f"{ORG}: {{ledger: {{url: '{address}'}}, adjust_up_to: {{USDC: '1.00'}}, after_s: 0, validate_within_s: 12}}"
        )
        settings = {
            "TIEOUT_POLLERS_FILE": str(tmp_path / "pollers.yaml"),
            "TIEOUT_POLLER_KEY__ACME__CIRCLE": CIRCLE_KEY,
            "TIEOUT_CORRECTIONS_FILE": str(tmp_path / "corrections.yaml"),
            "TIEOUT_LEDGER_KEY__ACME": LEDGER_KEY,
            "RECONCILIATION_AUTO_CORRECT_LOW_SEVERITY": "true",
            "TIEOUT_CORRECTIONS_POLL_S": "0.3",
        }
        async with prepared(kafka_settings, database_url, pack(), **settings) as services:
            for name in ("ingest", "matcher", "alerts"):
                await services.start(name)
            await services.ready("ingest", "matcher", "alerts")
            database = Database(database_url)
            async with ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET) as client:
                clients.append(client)
                opened = {(TOTAL, "usdc_buffer", "opening"), (USER, "circle:w000", "opening")}
                await contain(database, "SELECT rule, key #>> '{}', result FROM checks", opened)

                before = dict(ledger.books)
                await client.send([reading("balance.total", "usdc_buffer", "12.150000")])
                helped = (TOTAL, "usdc_buffer", "refetch", "succeeded", "resolved")
                await become(database, TRIED, {helped})
                await become(database, OPEN, set())
                assert (ledger.books, ledger.asked) == (before, [])

                # Half a dollar comes in that nobody books, into one wallet.
                circle.balances["w000"] = [token_balance("5.500000")]
                await client.send(
                    [
                        reading("balance.total", "usdc_buffer", "12.750000"),
                        reading("balance.user", "circle:w000", "5.500000"),
                    ]
                )
                same = [(TOTAL, "usdc_buffer"), (USER, "circle:w000")]
                await become(
                    database,
                    TRIED,
                    {
                        helped,
                        *((*one, "refetch", "failed", "still_differs") for one in same),
                        (TOTAL, "usdc_buffer", "adjust", "succeeded", "resolved"),
                        (USER, "circle:w000", "adjust", "failed", "still_differs"),
                    },
                )
                # The total agrees, because the ledger has booked it; the user's money is still for people.
                assert set(await rows(database, OPEN)) == {(USER, "circle:w000", "low", "0.500000")}
                assert ledger.books == {"usdc_buffer": Decimal("0.500000")}
                assert sorted((body["account"], body["amount"]) for _, body in ledger.asked) == [
                    ("circle:w000", "0.500000"), ("usdc_buffer", "0.500000"),
                ]  # fmt: skip
                await show(database, services.url("alerts"), services.keys["owner"])
            await database.close()


async def show(database: Database, address: str, key: str) -> None:
    """API, metrics, log and report say the same."""
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}) as people:
        admin = "/api/admin/reconciliation"
        summary = (await people.get(f"{admin}/corrections/summary")).json()
        told = {
            one["action"]: (one["succeeded"], one["finished"], one["success_percent"]) for one in summary["actions"]
        }
        assert told == {"refetch": (1, 3, "33.33"), "adjust": (1, 2, "50.00")}
        assert (summary["succeeded"], summary["finished"], summary["success_percent"]) == (2, 5, "40.00")
        run = (await people.post(f"{admin}/run", json={"run_type": "manual"}, timeout=30)).json()
        report = (await people.get(f"{admin}/reports/{run['id']}")).json()["report"]
        assert {one["action"]: one["success_percent"] for one in report["corrections"]} == {
            "refetch": "33.33", "adjust": "50.00",
        }  # fmt: skip
        metrics = (await people.get("/metrics")).text
        assert 'reconciliation_corrections_total{action="adjust",outcome="resolved"} 1.0' in metrics
        assert 'reconciliation_corrections_total{action="refetch",outcome="still_differs"} 2.0' in metrics
    logged = await rows(database, "SELECT action, reason FROM action_log WHERE actor = 'auto-correction'")
    assert {("refetch", None), ("post_adjustment", None), ("correction_succeeded", "resolved")} <= set(logged)
    assert ("correction_failed", "still_differs") in logged

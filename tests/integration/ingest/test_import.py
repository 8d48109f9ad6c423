"""`tieout import` into a real ingest on a real broker: what it says was sent is in the inbox, once as an event."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from shared.contracts.event import Event
from shared.contracts.inbox import RowReceived, decode_inbox
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import load_rules
from tests.integration.alerts.test_commands import Terminal
from tests.support.ingest import KEY, prepare, read_topic, running, until
from tieout.rules_topic import apply_rules

pytestmark = pytest.mark.kafka

FOLDER = Path(__file__).parents[3] / "examples" / "bank_and_stripe"
BANK = ("import", str(FOLDER / "bank.csv"), "--as", "csv", "--mapping", str(FOLDER / "bank.yaml"))
STRIPE = ("import", str(FOLDER / "stripe_activity.csv"), str(FOLDER / "stripe_payouts.csv"), "--as", "stripe-balance")


async def sent_rows(settings: KafkaSettings, topics: Topics) -> list[str]:
    inbox = [decode_inbox(record.value) for record in await read_topic(settings, topics.inbox)]
    return [json.loads(record.row)["id"] for record in inbox if isinstance(record, RowReceived)]


async def test_what_is_imported_twice_and_over_a_restart_is_the_same_events(
    kafka_settings: KafkaSettings, topics: Topics
):
    """A bank and Stripe's reports, ingest killed in between and back only after the command has begun to wait."""
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        terminal = Terminal(TIEOUT_INGEST_URL=ingest.url, TIEOUT_API_KEY=KEY)
        code, out, err = await terminal.tieout(*BANK)
        assert (code, out, err) == (0, "27 rows read, 27 events sent, 0 refused.\n", "")

        ingest.kill()
        waiting = asyncio.create_task(terminal.tieout(*STRIPE))
        await asyncio.sleep(2)
        await asyncio.to_thread(ingest.restart)
        code, out, err = await waiting
        assert (code, out) == (0, "236 rows read, 436 events sent, 0 refused.\n"), err
        assert "trying again in" in err

        assert (await terminal.tieout(*BANK))[0] == 0
        rows = await sent_rows(kafka_settings, topics)
        assert len(set(rows)) == 27 + 436
        assert len(rows) >= 27 + 436 + 27

        async def all_events() -> set[str]:
            events = [
                msgspec.json.decode(record.value, type=Event)
                for record in await read_topic(kafka_settings, topics.events)
            ]
            found = {event.id for event in events}
            return found if len(found) == 27 + 436 else set()

        assert await until(all_events, 60) == set(rows)


async def test_a_dry_run_looks_at_the_rules_in_force(kafka_settings: KafkaSettings, topics: Topics):
    await apply_rules(kafka_settings, load_rules(FOLDER / "rules.yaml"), "acme", "test")
    terminal = Terminal(
        TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka_settings.bootstrap_servers,
        TIEOUT_KAFKA_TOPIC_PREFIX=kafka_settings.topic_prefix,
    )
    code, out, err = await terminal.tieout(*BANK, "--dry-run", "--org", "acme")

    assert code == 0, err
    assert "  bank.payouts: 22\nno rule selects bank/movement.other: not reconciled (5)\n" in out
    code, out, err = await terminal.tieout(*BANK, "--dry-run", "--org", "nobody")
    assert "no rule selects bank/movement.payout: not reconciled (22)\n" in out
    assert await sent_rows(kafka_settings, topics) == []

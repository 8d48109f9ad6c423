"""The demo from start to end."""

import asyncio
import json
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from shared.contracts.discrepancy import Discrepancy
from shared.kafka.settings import KafkaSettings
from shared.rules.model import RuleFile
from tieout.demo.receiver import Receiver
from tieout.demo.sender import Sender
from tieout.demo.stream import Stream
from tieout.local.choose import choose_kafka, choose_postgres
from tieout.local.follow import following
from tieout.local.processes import ended_by_signals
from tieout.local.restarts import run_until_asked
from tieout.local.stack import Ports, Stack, Wanted, billing_pack, put_in_force, running_stack

ORG = "acme"
DEADLINE_S = 5
"""The demo's deadlines: the pack says a day and more, which nobody would wait for."""
SETTLE_S = 4.0
"""After the last event and its deadline: what is on its way arrives."""
REPORT_LINES = 28

Say = Callable[[str], None]


def demo_rules() -> RuleFile:
    """Return the billing pack with deadlines of seconds."""
    pack = billing_pack()
    rules = [rule.model_copy(update={"deadline": f"{DEADLINE_S}s", "keep": "1h"}) for rule in pack.rules]
    return pack.model_copy(update={"rules": rules})


class Demo:
    """Runs the demo and tells about it on `console`."""

    def __init__(self, console: Console, *, kafka: str, postgres: str, payments: int, per_second: float) -> None:
        self.console = console
        self.started = time.monotonic()
        self.first_discrepancy_s: float | None = None
        self._kafka, self._postgres = choose_kafka(kafka), choose_postgres(postgres)
        self._payments, self._per_second = payments, per_second
        self._last: dict[str, Discrepancy] = {}
        self._keys: dict[str, str] = {}

    def say(self, line: str) -> None:
        """Print one line with the seconds since the start, flushed."""
        self.console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/dim]  {line}", highlight=False)
        self.console.file.flush()

    async def run(self, *, leave: bool) -> None:
        """Start everything, send the stream, show what comes of it; stay until Ctrl-C unless `leave`."""
        secret = "whsec_" + secrets.token_urlsafe(24)
        wanted = Wanted(
            kafka=self._kafka,
            postgres=self._postgres,
            ports=Ports.free(),
            environment={
                f"TIEOUT_WEBHOOK_SECRET__{ORG.upper()}__STRIPE": secret,
                "TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true",
            },
        )
        async with (
            ended_by_signals() as asked,
            Receiver() as receiver,
            running_stack(wanted, self._prepare, self.say, self._show) as stack,
        ):
            work = self._work(stack, receiver, secret, stay=not leave)
            await run_until_asked(asked, stack.processes, self.say, work)
            self.say("stopping")

    async def _prepare(self, kafka: KafkaSettings, url: str) -> None:
        from tieout.local.access import create_access

        self._keys = await create_access(
            url, ORG, roles=("owner", "ingest"), sources={"ledger": None, "stripe": "stripe"}
        )
        await put_in_force(kafka, demo_rules(), ORG, "demo")
        self.say(f"the billing pack is in force for {ORG}, with deadlines of {DEADLINE_S} seconds instead of its days")

    def _show(self, service: str, line: str) -> None:
        self.console.print(f"{service:>10} | {line}", highlight=False, markup=False, style="dim")

    async def _work(self, stack: Stack, receiver: Receiver, secret: str, *, stay: bool) -> None:
        async with (
            _session(stack.alerts_url, self._keys["owner"]) as api,
            following(stack.kafka, lambda one, _at: self._tell(one)),
        ):
            await self._register(api, receiver)
            stream = Stream(datetime.now(UTC) - timedelta(seconds=1), self._payments, self._per_second)
            posts = stream.posts()
            self.say(
                f"sending {len(posts)} events over HTTP: ledger bookings, and Stripe webhooks signed as Stripe signs them"
            )
            async with Sender(stack.ingest_url, ORG, self._keys["ingest"], secret) as sender:
                await sender.send(posts)
            self.say(f"{sender.accepted} events accepted, each acknowledged by Kafka ({sender.refused} refused)")
            await asyncio.sleep(DEADLINE_S + SETTLE_S)
            self._summarise()
            await self._report(api)
            self._show_delivery(receiver)
            self._show_addresses(stack, stay=stay)
            if stay:
                await asyncio.Event().wait()

    async def _register(self, api: aiohttp.ClientSession, receiver: Receiver) -> None:
        async with api.post("/v1/webhooks/endpoints", json={"url": receiver.url}) as answer:
            answer.raise_for_status()
            receiver.secret = (await answer.json())["secret"]

    def _tell(self, one: Discrepancy) -> None:
        """Print one revision as it comes."""
        if self.first_discrepancy_s is None:
            self.first_discrepancy_s = time.monotonic() - self.started
            self.say(f"[bold]first discrepancy {self.first_discrepancy_s:.1f} s after the command[/bold]")
        self._last[one.id] = one
        colour = (
            "green" if one.state == "resolved" else {"critical": "bold red", "high": "red"}.get(one.severity, "yellow")
        )
        amount = f"{one.difference} {one.currency}" if one.difference is not None else f"{one.expected} / {one.actual}"
        self.say(
            f"[{colour}]{one.state:<8}[/{colour}] {one.severity:<8} {one.type:<24} {amount:>18}  [dim]{one.explanation}[/dim]"
        )

    def _summarise(self) -> None:
        counted = Counter((one.type, one.state) for one in self._last.values())
        table = Table(title="What the stream left behind", title_justify="left")
        for heading in ("Type", "Open", "Healed by itself"):
            table.add_column(heading, justify="left" if heading == "Type" else "right")
        for type_ in sorted({type_ for type_, _ in counted}):
            table.add_row(type_, str(counted[type_, "raised"]), str(counted[type_, "resolved"]))
        self.console.print(table)

    async def _report(self, api: aiohttp.ClientSession) -> None:
        day = datetime.now(UTC).date().isoformat()
        self.say(f"a reconciliation run over today ({day}, still provisional: the day is not over)")
        async with api.post("/billing/reconciliation/runs/trigger", json={"period": day}) as answer:
            run = await answer.json()
            if answer.status >= 400:
                self.say(f"the run was refused: {run.get('detail', run)}")
                return
        async with api.get(
            f"/billing/reconciliation/runs/{_run_id(run)}/report", headers={"Accept": "text/markdown"}
        ) as answer:
            for line in (await answer.text()).splitlines()[:REPORT_LINES]:
                self.console.print(f"          {line}", highlight=False, markup=False)

    def _show_delivery(self, receiver: Receiver) -> None:
        if not receiver.delivered:
            self.say("no webhook was delivered")
            return
        first = receiver.delivered[0]
        self.say(
            f"{len(receiver.delivered)} webhooks delivered to a receiver that verified each signature "
            f"({receiver.refused} refused); the first:"
        )
        self.console.print_json(
            json.dumps({"webhook-id": first.id, "webhook-signature": first.signature, **first.body})
        )

    def _show_addresses(self, stack: Stack, *, stay: bool) -> None:
        key = self._keys["owner"]
        # `make demo` has not put `tieout` on the reader's PATH.
        command = "tieout" if shutil.which("tieout") else sys.argv[0]
        lines = [
            "",
            f"Web page       {stack.alerts_url}/   (sign in with the key below)",
            f"API            {stack.alerts_url}/docs",
            f"Ingest API     {stack.ingest_url}/docs",
            f"Metrics        {stack.matcher_url}/metrics",
            "",
            "Try next:" if stay else "Try next, with `tieout demo` still running:",
            f"  export TIEOUT_API_URL={stack.alerts_url} TIEOUT_API_KEY={key}",
            f"  {command} discrepancies list --state raised",
            f"  {command} runs list",
            f"  {command} discrepancies export --format csv > open.csv",
        ]
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        if stay:
            self.console.print("\nCtrl-C ends everything.", highlight=False)
        self.console.file.flush()


def _run_id(run: dict[str, Any]) -> str:
    found = run.get("runId") or run.get("id")
    if not isinstance(found, str):
        runs: Sequence[dict[str, Any]] = run["runs"]
        return _run_id(runs[0])
    return found


@asynccontextmanager
async def _session(url: str, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session

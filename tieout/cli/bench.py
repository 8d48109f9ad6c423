"""`tieout bench …`: what the parts reach on this machine."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

JSON = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, last.")]
KAFKA = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of a broker to use, for example on another machine.", show_default="its own"),
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(
        help="Measure throughput on this machine, beside the limit measured in the same run.", no_args_is_help=True
    )
    group.command("matcher", epilog="Example: tieout bench matcher --json")(bench_matcher)
    group.command("restore", epilog="Example: tieout bench restore --items 5000000 --json")(bench_restore)
    group.command("restart", epilog="Example: tieout bench restart --kills 5 --json")(bench_restart)
    group.command("memory", epilog="Example: tieout bench memory --items 100000 --items 10000000 --json")(bench_memory)
    group.command("normaliser", epilog="Example: tieout bench normaliser --json")(bench_normaliser)
    group.command("ingest", epilog="Example: tieout bench ingest --json")(bench_ingest)
    group.command("latency", epilog="Example: tieout bench latency --seconds 60 --json")(bench_latency)
    group.command("legs-latency", epilog="Example: tieout bench legs-latency --legs-per-second 5000 --json")(
        bench_legs_latency
    )
    group.command("load", epilog="Example: tieout bench load --from 500 --factor 1.5 --step-s 15 --json")(bench_load)
    group.command("sink", epilog="Example: tieout bench sink --json")(bench_sink)
    group.command("replay", epilog="Example: tieout bench replay --json")(bench_replay)
    group.command("accuracy", epilog="Example: tieout bench accuracy --invoices 10000 --json")(bench_accuracy)
    group.command("bots", epilog="Example: tieout bench bots --bots 200 --fills 1000000 --json")(bench_bots)
    group.command("bots-live", epilog="Example: tieout bench bots-live --bots 40 --json")(bench_bots_live)
    app.add_typer(group, name="bench", epilog="Example: tieout bench matcher")


def bench_matcher(
    events: Annotated[int, typer.Option(min=1_000, help="Prepared legs.")] = 1_000_000,
    partitions: Annotated[int, typer.Option(min=1, max=256)] = 12,
    kafka: KAFKA = None,
    as_json: JSON = False,
) -> None:
    """Match prepared legs with one process and default settings; the limit is a pass-through without decoding.

    Without options it starts a broker of its own (Java and Maven) and ends within 240 s.
    """
    from services.matcher.settings import MatcherSettings
    from shared.telemetry.logs import configure_logging
    from tieout.bench.harness import show
    from tieout.bench.matcher import bench

    configure_logging("bench", MatcherSettings(log_level="error"))
    show(asyncio.run(bench(events, partitions, kafka)), as_json=as_json)


def bench_restore(
    items: Annotated[int, typer.Option(min=1_000, help="Restored, half of them open and half settled.")] = 1_000_000,
    partitions: Annotated[int, typer.Option(min=1, max=256)] = 12,
    kafka: KAFKA = None,
    as_json: JSON = False,
) -> None:
    """Restore the matcher's state from its topic; the limit reads the same topic without looking at it.

    Without options it starts a broker of its own (Java and Maven).
    """
    from services.matcher.settings import MatcherSettings
    from shared.telemetry.logs import configure_logging
    from tieout.bench.restore import bench, show

    configure_logging("bench", MatcherSettings(log_level="error"))
    show(asyncio.run(bench(items, partitions, kafka)), as_json=as_json)


def bench_memory(
    items: Annotated[
        list[int] | None, typer.Option(min=1_000, help="A size to measure at; give it several times.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Bytes that an open item and a settled group take, and CPU of a leg while so many are held. Needs no broker.

    Each size runs in a process of its own: about 500 bytes an item, and 25 s a million. More than 5,000,000 settled groups are not held.
    """
    from tieout.bench.memory import SIZES_DEFAULT, bench, show

    show(bench(tuple(sorted(items or SIZES_DEFAULT))), as_json=as_json)


def bench_normaliser(
    events: Annotated[int, typer.Option(min=1_000, help="Prepared inbox records.")] = 200_000,
    webhooks_percent: Annotated[int, typer.Option(min=0, max=100, help="Stripe webhooks among them.")] = 50,
    as_json: JSON = False,
) -> None:
    """Map a prepared inbox to events and legs with one process; the limit is a pass-through without decoding.

    It starts a broker of its own (Java and Maven).
    """
    from tieout.bench.harness import show
    from tieout.bench.normaliser import bench

    show(asyncio.run(bench(events, webhooks_percent)), as_json=as_json)


def bench_ingest(
    webhooks: Annotated[int, typer.Option(min=100, help="Signed webhooks, one a request.")] = 10_000,
    requests: Annotated[int, typer.Option(min=1, help="Requests of 1,000 rows.")] = 50,
    as_json: JSON = False,
) -> None:
    """Send webhooks and rows to one ingest process over HTTP; every answer means that Kafka has acknowledged.

    It starts a broker of its own (Java and Maven); the client takes its share of the same machine.
    """
    import json
    from dataclasses import asdict

    from tieout.bench.ingest import bench

    result = asdict(asyncio.run(bench(webhooks, requests)))
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for name, value in result.items():
        print(f"{name}: {value}", flush=True)


def bench_latency(
    events_per_second: Annotated[int, typer.Option(min=20, max=20_000)] = 500,
    seconds: Annotated[int, typer.Option(min=1, help="Measured, after a warm-up of 5 s.")] = 60,
    differing_percent: Annotated[int, typer.Option(min=1, max=100, help="Payments that raise a discrepancy.")] = 8,
    events_per_request: Annotated[int, typer.Option(min=1, max=1_000, help="Ledger rows in one request.")] = 100,
    as_json: JSON = False,
) -> None:
    """Time from the second side's POST to the discrepancy on its topic, and to the outgoing webhook's arrival.

    It starts a broker (Java and Maven), a PostgreSQL and all services of its own; sender and receiver share the machine.
    """
    from tieout.bench.latency import bench, show

    show(asyncio.run(bench(events_per_second, seconds, differing_percent, events_per_request)), as_json=as_json)


def bench_restart(
    kills: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: JSON = False,
) -> None:
    """Time from the kill -9 of a matcher with little state to all partitions active, started again at once.

    It starts a broker of its own (Java and Maven).
    """
    from tieout.bench.restart import bench, show

    show(asyncio.run(bench(kills)), as_json=as_json)


def bench_legs_latency(
    legs_per_second: Annotated[int, typer.Option(min=200, max=50_000)] = 5_000,
    seconds: Annotated[int, typer.Option(min=1, help="Measured, after a warm-up of 5 s.")] = 20,
    differing_percent: Annotated[int, typer.Option(min=1, max=100, help="Payments that raise a discrepancy.")] = 4,
    as_json: JSON = False,
) -> None:
    """Time from the second leg's append to the discrepancy on its topic, with a matcher alone.

    It starts a broker (Java and Maven) and a matcher of its own; who writes and reads shares the machine.
    """
    from tieout.bench.legs_latency import bench, show

    show(asyncio.run(bench(legs_per_second, seconds, differing_percent)), as_json=as_json)


def bench_load(
    first: Annotated[int, typer.Option("--from", min=20, help="Events per second of the first step.")] = 500,
    factor: Annotated[float, typer.Option(min=1.05, max=10, help="Each step is so many times the one before.")] = 1.5,
    steps: Annotated[int, typer.Option(min=1, max=30, help="At most.")] = 10,
    step_s: Annotated[int, typer.Option(min=2, max=3_600, help="Seconds of one step.")] = 15,
    kafka: Annotated[str, typer.Option(help="embedded, jvm, auto, or HOST:PORT of an empty one.")] = "jvm",
    postgres: Annotated[str, typer.Option(help="auto (from its wheel), or the URL of an empty database.")] = "auto",
    as_json: JSON = False,
) -> None:
    """Step the rate up until something falls behind: events per second, latency, lag and memory of each step.

    From POST to PostgreSQL with all services; sender and reader share the machine. Nothing may be lost: what was accepted
    is counted in PostgreSQL at the end.
    """
    import signal

    from tieout.bench.load import bench, show

    # Ended from outside, it ends what it has started, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rates = [round(first * factor**number) for number in range(steps)]
    show(asyncio.run(bench(rates, step_s, kafka, postgres)), as_json=as_json)


def bench_sink(
    rows: Annotated[int, typer.Option(min=1_000, help="Prepared items and discrepancies.")] = 100_000,
    discrepant_percent: Annotated[int, typer.Option(min=0, max=100, help="Items with a discrepancy.")] = 2,
    matches_as_json: Annotated[
        bool, typer.Option("--matches-as-json", help="As a matcher writes them with TIEOUT_MATCHES_AS_JSON.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Store what a matcher published in PostgreSQL with one sink; the limit is a pass-through on Kafka alone.

    It starts a broker (Java and Maven) and a PostgreSQL (extra `embedded`) of its own.
    """
    from tieout.bench.harness import show
    from tieout.bench.sink import bench

    show(asyncio.run(bench(rows, discrepant_percent, matches_as_json=matches_as_json)), as_json=as_json)


def bench_replay(
    payments: Annotated[int, typer.Option(min=1_000, help="Events in each of the two files, about.")] = 1_000_000,
    as_json: JSON = False,
) -> None:
    """Reconcile two files offline, beside a PostgreSQL that loads and joins the same files.

    It starts a PostgreSQL of its own (extra `embedded`). Above 1, `ratio` says how many times faster tieout is.
    """
    import json
    from dataclasses import asdict

    from tieout.bench.replay import bench

    result = asdict(bench(payments))
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for name, value in result.items():
        print(f"{name}: {value}", flush=True)


class Accuracies(StrEnum):
    """Which part of the accuracy bench runs."""

    KEYED = "keyed"
    STATEMENT = "statement"
    ALL = "all"


def bench_accuracy(
    only: Annotated[Accuracies, typer.Option(help="Payments with a key, a bank statement without one, or both.")] = (
        Accuracies.ALL
    ),
    movements: Annotated[
        int, typer.Option(min=100, help="Payments, refunds, disputes and payouts with a key.")
    ] = 20_000,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SHARE: another share of the movements for one fault, e.g. late=0.1; a wrong name lists them."
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option(help="Also judge the keyed stream with wrong deadlines and tolerances.")
    ] = True,
    invoices: Annotated[
        int, typer.Option(min=10, help="Invoices; about as many statement lines come with them.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same data.")] = 1,
    write: Annotated[
        Path | None,
        typer.Option(help="Folder to write the generated statement and its labels to; nothing is measured."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Reconcile generated records of which it is known what is wrong with each: precision, recall, time to detect.

    Keyed: payments, refunds, disputes, payouts and a feed that falls silent, with 24 kinds of faults and harmless oddities.
    Statement: a bank statement against invoices without a shared key; the rule is left at its defaults.
    """
    import json

    from tieout.bench.accuracy_report import measure, show_accuracy
    from tieout.bench.bank_statement import generate
    from tieout.bench.bank_statement import write as write_files

    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        write_files(generate(invoices, seed), write)
        print(f"wrote rules.yaml, invoices.jsonl, statement.jsonl and labels.jsonl to {write}", flush=True)
        return
    result = measure(
        movements=None if only is Accuracies.STATEMENT else movements,
        invoices=None if only is Accuracies.KEYED else invoices,
        seed=seed,
        rates=rate or [],
        curves=curves,
    )
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        show_accuracy(result)


def bench_bots(
    bots: Annotated[int, typer.Option(min=1, max=10_000)] = 200,
    fills: Annotated[
        int, typer.Option(min=1, help="Of all bots together, each also a line of an event store.")
    ] = 1_000_000,
    more: Annotated[int, typer.Option(min=0, help="Fills that come between two cycles.")] = 2_000,
    as_json: JSON = False,
) -> None:
    """Reconcile many bots with many fills: seconds and memory of a first cycle, an idle one and one with news."""
    import json
    from dataclasses import asdict

    from tieout.bench.bots import bench

    result = asdict(bench(bots, fills, more))
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for name, value in result.items():
        if name != "cycles":
            print(f"{name}: {value}", flush=True)
    for cycle in result["cycles"]:
        print(", ".join(f"{name} {value}" for name, value in cycle.items()), flush=True)


def bench_bots_live(
    bots: Annotated[int, typer.Option(min=1, max=1_000, help="Each loses a fill, and each drifts.")] = 40,
    poll_s: Annotated[float, typer.Option(min=0.05, max=60, help="Of the feed.")] = 0.5,
    as_json: JSON = False,
) -> None:
    """Time from a fill without its event, and from a snapshot that drifts, to the finding's webhook.

    It starts a broker (Java and Maven), a PostgreSQL and all services of its own.
    """
    import json

    from tieout.bench.bots_live import bench

    result = asyncio.run(bench(bots, poll_s))
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for name, value in result.items():
        print(f"{name}: {value}", flush=True)

"""tieout's matcher beside other stream processors: the same legs, the same broker, one after the other, exactly once.

    make bench-peers
    .venv/bin/python bench/peers/run.py --events 300000 --only kafka-streams-1 --json

Needs Java 17 and Maven. Kafka Streams is built by Maven from `kafka_streams/`; Quix Streams gets an environment of its own
from `quix/requirements.txt`. Every contestant is measured from its first record to the commit of its last, and what it
wrote is counted: a contestant with another number of pairs than there are is reported as wrong.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from rich.console import Console
from rich.table import Table

from services.matcher.settings import MatcherSettings
from shared.contracts.leg import Leg, decode_leg_record
from shared.errors import TieoutError
from shared.kafka.client import admin, consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_PARTITIONS, Topics, apply_topics
from shared.telemetry.logs import configure_logging
from tieout.bench.harness import machine_facts, own_kafka, pass_through, say, versions_used
from tieout.bench.matcher import match_all
from tieout.bench.prepared_legs import Prepared, prepared_legs, write
from tieout.local.places import cache_dir

HERE = Path(__file__).parent
COMMIT_S = 0.1
WINDOW_S = 60
"""Of the peers' joins. The rule says 24 h; a shorter window is kinder to the peers, for they keep less."""
LOOK_S = 0.05
TIMEOUT_S = 600.0
CONTESTANTS = ("tieout", "kafka-streams-1", "kafka-streams-2", "quix-stateful", "quix-interval-join")
SIDES = ("legs-internal", "legs-provider")
"""Topics with one side each: Quix Streams does not join a topic with itself."""


class PeerFailed(TieoutError):
    """A peer could not be built, died or did not end in time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contestant did."""

    name: str
    events_per_second: float
    ratio: float
    """To the pass-through limit of the same run."""
    tieout_is_faster: float | None
    """How many times as many events tieout does in a second."""
    pairs: int | None
    """Joined pairs that a read_committed reader finds."""
    right: bool


@dataclass(frozen=True, slots=True)
class Field:
    """Where all of them run."""

    kafka: KafkaSettings
    source: str
    partitions: int
    records: int
    pairs: int
    folder: Path


async def compare(events: int, only: tuple[str, ...]) -> dict[str, Any]:
    """Run the contestants named in `only`, tieout always among them."""
    facts = machine_facts()
    with tempfile.TemporaryDirectory() as folder:
        async with own_kafka() as kafka:
            ground = await _prepare(kafka, events, Path(folder))
            limit = await _limit(ground, "limit-before")
            speeds: dict[str, tuple[float, int | None]] = {}
            for name in CONTESTANTS:
                if name == "tieout" or name in only:
                    speeds[name] = await _run(ground, name)
                    say(f"{name}: {speeds[name][0]:,.0f} records per second")
            limit = (limit + await _limit(ground, "limit-after")) / 2
    own = speeds["tieout"][0]
    outcomes = [
        Outcome(
            name,
            round(speed),
            round(speed / limit, 3),
            None if name == "tieout" else round(own / speed, 2),
            pairs,
            right=pairs is None or pairs == ground.pairs,
        )
        for name, (speed, pairs) in speeds.items()
    ]
    return {
        "benchmark": "peers",
        "events": ground.records,
        "pairs": ground.pairs,
        "limit_events_per_second": round(limit),
        "contestants": [asdict(outcome) for outcome in outcomes],
        "settings": {"partitions": ground.partitions, "commit_interval_s": COMMIT_S, "peer_window_s": WINDOW_S},
        "versions": versions_used() | {"kafka-streams": "4.3.1", "quixstreams": _pinned("quixstreams")},
        "machine": facts,
    }


async def _prepare(kafka: KafkaSettings, events: int, folder: Path) -> Field:
    partitions = DEFAULT_PARTITIONS
    topics = Topics(kafka.topic_prefix)
    await apply_topics(kafka, partitions)
    async with _admin(kafka) as client:
        names = ("limit-before", "limit-after", *SIDES, *(f"by-{name}" for name in CONTESTANTS))
        # Results bear the time of their legs, months ago: the broker would delete them as they come.
        kept = {"retention.ms": "-1"}
        await client.create_topics([NewTopic(topics.full(name), partitions, 1, topic_configs=kept) for name in names])
    say(f"preparing {events:,} legs in {partitions} partitions")
    records = await write(kafka, topics.legs, prepared_legs(events, partitions), partitions)
    for number, name in enumerate(SIDES):
        await write(kafka, topics.full(name), _side(prepared_legs(events, partitions), number), partitions)
    seen: set[bytes] = set()
    pairs = 0
    for _, key, _ in prepared_legs(events, partitions):
        if key is not None:
            pairs += key in seen
            seen.add(key)
    return Field(kafka, topics.legs, partitions, records, pairs, folder)


def _side(legs: Iterator[Prepared], side: int) -> Iterator[Prepared]:
    for prepared in legs:
        record = decode_leg_record(prepared[2])
        if isinstance(record, Leg) and record.side == side:
            yield prepared


async def _limit(ground: Field, name: str) -> float:
    speed = await pass_through(
        ground.kafka, ground.source, Topics(ground.kafka.topic_prefix).full(name), ground.records
    )
    say(f"pass-through: {speed:,.0f} records per second")
    return speed


async def _run(ground: Field, name: str) -> tuple[float, int | None]:
    """Return records per second, and the joined pairs found (None for tieout, whose tests count its results)."""
    if name == "tieout":
        seconds = await match_all(MatcherSettings(group_instance_id=None), ground.kafka, ground.records)
        return ground.records / seconds, None
    topics = Topics(ground.kafka.topic_prefix)
    target = topics.full(f"by-{name}")
    sources = [topics.full(side) for side in SIDES] if name == "quix-interval-join" else [ground.source]
    command = await asyncio.to_thread(_command, ground, name, sources, target)
    seconds = await _timed(ground, name, command, sources)
    return ground.records / seconds, await _pairs(ground, target)


def _command(ground: Field, name: str, sources: list[str], target: str) -> list[str]:
    state = ground.folder / name
    if name.startswith("kafka-streams"):
        threads = name.rpartition("-")[2]
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        java = ["java", "-Xmx1g", quiet, "-cp", _kafka_streams(), "peers.OuterJoin"]
        return [*java, ground.kafka.bootstrap_servers, sources[0], target, name, threads, str(state),
                str(WINDOW_S), str(round(COMMIT_S * 1000))]  # fmt: skip
    options = {
        "--broker": ground.kafka.bootstrap_servers,
        "--target": target,
        "--group": name,
        "--partitions": str(ground.partitions),
        "--state": str(state),
        "--window-seconds": str(WINDOW_S),
        "--commit-seconds": str(COMMIT_S),
    }
    named = [word for option in options.items() for word in option]
    asked = [word for source in sources for word in ("--source", source)]
    return [str(_quix()), str(HERE / "quix" / "pipeline.py"), name.removeprefix("quix-"), *named, *asked]


async def _timed(ground: Field, name: str, command: list[str], sources: list[str]) -> float:
    """Return the seconds from the peer's first record to the commit of its last."""
    ends = await _ends(ground, sources)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while b"first" not in (line := await process.stdout.readline()):
                if not line:
                    raise PeerFailed(f"{name} ended at once:\n{(await process.communicate())[1].decode()[-2000:]}")
            begun = time.perf_counter()
            await _committed(ground, name, ends, process)
            return time.perf_counter() - begun
    except TimeoutError:
        raise PeerFailed(f"{name} did not end within {TIMEOUT_S:g} s: use fewer --events") from None
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def _committed(
    ground: Field, group: str, ends: dict[TopicPartition, int], process: asyncio.subprocess.Process
) -> None:
    async with _admin(ground.kafka) as client:
        while process.returncode is None:
            offsets = await client.list_consumer_group_offsets(group)
            if all(place in offsets and offsets[place].offset >= end for place, end in ends.items() if end):
                return
            await asyncio.sleep(LOOK_S)
    raise PeerFailed(f"{group} died:\n{(await process.communicate())[1].decode()[-2000:]}")


async def _ends(ground: Field, sources: list[str]) -> dict[TopicPartition, int]:
    reader = consumer(ground.kafka, auto_offset_reset="none")
    await reader.start()
    try:
        places = [TopicPartition(source, number) for source in sources for number in range(ground.partitions)]
        reader.assign(places)
        return dict(await reader.end_offsets(places))
    finally:
        await reader.stop()


async def _pairs(ground: Field, target: str) -> int:
    reader = consumer(ground.kafka, isolation_level="read_committed", auto_offset_reset="none")
    await reader.start()
    try:
        places = [TopicPartition(target, number) for number in range(ground.partitions)]
        reader.assign(places)
        for place in places:
            reader.seek(place, 0)
        ends = await reader.end_offsets(places)
        pairs = 0
        while any([await reader.position(place) < end for place, end in ends.items()]):
            for batch in (await reader.getmany(timeout_ms=200)).values():
                pairs += sum(record.value.startswith((b"match", b"mismatch")) for record in batch)
        return pairs
    finally:
        await reader.stop()


def _kafka_streams() -> str:
    """Build the Java peer, once; return its class path."""
    if shutil.which("mvn") is None:
        raise PeerFailed("Maven is not installed (Debian: maven): Kafka Streams cannot be built")
    project = cache_dir() / "peer-kafka-streams"
    shutil.copytree(HERE / "kafka_streams", project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target"))
    command = ["mvn", "-q", "-B", "-f", str(project / "pom.xml"), "package", "dependency:copy-dependencies"]
    built = subprocess.run([*command, "-DincludeScope=runtime"], capture_output=True, text=True, check=False)
    if built.returncode:
        raise PeerFailed(f"Maven could not build the Kafka Streams peer:\n{(built.stdout + built.stderr)[-2000:]}")
    return f"{project}/target/kafka-streams-peer-1.jar:{project}/target/dependency/*"


def _quix() -> Path:
    """Make the environment of Quix Streams, once; return its Python."""
    wanted = (HERE / "quix" / "requirements.txt").read_text()
    home = cache_dir() / "peer-quix"
    python, stamp = home / "bin" / "python", home / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "quix" / "requirements.txt")]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerFailed(f"pip could not install Quix Streams:\n{done.stderr[-2000:]}")
        stamp.write_text(wanted)
    return python


def _pinned(package: str) -> str:
    lines = (HERE / "quix" / "requirements.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> Any:
    client = admin(kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def show(result: dict[str, Any]) -> None:
    """Print a table for people."""
    table = Table(title=f"{result['events']:,} records, {result['pairs']:,} pairs, exactly once, one process each")
    table.add_column("contestant")
    for title in ("events/s", "ratio to pass-through", "tieout is faster", "result"):
        table.add_column(title, justify="right")
    table.add_row("pass-through", f"{result['limit_events_per_second']:,}", "1", "", "")
    for row in result["contestants"]:
        faster = "" if row["tieout_is_faster"] is None else f"{row['tieout_is_faster']:.1f}x"
        verdict = "right" if row["right"] else f"WRONG: {row['pairs']:,} pairs"
        table.add_row(row["name"], f"{row['events_per_second']:,.0f}", f"{row['ratio']:.2f}", faster, verdict)
    Console().print(table)
    for title in ("settings", "versions", "machine"):
        print(f"{title}: {', '.join(f'{name} {value}' for name, value in result[title].items())}")


def main(
    events: Annotated[int, typer.Option(min=1_000, help="Prepared legs.")] = 1_000_000,
    only: Annotated[list[str] | None, typer.Option(help="Peers to run; tieout always runs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, last.")] = False,
) -> None:
    """Measure tieout's matcher and its peers over the same legs on one broker."""
    chosen = tuple(only or CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        sys.exit(f"no contestant {', '.join(sorted(unknown))}: there are {', '.join(CONTESTANTS)}")
    configure_logging("bench", MatcherSettings(log_level="error"))
    try:
        result = asyncio.run(compare(events, chosen))
    except TieoutError as error:
        sys.exit(str(error))
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        show(result)


if __name__ == "__main__":
    typer.run(main)

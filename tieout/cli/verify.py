"""`tieout verify`: prove from the log that what was published is right, and write a statement about it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.matcher.use_cases.verify import Verified

SHOWN_MAX = 20
"""Differences printed per partition; the statement and --json have up to a hundred."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "verify",
        epilog="Examples: tieout verify --from 2026-11-20T00:00:00Z --to 2026-11-21T00:00:00Z --statement nov-20.json "
        "--sign-with key.pem   |   tieout verify --check nov-20.json --public-key public.pem",
    )(verify)


def verify(
    since: Annotated[str | None, typer.Option("--from", help="From this log time on (RFC 3339); default: all.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Up to this log time; default: to the end.")] = None,
    partition: Annotated[list[int] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    statement: Annotated[Path | None, typer.Option(help="Write what was found to this file.")] = None,
    sign_with: Annotated[
        Path | None, typer.Option(help="Ed25519 private key (PEM) to sign the statement with.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the statement instead of lines.")] = False,
    check: Annotated[Path | None, typer.Option(help="Check the signature of this statement, and nothing else.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --check: the signer's Ed25519 public key (PEM).")
    ] = None,
) -> None:
    """Replay the log of legs and compare every published result and checkpoint with what it must be.

    Begins at the last checkpoint before --from. Reads committed records only and changes nothing. Exit code 1: something
    differs, 0: everything is as the log says.
    """
    import asyncio

    from shared.errors import UsageError

    if check is not None:
        _check(check, public_key)
        return
    if sign_with is not None and statement is None:
        raise UsageError("--sign-with needs --statement FILE: there is nothing else to sign")
    from_ms, to_ms = _milliseconds("--from", since), _milliseconds("--to", until)
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise UsageError("--from must be before --to")
    if sign_with is not None:
        from tieout.statement import sign

        sign({}, sign_with)  # a wrong key is told before the work, not after it
    found = asyncio.run(_verify(partition, from_ms, to_ms))
    told = _statement(found, since, until)
    if statement is not None:
        _write(statement, told, sign_with)
    if json:
        import json as text

        typer.echo(text.dumps(told, indent=2))
    else:
        for one in found:
            _print(one)
        typer.echo(_verdict(found))
        if statement is not None:
            typer.echo(f"statement: {statement}{' (signed)' if sign_with else ' (not signed)'}")
    if not all(one.holds for one in found):
        raise typer.Exit(1)


async def _verify(only: list[int] | None, from_ms: int | None, to_ms: int | None) -> "list[Verified]":
    from functools import partial

    from services.matcher.adapters.evidence import KafkaEvidence
    from services.matcher.adapters.results import identify, in_json, values_of
    from services.matcher.domain.core import Core
    from services.matcher.use_cases.verify import Shell, verify_partition
    from shared.errors import UsageError
    from shared.kafka.client import wait_for_kafka
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings

    kafka = load_settings(KafkaSettings)
    await wait_for_kafka(kafka)
    found = []
    with _progress() as step:
        async with KafkaEvidence(kafka) as evidence:
            count = await evidence.partitions()
            if not count:
                raise UsageError(
                    f"there is no topic {kafka.topic_prefix}legs at {kafka.bootstrap_servers}: check "
                    "TIEOUT_KAFKA_TOPIC_PREFIX, or create the topics with `tieout topics apply`"
                )
            for number in only or range(count):
                if not 0 <= number < count:
                    raise UsageError(f"--partition {number}: legs has the partitions 0 to {count - 1}")
                # By the reference: what was compiled does not judge itself.
                shell = Shell(core=partial(Core, compiled=False), results=values_of, identify=identify, in_json=in_json)
                found.append(await verify_partition(number, evidence, shell, from_ms=from_ms, to_ms=to_ms, step=step))
    return found


class _Progress:
    """A bar on a terminal; nothing else where the output is read by programs."""

    def __enter__(self) -> "Callable[[int, int, int], None]":
        import sys

        from rich.console import Console
        from rich.progress import Progress, TaskID

        self._bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._bar.start()
        tasks: dict[int, TaskID] = {}

        def step(number: int, done: int, of: int) -> None:
            if number not in tasks:
                tasks[number] = self._bar.add_task(f"partition {number}", total=of)
            self._bar.update(tasks[number], completed=done)

        return step

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _progress() -> _Progress:
    return _Progress()


def _print(found: "Verified") -> None:
    results = ", ".join(f"{count:,} {topic}" for topic, count in found.results.items() if count) or "no results"
    if found.legs:
        typer.echo(
            f"partition {found.partition}: legs {found.first}-{found.end - 1}: {results}, "
            f"{len(found.checkpoints)} checkpoints: {'all as the log says' if found.holds else 'DIFFERS'}"
        )
    else:
        typer.echo(f"partition {found.partition}: nothing to compare")
    for skipped in found.skipped:
        typer.echo(f"  not compared: legs {skipped.first}-{skipped.end - 1}: {skipped.why}")
    for one in found.differences[:SHOWN_MAX]:
        typer.echo(f"  {one.kind}: {one.topic} {one.name} (leg {one.log_offset}): {one.detail}")
    if found.differences_in_all > SHOWN_MAX:
        typer.echo(f"  ... and {found.differences_in_all - SHOWN_MAX} more")


def _verdict(found: "list[Verified]") -> str:
    legs, differing = sum(one.legs for one in found), sum(one.differences_in_all for one in found)
    results = sum(sum(one.results.values()) for one in found)
    checkpoints = sum(len(one.checkpoints) for one in found)
    if differing:
        return f"FAILED: {differing} differences in {results:,} results of {legs:,} legs"
    if not legs:
        return "Nothing was compared: there are no legs in this range."
    return f"verified: {results:,} results and {checkpoints} checkpoints of {legs:,} legs are as the log says"


def _statement(found: "list[Verified]", since: str | None, until: str | None) -> dict[str, Any]:
    import msgspec

    from services.matcher.domain.core import CORE_VERSION
    from tieout.statement import FORMAT

    return {
        "statement": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": f"tieout {_version()}, core version {CORE_VERSION}",
        "from": since,
        "to": until,
        "verdict": "verified" if all(one.holds for one in found) else "failed",
        "summary": _verdict(found),
        "partitions": [msgspec.to_builtins(one) for one in found],
    }


def _version() -> str:
    from importlib.metadata import version

    return version("tieout")


def _write(path: Path, told: dict[str, Any], key: Path | None) -> None:
    import json

    from shared.errors import UsageError
    from tieout.statement import sign

    whole = sign(told, key) if key is not None else told
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _check(path: Path, key: Path | None) -> None:
    from shared.errors import UsageError
    from tieout.statement import check, read

    if key is None:
        raise UsageError(
            "--check needs --public-key FILE: the signer's key, from the signer and not from the statement"
        )
    told = read(path)
    wrong = check(told, key)
    if wrong:
        raise UsageError(f"{path}: {wrong}")
    typer.echo(f"{path}: signed by this key and unchanged; {told['made_at']}: {told['summary']}")


def _milliseconds(option: str, text: str | None) -> int | None:
    from shared.contracts.event import milliseconds
    from shared.errors import UsageError

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(f"{option} {text!r} is no time: write RFC 3339 with a zone, e.g. 2026-11-20T00:00:00Z")
    return milliseconds(time)

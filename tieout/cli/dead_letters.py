"""`tieout dead-letters`: what tieout set aside, and how to send it through again after a fix."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.dead_letter import DeadLetter
    from shared.kafka.settings import KafkaSettings

ID_SHOWN = 8
"""Characters of an id that tell dead letters apart in a list; commands take any unique beginning."""


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="What tieout set aside, and how to send it through again.", no_args_is_help=True)
    group.command("list", epilog="Example: tieout dead-letters list --org acme --reason 'no match key'")(list_)
    group.command("replay", epilog="Example: tieout dead-letters replay 1f0c9a2b --org acme")(replay)
    app.add_typer(group, name="dead-letters")


def list_(
    org: Annotated[str | None, typer.Option(help="Only this organisation's.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason, e.g. 'no match key'.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with everything.")] = False,
) -> None:
    """List dead letters: when, from where, why, and what to do."""
    import asyncio

    letters = [one for one in asyncio.run(_read(_settings())) if _is_wanted(one, org, reason)]
    if json:
        import msgspec

        for one in letters:
            typer.echo(msgspec.json.encode(one).decode())
        return
    if not letters:
        typer.echo("No dead letters: everything that came in was understood.")
        return
    for one in letters:
        where = f"{one.org or '-'}/{one.source or '-'}"
        typer.echo(
            f"{one.id[:ID_SHOWN]}  {one.received_at:%Y-%m-%d %H:%M:%S}  {where:<20} {one.reason:<16} {one.detail}"
        )
        typer.echo(f"{'':10}{one.hint}")


def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids, or their unique beginnings.")] = None,
    org: Annotated[str | None, typer.Option(help="With --all: only this organisation's.")] = None,
    reason: Annotated[str | None, typer.Option(help="With --all: only with this reason.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter that the other options choose.")] = False,
) -> None:
    """Send dead letters through again: the record in `inbox` that each came from is appended to `inbox` anew.

    Repeating is harmless: an event that was understood meanwhile is the same event again.
    """
    import asyncio

    from shared.errors import UsageError

    if not ids and not every:
        raise UsageError("name the dead letters to replay (`tieout dead-letters list` shows their ids), or give --all")
    settings = _settings()
    letters = asyncio.run(_read(settings))
    chosen = (
        [one for one in letters if _is_wanted(one, org, reason)] if every else [_one(letters, id_) for id_ in ids or ()]
    )
    replayable = [one for one in chosen if one.inbox_offset >= 0]
    count, gone = asyncio.run(_send_again(settings, replayable))
    typer.echo(f"{count} records sent through again")
    if gone or len(replayable) < len(chosen):
        raise UsageError(
            f"{gone + len(chosen) - len(replayable)} could not be replayed: their record is no longer in inbox; "
            "send those events again from their source"
        )


def _settings() -> "KafkaSettings":
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings

    return load_settings(KafkaSettings)


def _is_wanted(letter: "DeadLetter", org: str | None, reason: str | None) -> bool:
    return (org is None or letter.org == org) and (reason is None or letter.reason == reason)


def _one(letters: "Sequence[DeadLetter]", beginning: str) -> "DeadLetter":
    from shared.errors import UsageError

    found = {one.id: one for one in letters if one.id.startswith(beginning)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise UsageError(f"no dead letter {beginning!r}; `tieout dead-letters list` shows their ids")
    raise UsageError(f"{beginning!r} is the beginning of {len(found)} ids; write more of it")


async def _read(settings: "KafkaSettings") -> "list[DeadLetter]":
    """Read the topic to its end; the last of each id, oldest first."""
    import msgspec

    from shared.contracts.dead_letter import DeadLetter
    from shared.kafka.client import wait_for_kafka
    from shared.kafka.topics import Topics
    from shared.kafka.whole_topic import read_whole

    await wait_for_kafka(settings)
    decode = msgspec.json.Decoder(DeadLetter).decode
    found: dict[str, DeadLetter] = {}
    async for record in read_whole(settings, Topics(settings.topic_prefix).dead_letters):
        letter = decode(record.value)
        found[letter.id] = letter
    return sorted(found.values(), key=lambda one: (one.received_at, one.id))


async def _send_again(settings: "KafkaSettings", letters: "Sequence[DeadLetter]") -> tuple[int, int]:
    """Append the inbox records of `letters` to `inbox` again; return how many, and how many are gone."""
    from shared.kafka.client import await_sent, consumer, producer
    from shared.kafka.one_record import record_at
    from shared.kafka.topics import Topics

    inbox = Topics(settings.topic_prefix).inbox
    wanted = sorted({(one.inbox_partition, one.inbox_offset) for one in letters})
    reader, sender = consumer(settings, auto_offset_reset="earliest"), producer(settings)
    futures, gone = [], 0
    await reader.start()
    await sender.start()
    try:
        for partition, offset in wanted:
            record = await record_at(reader, inbox, partition, offset)
            if record is None:
                gone += 1
                continue
            futures.append(await sender.send(inbox, record.value, key=record.key, partition=partition))
        await await_sent(futures)
    finally:
        await sender.stop()
        await reader.stop()
    return len(futures), gone

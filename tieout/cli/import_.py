"""`tieout import`: bring files that people have to ingest, or look at what they would become."""

import sys
import time
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from shared.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.ingest.domain.formats.rows import Format
    from shared.rules.parts import RuleModel
    from tieout.importing.output import Output
    from tieout.importing.preview import Preview
    from tieout.importing.reading import Ready, Tally
    from tieout.importing.scratch import Scratch
    from tieout.offline.lines import Place

EXAMPLES = """Examples, in the folder examples/bank_and_stripe:

    tieout import bank.csv --as csv --mapping bank.yaml --dry-run --rules rules.yaml

    tieout import bank.csv --as csv --mapping bank.yaml

    tieout import stripe_activity.csv stripe_payouts.csv --as stripe-balance --output stripe.jsonl

Sending needs TIEOUT_API_KEY (role ingest, manager or owner) and TIEOUT_INGEST_URL (http://127.0.0.1:8080).
"""
COMPLAINTS_SHOWN_MAX = 1000
"""Rows that are named one by one: with a wrong mapping it is every row of the file."""
TELL_EVERY_S = 10.0
"""Between two lines on how far it is, without a terminal."""
RECORD_SHOWN_MAX = 10
SAMPLE_BYTES = 256 * 1024
"""Of a file that is not in the encoding its mapping says: enough to tell which it is in."""


class As(StrEnum):
    """What the files are."""

    CSV = "csv"
    STRIPE_BALANCE = "stripe-balance"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", epilog=EXAMPLES)(import_)


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of one kind.", show_default=False)],
    as_: Annotated[As, typer.Option("--as", help="What the files are.", show_default=False)],
    mapping: Annotated[
        Path | None, typer.Option(help="With csv: the mapping file, which column means what.", show_default=False)
    ] = None,
    source: Annotated[str, typer.Option(help="With stripe-balance: name of the source.")] = "stripe",
    zone: Annotated[
        str,
        typer.Option(help="With stripe-balance: the time zone that the report was run in (columns in _utc are UTC)."),
    ] = "UTC",
    output: Annotated[
        Path | None, typer.Option(help="Write the events here instead, a JSON object a line, for `tieout replay`.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first events and what would be reconciled; nothing is sent.")
    ] = False,
    rules: Annotated[
        list[Path] | None,
        typer.Option(help="With --dry-run: rules files to look at instead of the rules in force.", show_default=False),
    ] = None,
    org: Annotated[
        str, typer.Option(help="With --dry-run: org whose rules in force are looked at; sent events get the key's.")
    ] = "default",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row that is no event: exit 2, nothing is sent after it.")
    ] = False,
) -> None:
    """Read FILES as events and send them to ingest; rows that are none are named with FILE:LINE and the rest goes on.

    The same file twice is once, and so are exports that overlap. Files may be of any size.
    """
    from tieout.importing.output import Closing
    from tieout.importing.reading import Tally, read_files
    from tieout.importing.scratch import Scratch

    _check_options(as_, mapping, output, dry_run=dry_run, rules=rules)
    now = datetime.now(UTC)
    scratch, tally = Scratch(), Tally()
    format_ = _format(as_, mapping, source, zone, scratch)
    preview = _preview(rules, org, now) if dry_run else None
    try:
        with _Progress(files) as progress:
            complain = _Complaints(tally, progress, strict=strict)
            out = _output(output, preview, complain, progress)
            with Closing(out):
                for ready in read_files(
                    files, format_, scratch, tally, now=now, complain=complain, progress=progress.read
                ):
                    out.take(ready)
            complain.close()
    except UsageError:
        _hint_at_encoding(files, mapping)
        raise
    finally:
        scratch.close()
    if preview is not None:
        _show(preview)
    if tally.refused:
        _hint_at_encoding(files, mapping)
    _summarise(tally, out.refused, "would be sent" if dry_run else "written" if output else "sent")


def _check_options(
    as_: As, mapping: Path | None, output: Path | None, *, dry_run: bool, rules: list[Path] | None
) -> None:
    if as_ is As.CSV and mapping is None:
        raise UsageError("--as csv needs --mapping FILE, which says what each column means: see docs/import.md")
    if as_ is not As.CSV and mapping is not None:
        raise UsageError(f"--mapping belongs to --as csv; the columns of {as_.value} are known")
    if dry_run and output is not None:
        raise UsageError("--dry-run writes nothing: leave out --output")
    if rules and not dry_run:
        raise UsageError("--rules belongs to --dry-run: what is sent is reconciled by the rules in force")


def _format(as_: As, mapping: Path | None, source: str, zone: str, scratch: "Scratch") -> "Format":
    if as_ is As.CSV:
        from services.ingest.domain.formats.csv_mapping import parse_mapping
        from services.ingest.domain.formats.mapped_csv import CsvFormat

        assert mapping is not None
        return CsvFormat(parse_mapping(_text(mapping), str(mapping)), scratch.occurrences)
    from services.ingest.domain.formats.stripe_balance import StripeBalanceFormat

    return StripeBalanceFormat(source, _zone(zone))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"--zone: {name!r} is no time zone; write a name such as Europe/Berlin or UTC") from None


def _output(path: Path | None, preview: "Preview | None", complain: "_Complaints", progress: "_Progress") -> "Output":
    from tieout.importing.output import ToFile, ToIngest, ToPreview
    from tieout.ingest_api import from_environment, tell_of_retries

    if preview is not None:

        def look(ready: "Ready") -> None:
            preview.take(ready.event)

        return ToPreview(look)
    if path is not None:
        return ToFile(path)
    tell_of_retries(progress.say)
    return ToIngest(from_environment(), complain, progress.sent)


class _Complaints:
    """Names rows that are no events on stderr; with --strict the first one ends the import."""

    def __init__(self, tally: "Tally", progress: "_Progress", *, strict: bool) -> None:
        self._tally = tally
        self._progress = progress
        self._strict = strict
        self._told = 0

    def __call__(self, place: "Place", what: str) -> None:
        from tieout.importing.reading import StrictStop

        if self._strict:
            raise StrictStop(f"{place}: {what}\nstopped there (--strict): nothing after it was sent or written")
        self._told += 1
        if self._told <= COMPLAINTS_SHOWN_MAX:
            self._progress.say(f"{place}: {what}")

    def close(self) -> None:
        """Say how many were not named."""
        if self._told > COMPLAINTS_SHOWN_MAX:
            self._progress.say(f"… and {self._told - COMPLAINTS_SHOWN_MAX:,} more rows")


def _preview(rules: list[Path] | None, org: str, now: datetime) -> "Preview":
    from tieout.importing.preview import Preview

    return Preview(org, _packs(rules, org), now)


def _packs(paths: list[Path] | None, org: str) -> "Mapping[str, Sequence[RuleModel]] | None":
    """Return the rules to look at; None: there are none to be had."""
    import os

    if paths:
        from shared.rules.load import load_rules

        packs: dict[str, Sequence[RuleModel]] = {}
        for path in paths:
            file = load_rules(path)
            if file.pack in packs:
                raise UsageError(f"{path}: the pack {file.pack!r} is already given by another --rules file; join them")
            packs[file.pack] = file.rules
        return packs
    if not os.environ.get("TIEOUT_KAFKA_BOOTSTRAP_SERVERS"):
        return None
    import asyncio

    from tieout.rules_topic import rules_in_force

    return asyncio.run(rules_in_force(org))


def _show(preview: "Preview") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title="First events", title_justify="left")
    has_status = any(one.status for one in preview.first)
    for heading in ("Occurred at", "Type", "Record", "Amount", *(["Status"] if has_status else []), "Refs"):
        justify: Literal["left", "right"] = "right" if heading == "Amount" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "Refs", overflow="fold")
    for one in preview.first:
        refs = " ".join(f"{name}={value}" for name, value in one.refs.items())
        amount = f"{one.amount} {one.currency or ''}".strip() if one.amount is not None else ""
        status = [one.status] if has_status else []
        when = f"{one.occurred_at.astimezone(UTC):%Y-%m-%d %H:%MZ}"
        table.add_row(when, one.type, _short(one.record or one.id), amount, *status, refs)
    console.print(table)
    for line in _preview_lines(preview):
        print(line, flush=True)


def _short(name: str) -> str:
    """Ids made of a row's hash say nothing to people: their beginning tells them apart."""
    return name if len(name) <= RECORD_SHOWN_MAX else f"{name[: RECORD_SHOWN_MAX - 1]}…"


def _preview_lines(preview: "Preview") -> "list[str]":
    from shared.money import format_amount

    lines = ["Counts and sums:"]
    for kind, counted in sorted(preview.sums.items(), key=lambda pair: tuple(part or "" for part in pair[0])):
        total = f", {format_amount(counted.total, kind.currency)} {kind.currency}" if kind.currency else ""
        lines.append(f"  {kind.source}/{kind.type}: {counted.count:,}{total}")
    if preview.packs is None:
        lines.append(
            "Give --rules FILE, or set TIEOUT_KAFKA_BOOTSTRAP_SERVERS and --org, to see which rules would take them."
        )
        return lines
    lines.append("Rules that would take them:")
    lines += [f"  {rule}: {count:,}" for rule, count in sorted(preview.taken.items())] or ["  none"]
    for (rule, reason), (count, words) in sorted(preview.problems.items()):
        lines.append(f"  {rule}: {count:,} become dead letters: {reason}, e.g. {words}")
    for (source, type_), count in sorted(preview.unselected.items()):
        lines.append(f"no rule selects {source}/{type_}: not reconciled ({count:,})")
    return lines


def _hint_at_encoding(files: list[Path], mapping: Path | None) -> None:
    """Say which encoding a file is in, if it is not the one that its mapping says."""
    from services.ingest.domain.formats.csv_mapping import parse_mapping
    from tieout.importing.encoding import likely_encodings

    if mapping is None:
        return
    said = parse_mapping(_text(mapping), str(mapping)).file.encoding
    for file in files:
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            likely = " or ".join(likely_encodings(stream.read(SAMPLE_BYTES), said))
        if likely:
            sys.stderr.write(f"{file}: reads as {likely} rather than {said}: set `file.encoding` in {mapping}\n")


def _summarise(tally: "Tally", refused_later: int, done: str) -> None:
    for notice, count in sorted(tally.notices.items()):
        print(f"note: {notice} ({count:,} rows)", flush=True)
    for file in tally.empty:
        print(f"note: {file} has a header and no rows", flush=True)
    parts = [f"{tally.rows:,} rows read", f"{tally.events - refused_later:,} events {done}"]
    if tally.repeated:
        parts.append(f"{tally.repeated:,} events came again and are the same")
    parts.append(f"{tally.refused + refused_later:,} refused")
    print(f"{', '.join(parts)}.", flush=True)


class _Progress:
    """A bar on a terminal, now and then a line elsewhere; both on stderr."""

    def __init__(self, files: list[Path]) -> None:
        self._bytes = sum(file.stat().st_size for file in files if file.is_file())
        self._done = 0
        self._accepted = 0
        self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task("Reading", total=self._bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def read(self, count: int) -> None:
        """Note that so many bytes more were read."""
        self._done += count
        self._bar.update(self._task, completed=self._done)
        self._tell()

    def sent(self, accepted: int) -> None:
        """Note that so many events in all were accepted."""
        self._accepted = accepted
        self._bar.update(self._task, description=f"{accepted:,} accepted")
        self._tell()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def _tell(self) -> None:
        if self._console.is_terminal or time.monotonic() - self._told_at < TELL_EVERY_S:
            return
        self._told_at = time.monotonic()
        percent = 100 * self._done // self._bytes if self._bytes else 100
        accepted = f", {self._accepted:,} events accepted" if self._accepted else ""
        self.say(f"{percent} % read{accepted}")

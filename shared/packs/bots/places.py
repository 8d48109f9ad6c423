"""Where the files of bots lie: patterns from the environment, relative to the working directory."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from shared.errors import UsageError

SNAPSHOTS_VARIABLE: Final = "RECON_SNAPSHOT_FILES"
FILLS_VARIABLE: Final = "RECON_FILLS_FILES"
EVENTS_VARIABLE: Final = "RECON_EVENT_FILES"
EXCHANGE_VARIABLE: Final = "RECON_EXCHANGE_SNAPSHOT_PATH"
REPORTS_VARIABLE: Final = "RECON_REPORTS_PATH"

DEFAULTS: Final = {
    SNAPSHOTS_VARIABLE: "data/{bot}/snapshot.json",
    FILLS_VARIABLE: "data/{bot}/fills.csv",
    EVENTS_VARIABLE: "data/{bot}/events.jsonl,reports/event_store/*.jsonl",
    EXCHANGE_VARIABLE: "reports/exchange_snapshots/latest.json",
    REPORTS_VARIABLE: "reports/reconciliation",
}
"""`{bot}` is the name of a bot; `*` and `**` stand for what they stand for in a shell. Several patterns by commas."""

BOT_PLACE: Final = "{bot}"
_MAGIC = re.compile(r"\*\*/?|\*|\?|\{bot\}|[^*?{]+|\{")


@dataclass(frozen=True, slots=True)
class BotFiles:
    """What lies there of one bot."""

    bot: str
    snapshot: Path | None
    """Of several the one written last."""
    fills: tuple[Path, ...]
    events: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What lies there."""

    bots: tuple[BotFiles, ...]
    stores: tuple[Path, ...]
    """Event stores whose lines name their bot."""


@dataclass(frozen=True, slots=True)
class Places:
    """Patterns and paths, as people gave them."""

    snapshots: tuple[str, ...]
    fills: tuple[str, ...]
    events: tuple[str, ...]
    exchange: Path
    reports: Path
    exchange_is_named: bool = False
    """Somebody said where the exchange's snapshot lies: then it must be there."""

    def find(self) -> Found:
        """Look which bots have files, and which."""
        snapshots = _by_bot(self.snapshots)
        fills, events = _by_bot(self.fills), _by_bot(self.events)
        bots = []
        for bot in sorted({*snapshots, *fills, *events}):
            newest = sorted(snapshots.get(bot, ()), key=lambda path: (-_written(path), str(path)))
            bots.append(
                BotFiles(bot, newest[0] if newest else None, tuple(fills.get(bot, ())), tuple(events.get(bot, ())))
            )
        named = {path for paths in events.values() for path in paths}
        stores = sorted(
            {path for pattern in self.events if BOT_PLACE not in pattern for path in _matches(pattern)} - named
        )
        return Found(tuple(bots), tuple(stores))


def read_places(environment: Mapping[str, str] | None = None) -> Places:
    """Return the places that the environment names.

    Raises:
        UsageError: a pattern that would find no bot.
    """
    given = os.environ if environment is None else environment

    def patterns(variable: str) -> tuple[str, ...]:
        found = tuple(one.strip() for one in (given.get(variable) or DEFAULTS[variable]).split(",") if one.strip())
        if not found:
            raise UsageError(f"{variable}: names no pattern; write for example {DEFAULTS[variable]}")
        for one in found:
            if variable != EVENTS_VARIABLE and BOT_PLACE not in one:
                raise UsageError(f"{variable}: {one} has no {BOT_PLACE}; write for example {DEFAULTS[variable]}")
            if one.count(BOT_PLACE) > 1:
                raise UsageError(f"{variable}: {one} has {BOT_PLACE} twice; the other place is a *")
        return found

    return Places(
        snapshots=patterns(SNAPSHOTS_VARIABLE),
        fills=patterns(FILLS_VARIABLE),
        events=patterns(EVENTS_VARIABLE),
        exchange=Path(given.get(EXCHANGE_VARIABLE) or DEFAULTS[EXCHANGE_VARIABLE]),
        reports=Path(given.get(REPORTS_VARIABLE) or DEFAULTS[REPORTS_VARIABLE]),
        exchange_is_named=bool(given.get(EXCHANGE_VARIABLE)),
    )


def _by_bot(patterns: tuple[str, ...]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for pattern in patterns:
        if BOT_PLACE not in pattern:
            continue
        for path in _matches(pattern.replace(BOT_PLACE, "*")):
            named = _regex(pattern).fullmatch(path.as_posix())
            if named is not None:
                paths = found.setdefault(named.group("bot"), [])
                if path not in paths:
                    paths.append(path)
    return found


def _matches(pattern: str) -> list[Path]:
    """Return the files that a pattern finds, in order."""
    path = Path(pattern)
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    relative = str(path.relative_to(anchor)) if path.is_absolute() else str(path)
    return sorted(one for one in anchor.glob(relative) if one.is_file())


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    said = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", BOT_PLACE: "(?P<bot>[^/]+)"}
    return re.compile("".join(said.get(part, re.escape(part)) for part in _MAGIC.findall(Path(pattern).as_posix())))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0

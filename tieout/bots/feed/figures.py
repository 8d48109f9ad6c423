"""What the bots said, kept small for pictures: a line per snapshot that ingest has acknowledged."""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from shared.contracts.event import PostedEvent
from shared.packs.bots.names import EXTERNAL, SNAPSHOT

FIGURES_FILE = "figures.jsonl"
"""Beside the reports."""
FIGURES_BYTES_MAX = 16 * 1024 * 1024
"""About a hundred thousand snapshots; then the file becomes `figures.jsonl.1`, and the one before is gone."""


class FigureLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a picture needs; numbers as text, as the bot wrote them."""

    bot: str
    at: datetime
    base_pct: str | None = None
    target_base_pct: str | None = None
    external_base_pct: str | None = None


def keep_figures(reports: Path, events: Iterable[PostedEvent]) -> None:
    """Add the snapshots among some events.

    Raises:
        OSError: they cannot be written; pictures lack them then, and nothing else does.
    """
    lines = [msgspec.json.encode(_line(event)) for event in events if event.type == SNAPSHOT]
    if not lines:
        return
    path = reports / FIGURES_FILE
    if path.exists() and path.stat().st_size > FIGURES_BYTES_MAX:
        path.replace(former(path))
    # One write: a reader sees whole lines, or a last one that it leaves out.
    place = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(place, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(place)


def read_figures(reports: Path) -> Iterator[FigureLine]:
    """Yield what was kept, oldest first; what is no line is left out."""
    path = reports / FIGURES_FILE
    decode = msgspec.json.Decoder(FigureLine).decode
    for one in (former(path), path):
        try:
            with one.open("rb") as file:
                for raw in file:
                    try:
                        yield decode(raw)
                    except msgspec.MsgspecError:
                        continue
        except FileNotFoundError:
            continue


def former(path: Path) -> Path:
    """Return where the lines before those of `path` are."""
    return path.with_name(f"{path.name}.1")


def _line(event: PostedEvent) -> FigureLine:
    attrs = event.attrs
    return FigureLine(
        event.account or "",
        event.occurred_at,
        attrs.get("base_pct"),
        attrs.get("target_base_pct"),
        attrs.get(EXTERNAL),
    )

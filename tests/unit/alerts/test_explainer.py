"""The explainer's loop: when it goes on at once, and when it lets what comes gather."""

import asyncio
from typing import Any

import pytest

from services.alerts.handlers import explainer
from services.alerts.use_cases.explanations import CHANGES_MAX
from shared.telemetry.health import Health


async def rests(script: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Return for each round how many changes it asked for, and whether a pause of at least `poll_s` came before the next."""
    asked: list[int] = []
    paused: set[int] = set()

    async def round_(_store: object, *, changes_max: int, cluster_size_min: int) -> int:
        if len(asked) == len(script):
            raise asyncio.CancelledError
        asked.append(changes_max)
        answer = script[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    async def sleep(seconds: float) -> None:
        if seconds >= 0.5:
            paused.add(len(asked) - 1)

    monkeypatch.setattr(explainer, "explain_changes", round_)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await explainer.explain(None, Health(["database"]), poll_s=0.5, cluster_size_min=3)  # type: ignore[arg-type]
    return [(changes_max, number in paused) for number, changes_max in enumerate(asked)]


async def test_it_goes_on_at_once_only_while_rounds_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await rests([CHANGES_MAX, CHANGES_MAX, 1, 0], monkeypatch) == [
        (CHANGES_MAX, False),
        (CHANGES_MAX, False),
        (CHANGES_MAX, True),
        (CHANGES_MAX, True),
    ]


async def test_after_a_failure_it_goes_through_changes_one_by_one_without_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (await rests([ValueError("x"), 1, 1, 0], monkeypatch))[1:] == [(1, False), (1, False), (1, True)]

"""Whether a process works, told truthfully: its loops prove their progress, its conditions are set by what is so.

Knows no framework; `ops.py` shows it over HTTP.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

OK: Final = "ok"

STALL_SECONDS_MAX: Final = 30.0
"""A loop silent for longer is stuck: it beats at least once per poll, and a poll waits a second at most."""


class Verdict(NamedTuple):
    """`reasons` names everything that was looked at: `ok`, or why not."""

    ok: bool
    reasons: dict[str, str]


class UnknownCondition(LookupError):
    """A readiness condition was set that nobody declared; declared ones would then stay false for ever."""


class Health:
    """Heartbeats of loops (live) and declared conditions (ready).

    Conditions are declared at the start and are false until set, so a process that is still starting is not ready.
    Setting and beating are single dictionary writes: cheap, and safe from any thread.
    """

    def __init__(
        self,
        conditions: Iterable[str],
        *,
        stall_seconds_max: float = STALL_SECONDS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._stall_seconds_max = stall_seconds_max
        self._conditions: dict[str, str] = dict.fromkeys(conditions, "not yet")
        if not self._conditions:
            raise ValueError("declare at least one readiness condition: a process without one is always ready")
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._beats: dict[str, float] = {}
        self._limits: dict[str, float] = {}
        self._failures: dict[str, str] = {}

    def watch(self, loop: str, stall_seconds_max: float | None = None) -> None:
        """Expect heartbeats of `loop` from now on, at most `stall_seconds_max` apart."""
        self._limits[loop] = self._stall_seconds_max if stall_seconds_max is None else stall_seconds_max
        self.heartbeat(loop)

    def heartbeat(self, loop: str) -> None:
        """`loop` made progress, or found that there is nothing to do. The first beat starts the watch."""
        self._beats[loop] = self._clock()

    def unwatch(self, loop: str) -> None:
        """`loop` ended as it should."""
        self._beats.pop(loop, None)
        self._limits.pop(loop, None)

    def fail(self, part: str, reason: str) -> None:
        """`part` broke and will not recover in this process: not live from now on."""
        self._failures[part] = reason

    def check(self, name: str, look: Callable[[], str | None]) -> None:
        """A readiness condition that is looked up when asked: `look` returns None when it is so, else why not.

        It must not block; when it raises, that counts as not ready.
        """
        self._checks[name] = look

    def set_ready(self, condition: str) -> None:
        self._set(condition, OK)

    def set_not_ready(self, condition: str, reason: str) -> None:
        self._set(condition, reason)

    def _set(self, condition: str, state: str) -> None:
        if condition not in self._conditions:
            raise UnknownCondition(f"{condition} is not declared; declared: {', '.join(self._conditions)}")
        self._conditions[condition] = state

    def live(self) -> Verdict:
        """True while no part failed and every watched loop beat within its limit."""
        now = self._clock()
        beats = {loop: self._progress(loop, now - beat) for loop, beat in self._beats.copy().items()}
        return _verdict(beats | self._failures)

    def ready(self) -> Verdict:
        """True while every condition is true; a process that is not live is not ready either."""
        troubles = {name: reason for name, reason in self.live().reasons.items() if reason != OK}
        looked = {name: _look(look) for name, look in self._checks.copy().items()}
        return _verdict(self._conditions | looked | troubles)

    def _progress(self, loop: str, silent_seconds: float) -> str:
        limit = self._limits.get(loop, self._stall_seconds_max)
        if silent_seconds <= limit:
            return OK
        return f"no progress for {silent_seconds:.0f} s (limit {limit:.0f} s)"


def _verdict(reasons: dict[str, str]) -> Verdict:
    return Verdict(all(reason == OK for reason in reasons.values()), reasons)


def _look(look: Callable[[], str | None]) -> str:
    try:
        return look() or OK
    except Exception as error:  # noqa: BLE001 - a broken check must not break the answer that tells of it
        # Its text may hold an address with a password; the type is enough to look into the log.
        return f"check failed: {type(error).__name__}"

"""What lies between a process and the broker: requests and answers that are late, lost, or arrive though nobody waits.

A request either reaches the broker or not, and its answer either comes back or not; the client cannot tell which of the
two was lost. A request may also be held up on its way (`late`): the client gives it up and tries again, and the first
one arrives after all.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from tests.simulation.broker import Broker
from tests.simulation.event_loop import PROCESS, Process, SimulatedLoop

REQUEST_TIMEOUT_S = 3.0
"""The product asks for 15 s; everything that waits is scaled down alike, so that runs are short."""
REFUSED_S = 0.05


class Network:
    """Carries calls of processes to the broker."""

    def __init__(self, loop: SimulatedLoop, broker: Broker, chance: random.Random) -> None:
        self.loop = loop
        self.broker = broker
        self.chance = chance
        self.cut: set[str] = set()
        """Processes without a connection."""
        self.silent: set[str] = set()
        """Processes whose packets get lost without a word."""
        self.lose_answer: Counter[str] = Counter()
        """How many answers of a kind of request to lose from now on."""
        self.late: dict[str, list[float]] = {}
        """By kind: by how many seconds to hold up the next request."""
        self.refuse: Counter[str] = Counter()
        """Batches that the broker refuses, by topic."""
        self.slow_s = 0.0
        """Added to every trip, for weather."""
        self.done: Counter[str] = Counter()

    async def call(self, what: str, handler: Callable[..., Any], *args: Any) -> Any:
        """Ask the broker.

        Raises:
            KafkaError: the answer, or that there was none; then it may have happened all the same.
        """
        process = PROCESS.get()
        answer: asyncio.Future[Any] = self.loop.create_future()
        if not self._passes(process):
            self._fail(process, answer)
        elif held_up := self.late.get(what):
            self.done[f"late {what}"] += 1
            self._outside(held_up.pop(), self._arrive_alone, handler, args)
            self._fail(process, answer)
        else:
            self._outside(self._trip_s(), self._arrive, process, what, handler, args, answer)
        return await answer

    def _passes(self, process: Process) -> bool:
        return self.broker.up and process.name not in self.cut and process.name not in self.silent

    def _trip_s(self) -> float:
        return self.slow_s * self.chance.random() + self.chance.choice((0.0003, 0.0005, 0.001, 0.002, 0.01))

    def _outside(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        token = PROCESS.set(self.loop.outside)
        self.loop.call_later(delay_s, call, *args)
        PROCESS.reset(token)

    def _fail(self, process: Process, answer: "asyncio.Future[Any]") -> None:
        if process.name in self.silent:
            self._outside(REQUEST_TIMEOUT_S, _set_error, answer, RequestTimedOutError())
        else:
            self._outside(REFUSED_S, _set_error, answer, KafkaConnectionError("no connection"))

    def _arrive(
        self, process: Process, what: str, handler: Callable[..., Any], args: tuple[Any, ...], answer: Any
    ) -> None:
        if not self._passes(process):
            self._fail(process, answer)
            return
        try:
            result = handler(*args)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._answer(process, what, answer, error=error)
            return
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: self._answer(process, what, answer, done.result()))
        else:
            self._answer(process, what, answer, result)

    def _arrive_alone(self, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if not self.broker.up:
            return
        with contextlib.suppress(Exception):  # nobody waits for the answer any more
            handler(*args)

    def _answer(
        self, process: Process, what: str, answer: Any, result: Any = None, error: Exception | None = None
    ) -> None:
        incarnation = self.broker.incarnation
        if self.lose_answer[what] > 0 and error is None:
            self.lose_answer[what] -= 1
            self.done[f"lost answer to {what}"] += 1
            self._fail(process, answer)
            return

        def back() -> None:
            if not self._passes(process) or incarnation != self.broker.incarnation:
                self._fail(process, answer)
            elif error is not None:
                _set_error(answer, error)
            elif not answer.done():
                answer.set_result(result)

        self._outside(self._trip_s(), back)


def _set_error(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)

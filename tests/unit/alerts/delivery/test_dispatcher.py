"""The dispatcher against an outbox in memory that fails at times and a receiver that answers whenever it likes.

Whatever the order of answers, failures and the stop: places and claims stay within their limits, every attempt is handed
over once, every claim is begun or given back, and everything arrives.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerts.domain.delivery import Answer, Attempt, Claim
from services.alerts.domain.signature import secret_text
from services.alerts.handlers import dispatcher
from services.alerts.handlers.dispatcher import Dispatcher
from services.alerts.ports.delivery import Exchanged
from services.alerts.use_cases.dispatch import Dispatch
from shared.errors import DependencyAway

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PLACES, CLAIMS_MAX = 3, 8
SECRET = secret_text(b"s" * 32)


def claim(number: int) -> Claim:
    return Claim(
        id=number, org="acme", endpoint_id="e", url="https://example.com", secrets=(SECRET,), message_id=f"msg_{number}",
        type="discrepancy.raised", payload=b"{}", attempt=1, created_at=NOW, until=NOW + timedelta(minutes=1),
    )  # fmt: skip


class World:
    """Outbox and receiver. A claim whose outcome was lost with a failed exchange is due again, as after its lease."""

    def __init__(self, messages: int, chance: Random) -> None:
        self.due = list(range(messages))
        self.chance = chance
        self.held: set[int] = set()
        self.arrived: list[int] = []
        self.begun: set[int] = set()
        self.under_way = 0
        self.handed_over: list[Attempt] = []

    async def due_endpoints(self) -> list[str]:
        return ["e"] if self.due else []

    async def exchange(self, _: str, made: Sequence[Attempt], unsent: Sequence[Claim], room: int) -> Exchanged:
        assert room <= CLAIMS_MAX
        await self._pass()
        assert not {id(one) for one in made} & {id(one) for one in self.handed_over}, "handed over twice"
        self.handed_over += made
        if self.chance.random() < 0.15:
            lost = [*(one.claim.id for one in made), *(one.id for one in unsent)]
            self.held.difference_update(lost)
            self.begun.difference_update(lost)
            self.due += lost
            raise DependencyAway("away")
        for back in unsent:
            assert back.id not in self.begun, "given back although it was begun"
            self.due.append(back.id)
            self.held.remove(back.id)
        for one in made:
            self.held.remove(one.claim.id)
            self.begun.remove(one.claim.id)
        taken, self.due = self.due[:room], self.due[room:]
        self.held.update(taken)
        assert len(self.held) <= CLAIMS_MAX
        return Exchanged([True] * len(made), [claim(number) for number in taken])

    async def waiting(self) -> int:
        return len(self.due) + len(self.held)

    async def listen(self) -> None: ...

    async def send(self, sent: Claim, headers: object) -> Answer:
        self.begun.add(sent.id)
        self.under_way += 1
        assert self.under_way <= PLACES
        await self._pass()
        self.under_way -= 1
        self.arrived.append(sent.id)
        return Answer(status=204, error=None, duration_ms=1)

    async def _pass(self) -> None:
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)


async def work(world: World, looks: int) -> None:
    """Run a dispatcher that is stopped after `looks` turns of the loop."""
    dispatch = Dispatch(world, world, clock=lambda: NOW, chance=lambda: 0.5, attempt_max=timedelta(seconds=15))  # type: ignore[arg-type]
    running = asyncio.create_task(Dispatcher(dispatch, places=PLACES, claims_max=CLAIMS_MAX, poll_s=0).run())
    for _ in range(looks):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@settings(deadline=None, max_examples=80)
@given(messages=st.integers(0, 40), looks=st.integers(1, 120), seed=st.integers(0, 2**32))
def test_everything_arrives_and_nothing_stays_taken(messages: int, looks: int, seed: int) -> None:
    """After any stop nothing is held that a lease would have to free; with time enough all has arrived."""
    world = World(messages, Random(seed))

    async def stop_and_go_on() -> None:
        while True:
            await work(world, looks)
            assert world.under_way == 0
            assert not world.held, "held by a process that has ended"
            if not world.due:
                return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "AWAY_PAUSE_S", 0)
        patch.setattr(dispatcher, "GATHER_S", 0)
        asyncio.run(asyncio.wait_for(stop_and_go_on(), 30))
    assert set(world.arrived) == set(range(messages))

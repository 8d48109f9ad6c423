"""Services that end by themselves run again; who ends too often, or is asked to end, does not."""

import asyncio
import os
import signal

import pytest

from tieout.local import restarts
from tieout.local.processes import Child, Processes
from tieout.local.restarts import ServiceEnded, keep_running, run_until_asked

LASTING = ["-c", "import os, time; print('up', os.getpid(), flush=True); time.sleep(600)"]


class _Told:
    """What was said and shown, and who waits for it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[str, str]] = []

    def show(self, name: str, line: str) -> None:
        self.shown.append((name, line))

    async def up(self, child: Child, pid: int) -> None:
        async with asyncio.timeout(20):
            while (child.name, f"up {pid}") not in self.shown:  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(0.02)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> _Told:
    monkeypatch.setattr(restarts, "PAUSE_FIRST_S", 0.01)
    return _Told()


async def test_a_service_that_was_killed_runs_again_beside_the_others(told: _Told) -> None:
    asked = asyncio.Event()
    async with Processes(told.show) as processes:
        alerts = await processes.python("alerts", LASTING)
        matcher = await processes.python("matcher", LASTING)
        await told.up(alerts, alerts.pid)
        kept = alerts.pid
        running = asyncio.create_task(run_until_asked(asked, processes, told.said.append))
        for _ in range(2):
            first = matcher.pid
            await told.up(matcher, first)
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(20):
                while matcher.pid == first:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(0.01)
        await told.up(matcher, matcher.pid)
        assert (alerts.pid, alerts.exit_code) == (kept, None)
        asked.set()
        await running
    assert told.said == [
        "matcher ended with exit code -9: it is started again in 0.01 s",
        "matcher ended with exit code -9: it is started again in 0.02 s",
    ]
    assert matcher.exit_code == alerts.exit_code == -signal.SIGTERM


async def test_a_service_that_always_ends_is_given_up(told: _Told) -> None:
    async with Processes(told.show) as processes:
        await processes.python("alerts", LASTING)
        await processes.python("matcher", ["-S", "-c", "print('no such table'); raise SystemExit(3)"])
        with pytest.raises(ServiceEnded, match=r"^matcher ended 5 times within 60 s, at last with exit code 3;"):
            await keep_running(processes, told.said.append)
    assert len(told.said) == restarts.ENDS_MAX - 1
    assert told.shown.count(("matcher", "no such table")) == restarts.ENDS_MAX


async def test_work_that_is_done_ends_the_wait_and_its_error_is_raised(told: _Told) -> None:
    async def done() -> None:
        pass

    async def fail() -> None:
        raise ZeroDivisionError

    async with Processes(told.show) as processes:
        lasting = await processes.python("alerts", LASTING)
        await run_until_asked(asyncio.Event(), processes, told.said.append, done())
        with pytest.raises(ZeroDivisionError):
            await run_until_asked(asyncio.Event(), processes, told.said.append, fail())
        assert lasting.exit_code is None
    assert told.said == []

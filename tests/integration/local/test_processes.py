"""Child processes: their lines are named, their end is seen, and none is left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tieout.local.errors import LocalUnavailable
from tieout.local.places import free_ports
from tieout.local.processes import Processes

FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
WITH_GRANDCHILD = (
    "import subprocess, sys, time; "
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); "
    "time.sleep(600)"
)


def alive(pid: int) -> bool:
    """Running, and not just waiting for its parent to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.02)


@pytest.fixture
def shown() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def processes(shown):
    async with Processes(lambda name, line: shown.append((name, line)), stop_timeout_s=1.0) as running:
        yield running


async def test_lines_carry_the_name_of_their_program(processes: Processes, shown):
    child = await processes.python("ingest", ["-c", "print('one'); import sys; print('two', file=sys.stderr)"])
    assert await processes.first_to_end() is child

    assert sorted(shown) == [("ingest", "one"), ("ingest", "two")]
    assert child.exit_code == 0


async def test_a_line_beyond_the_limit_does_not_end_the_reader(processes: Processes, shown):
    await processes.python("ingest", ["-c", "print('x' * 2_500_000); print('after')"])
    await processes.first_to_end()

    assert shown[-1] == ("ingest", "after")
    assert sum(len(line) for _, line in shown) == 2_500_000 + len("after")


async def test_the_environment_is_added_to_ours(processes: Processes, shown):
    await processes.python("x", ["-c", "import os; print(os.environ['ADDED'], 'PATH' in os.environ)"], {"ADDED": "1"})
    await processes.first_to_end()

    assert shown == [("x", "1 True")]


async def test_the_first_to_end_is_named(processes: Processes):
    await processes.python("lasting", ["-c", FOREVER])
    failing = await processes.python("failing", ["-c", "raise SystemExit(3)"])

    ended = await processes.first_to_end()

    assert (ended, ended.exit_code) == (failing, 3)


async def test_stop_is_graceful_first(processes: Processes, shown):
    child = await processes.python("lasting", ["-c", FOREVER])
    await until(lambda: shown)

    assert await processes.stop(child) == -signal.SIGTERM


async def test_who_ignores_the_request_is_killed(processes: Processes, shown):
    child = await processes.python("stubborn", ["-c", STUBBORN])
    await until(lambda: shown)

    assert await processes.stop(child) == -signal.SIGKILL
    assert shown[-1] == ("stubborn", "did not end within 1 s of SIGTERM: killed")


async def test_grandchildren_end_with_their_parent(processes: Processes, shown):
    child = await processes.python("parent", ["-c", WITH_GRANDCHILD])
    await until(lambda: shown)
    grandchild = int(shown[0][1])
    assert alive(grandchild)

    await processes.kill(child)

    await until(lambda: not alive(grandchild))


async def test_an_exception_leaves_nothing_behind():
    pids: list[int] = []

    async def fail_with_children() -> None:
        async with Processes(lambda *_: None) as running:
            pids.extend([(await running.python(str(n), ["-c", FOREVER])).pid for n in range(2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_with_children()

    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_runner_leaves_nothing_behind(sent: signal.Signals, processes: Processes, shown):
    program = f"""
import asyncio
from tieout.local.processes import Processes, ended_by_signals
async def main():
    async with ended_by_signals() as asked, Processes() as running:
        child = await running.python("inner", ["-c", {FOREVER!r}])
        print("pid", child.pid, flush=True)
        await asked.wait()
    print("ended", flush=True)
asyncio.run(main())
"""
    runner = await processes.python("runner", ["-c", program], {"PYTHONPATH": str(Path.cwd())})
    await until(lambda: any(line.startswith("pid ") for _, line in shown))
    inner = int(next(line for _, line in shown if line.startswith("pid ")).split()[1])

    os.kill(runner.pid, sent)
    await processes.first_to_end()

    assert (runner.exit_code, shown[-1]) == (0, ("runner", "ended"))
    assert not alive(inner)


async def test_ready_when_it_answers(processes: Processes, tmp_path):
    (port,) = free_ports(1)
    child = await processes.start(
        "web", [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(tmp_path)]
    )

    await processes.wait_ready(child, f"http://127.0.0.1:{port}/")

    with pytest.raises(LocalUnavailable, match=r"web was not ready at .*/missing within 0.5 s \(last answer: 404\)"):
        await processes.wait_ready(child, f"http://127.0.0.1:{port}/missing", timeout_s=0.5)


async def test_who_ends_before_it_is_ready_is_shown_with_its_last_lines(processes: Processes):
    (port,) = free_ports(1)
    child = await processes.python("web", ["-c", "print('no such table'); raise SystemExit(4)"])

    with pytest.raises(LocalUnavailable, match=r"(?s)web ended with exit code 4 .*no such table"):
        await processes.wait_ready(child, f"http://127.0.0.1:{port}/")


async def test_a_program_that_does_not_exist_is_named(processes: Processes):
    with pytest.raises(LocalUnavailable, match="db: no-such-program does not start"):
        await processes.start("db", ["no-such-program"])

"""`tieout bench restart`: how long after its `kill -9` a matcher's partitions are all active again, with little state.

The process has a name that it keeps (static membership), as a StatefulSet's pods have, and is started again at once: a
start of Python and its imports is in the time, and measured beside it.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import Any

from shared.kafka.topics import DEFAULT_PARTITIONS, apply_topics
from tieout.bench.harness import machine_facts, own_kafka, say, versions_used
from tieout.bench.latency import Observed
from tieout.bench.legs_latency import Legs
from tieout.bench.one_service import running

LEGS_PER_SECOND = 1_000
SECONDS = 2
GOAL_S = 0.5


async def bench(kills: int = 5) -> dict[str, Any]:
    """Run a broker and a matcher, and kill it again and again."""
    machine = machine_facts()
    named = {"TIEOUT_GROUP_INSTANCE_ID": "bench-0"}
    taken_s: list[float] = []
    async with own_kafka() as kafka:
        await apply_topics(kafka)
        killed_s = 0.0
        for number in range(kills + 1):
            async with running("matcher", kafka, **named) as matcher:
                if number:
                    taken_s.append(time.monotonic() - killed_s)
                    say(f"kill {number}: all partitions active again after {taken_s[-1]:.2f} s")
                else:
                    await Legs(kafka, Observed(), LEGS_PER_SECOND, 4).write(SECONDS)
                matcher.process.kill()
                killed_s = time.monotonic()
    return {
        "benchmark": "restart",
        "kills": kills,
        "active_again_s": {"median": round(statistics.median(taken_s), 2), "max": round(max(taken_s), 2)},
        "of_which_start_of_python_s": round(await _imports_s(), 2),
        "goal_s": GOAL_S,
        "settings": {"partitions": DEFAULT_PARTITIONS, "legs_held": LEGS_PER_SECOND * SECONDS},
        "versions": versions_used(),
        "machine": machine,
    }


async def _imports_s() -> float:
    """Return what a process needs before its first line of work, started as `services.matcher.__main__` starts it."""
    start = "import gc, os, sys; gc.disable(); sys.modules['rich'] = None; import services.matcher.app; os._exit(0)"
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", start)
    await process.wait()
    return time.monotonic() - begun


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print lines, or one JSON object last."""
    if as_json:
        print(json.dumps(figures), flush=True)
        return
    again = figures["active_again_s"]
    print(
        f"{figures['kills']} kills -9: all partitions active again after {again['median']} s in the median, {again['max']} s "
        f"at most; {figures['of_which_start_of_python_s']} s of it start Python (goal {GOAL_S} s)"
    )

"""Run many seeds, or one: `python -m tests.simulation --seeds 2000` or `--seed 17 --show`.

A seed that fails is shrunk to as few faults and payments as still fail, and the command for it is printed.
"""

# ruff: noqa: T201 - a command prints

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import replace

import structlog

from tests.simulation import planted
from tests.simulation.faults import KINDS
from tests.simulation.world import Plan, World


def judged(plan: Plan) -> World:
    """Run one plan."""
    world = World(plan)
    world.run()
    return world


def shrunk(plan: Plan) -> Plan:
    """Return a smaller plan that fails too: faults are left out, in halves first, then payments."""
    numbers = [fault.number for fault in plan.faults()]
    size = max(1, len(numbers) // 2)
    while True:
        begin, before = 0, len(numbers)
        while begin < len(numbers):
            fewer = numbers[:begin] + numbers[begin + size :]
            if judged(smaller := replace(plan, keep=frozenset(fewer))).wrong:
                numbers, plan = fewer, smaller
            else:
                begin += size
        if size == 1 and len(numbers) == before:
            break
        size = max(1, size // 2)
    for groups in (2, 3, 4, 6, 8):
        if groups < plan.groups and judged(replace(plan, groups=groups)).wrong:
            return replace(plan, groups=groups)
    return plan


def command(plan: Plan) -> str:
    """What a person types to see this run."""
    text = f"python -m tests.simulation --seed {plan.seed} --groups {plan.groups} --faults {plan.faults_most}"
    if plan.kinds:
        text += f" --kinds '{','.join(plan.kinds)}'"
    if plan.planted:
        text += f" --planted {plan.planted}"
    if plan.keep is not None:
        text += " --keep " + ",".join(map(str, sorted(plan.keep)))
    return text + " --show"


def _quiet() -> None:
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _one(plan: Plan) -> tuple[Plan, list[str], int, float, Counter[str]]:
    _quiet()
    world = judged(plan)
    kinds = Counter(fault.kind for fault in plan.faults())
    return plan, world.wrong, world.loop.steps, world.settled_s, kinds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--groups", type=int, default=Plan.groups, help="payments and refunds per run")
    parser.add_argument("--faults", type=int, default=Plan.faults_most, help="most faults per run")
    parser.add_argument("--keep", help="numbers of the faults that happen, such as 0,3")
    parser.add_argument("--planted", default="", choices=["", *planted.ALL], help="a fault of the product to be found")
    parser.add_argument("--kinds", default="", help=f"kinds of faults, such as broker,kill: {', '.join(KINDS)}")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes")
    parser.add_argument("--show", action="store_true", help="print what happens in the run")
    given = parser.parse_args(arguments)
    kinds = tuple(kind for kind in given.kinds.split(",") if kind)
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"--kinds: there is no {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    try:
        keep = None if given.keep is None else frozenset(int(number) for number in given.keep.split(",") if number)
    except ValueError:
        parser.error("--keep takes numbers, such as 0,3")
    plan = Plan(given.seed or 0, given.groups, given.faults, keep, given.planted, kinds)
    if given.seed is not None:
        return _show(plan, given.show)
    plans = [replace(plan, seed=seed) for seed in range(given.first, given.first + given.seeds)]
    return _many(plans, given.jobs)


def _show(plan: Plan, loudly: bool) -> int:
    world = World(plan)
    if loudly:
        _log_with_time(world)
    world.run()
    for line in world.done:
        print(line)
    print(f"on the network: {dict(world.network.done + world.wire.done)}; markers forgotten: {world.broker.skipped}")
    print(f"{world.loop.steps} steps, {world.loop.now_s:.1f} simulated seconds")
    for line in world.wrong:
        print(f"WRONG {line}")
    return 1 if world.wrong else 0


def _log_with_time(world: World) -> None:
    from tests.simulation.event_loop import PROCESS

    def where(_: object, __: str, event: dict[str, object]) -> dict[str, object]:
        return {"at": f"{world.loop.now_s:9.4f}", "process": PROCESS.get(world.loop.outside).name} | event

    def line(_: object, __: str, event: dict[str, object]) -> str:
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("at", "process", "event"))
        return f"{event['at']} {event['process']:<12} {event['event']} {rest}"

    structlog.configure(processors=[where, line], wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))


def _many(plans: list[Plan], jobs: int) -> int:
    begun = time.monotonic()
    failed: list[tuple[Plan, list[str]]] = []
    steps, slowest, kinds = 0, 0.0, Counter[str]()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for plan, wrong, taken, settled_s, drawn in pool.imap_unordered(_one, plans, chunksize=4):
            steps += taken
            kinds += drawn
            slowest = max(slowest, settled_s)
            if wrong:
                failed.append((plan, wrong))
                print(f"FAILED seed {plan.seed}: {wrong[0]}\n  {command(plan)}", flush=True)
    seconds = time.monotonic() - begun
    print(
        f"{len(plans)} seeds in {seconds:.1f} s, {len(plans) / seconds * 60:,.0f} a minute; {steps:,} steps; "
        f"longest way back {slowest:.1f} simulated s; faults: {dict(sorted(kinds.items()))}; {len(failed)} failed"
    )
    if failed:
        plan = shrunk(min(failed, key=lambda one: one[0].seed)[0])
        print(f"shrunk to {len(plan.faults())} faults and {plan.groups} groups:\n  {command(plan)}")
    return 1 if failed else 0


if __name__ == "__main__":
    if "--show" not in sys.argv:
        _quiet()
    sys.exit(main())

"""Runs every benchmark one after the other and keeps what each printed: `make bench-all`, about 40 minutes.

    .venv/bin/python bench/full.py --results docs/bench/results.jsonl --only matcher --only peers

Run it on a machine that does nothing else. What is measured again replaces its line; `bench/plots.py` draws the lines.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TIEOUT = (str(Path(sys.executable).with_name("tieout")), "bench")
TIMEOUT_S = 1800.0

RUNS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "matcher": ((*TIEOUT, "matcher"), {}),
    "matcher, plain Python": ((*TIEOUT, "matcher"), {"TIEOUT_COMPILED": "false"}),
    "matcher, pairs as JSON": ((*TIEOUT, "matcher"), {"TIEOUT_MATCHES_AS_JSON": "true"}),
    "peers": ((sys.executable, "bench/peers/run.py"), {}),
    "legs-latency": ((*TIEOUT, "legs-latency"), {}),
    "latency at 500": ((*TIEOUT, "latency"), {}),
    "latency at 2,000": ((*TIEOUT, "latency", "--events-per-second", "2000", "--seconds", "40"), {}),
    "restart": ((*TIEOUT, "restart"), {}),
    "restore": ((*TIEOUT, "restore"), {}),
    "normaliser": ((*TIEOUT, "normaliser"), {}),
    "ingest": ((*TIEOUT, "ingest"), {}),
    "sink": ((*TIEOUT, "sink"), {}),
    "replay": ((*TIEOUT, "replay"), {}),
    "accuracy": ((*TIEOUT, "accuracy"), {}),
    "load": ((*TIEOUT, "load"), {}),
    "memory": ((*TIEOUT, "memory", "--items", "100000", "--items", "1000000", "--items", "10000000"), {}),
}
"""What is run, and with which variables."""


def run(name: str) -> dict[str, object] | None:
    """Run one benchmark; None, and its complaint on standard error, where it failed."""
    command, environment = RUNS[name]
    shown = " ".join(
        [*(f"{key}={value}" for key, value in environment.items()), *(Path(command[0]).name, *command[1:])]
    )
    print(f"== {name}: {shown}", flush=True)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--json"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        return None
    print(json.dumps(result), flush=True)
    return {"name": name, "command": shown, "took_s": round(time.monotonic() - begun), "result": result}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/bench/results.jsonl")
    parser.add_argument("--only", action="append", choices=RUNS, help="instead of all; may be given several times")
    given = parser.parse_args()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in given.only or RUNS:
        line = run(name)
        failed |= line is None
        if line is not None:
            kept = (
                [json.loads(text) for text in given.results.read_text().splitlines()] if given.results.exists() else []
            )
            lines = {one["name"]: one for one in kept} | {name: line}
            ordered = [lines[one] for one in RUNS if one in lines]
            given.results.write_text("".join(json.dumps(one) + "\n" for one in ordered))
    sys.exit(failed)


if __name__ == "__main__":
    main()

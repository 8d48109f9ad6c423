"""The month of bank, Stripe and ledger files from end to end, in one command: imported, replayed, and held to what was planted.

    python -m tieout.demo.bank_and_stripe_check examples/bank_and_stripe

Only the commands that people type are used. Exit code 1: a planted break was not found to the cent, or more was found.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tieout.demo.bank_and_stripe import UNTIL

FACTS = ("rule", "type", "key", "difference", "currency", "state")
IMPORTS = {
    "bank.jsonl": ("bank.csv", "--as", "csv", "--mapping", "bank.yaml"),
    "ledger.jsonl": ("ledger.csv", "--as", "csv", "--mapping", "ledger.yaml"),
    "stripe.jsonl": ("stripe_activity.csv", "stripe_payouts.csv", "--as", "stripe-balance"),
}


def check(folder: Path) -> bool:
    """Print what was planted and whether it was found; return whether that is all and nothing else is."""
    planted = [json.loads(line) for line in (folder / "planted.jsonl").read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory(prefix="tieout-month-") as work:
        events = [str(Path(work) / name) for name in IMPORTS]
        for event_file, words in zip(events, IMPORTS.values(), strict=True):
            _tieout(folder, "import", *words, "--output", event_file, "--strict")
        told = _tieout(folder, "replay", *events, "--rules", "rules.yaml", "--until", UNTIL)
    found = Counter(_facts(json.loads(line)) for line in told.splitlines())
    for one in planted:
        mark = "found  " if found[_facts(one)] else "MISSING"
        found[_facts(one)] -= 1
        amount = f"{one['difference']} {one['currency']}" if one["difference"] is not None else "-"
        print(f"{mark}  {one['type']:<24} {amount:>14}  {one['key']:<12} {one['what']}", flush=True)
    unexpected = [facts for facts, count in found.items() if count > 0]
    missing = sum(-count for count in found.values() if count < 0)
    for facts in unexpected:
        print(f"NOT PLANTED  {facts}", flush=True)
    print(
        f"{len(planted) - missing} of {len(planted)} planted breaks found to the cent, {len(unexpected)} others",
        flush=True,
    )
    return not missing and not unexpected


def _facts(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(one[name]) for name in FACTS)


def _tieout(folder: Path, *words: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "tieout", *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if run.returncode != 0:
        sys.exit(f"tieout {' '.join(words)} ended with exit code {run.returncode}")
    return run.stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tieout.demo.bank_and_stripe_check FOLDER")
    sys.exit(0 if check(Path(sys.argv[1]).resolve()) else 1)

"""A month of bank, Stripe and ledger files with planted breaks: each is found to the cent, and nothing else.

Through the commands as people type them: `tieout import --output`, then `tieout replay`.
"""

import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.ingest.domain.formats.stripe_balance import CATEGORIES, PAYOUT, UNKNOWN
from shared.rules.load import load_rules
from tieout.demo.bank_and_stripe import UNTIL, files, month

FOLDER = Path(__file__).parents[3] / "examples" / "bank_and_stripe"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TIEOUT_")}
IMPORTS = {
    "bank.jsonl": "bank.csv --as csv --mapping bank.yaml",
    "ledger.jsonl": "ledger.csv --as csv --mapping ledger.yaml",
    "stripe.jsonl": "stripe_activity.csv stripe_payouts.csv --as stripe-balance",
}


def tieout(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tieout", *words],
        cwd=FOLDER,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    for name, words in IMPORTS.items():
        told = tieout("import", *words.split(), "--output", str(folder / name), "--strict")
        assert told.returncode == 0, told.stderr
        assert told.stdout.endswith(", 0 refused.\n")
    return folder


def found(imported: Path, *more: Path) -> list[dict[str, Any]]:
    told = tieout(
        "replay",
        *(str(imported / name) for name in IMPORTS),
        *map(str, more),
        "--rules",
        "rules.yaml",
        "--until",
        UNTIL,
    )
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def facts(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(one[field]) for field in ("rule", "type", "key", "difference", "currency", "state"))


def test_the_files_are_the_generator_s():
    """What is committed is what the labelled generator makes."""
    for name, content in files(month()).items():
        assert (FOLDER / name).read_bytes() == content, f"python -m tieout.demo.bank_and_stripe {FOLDER.name}: {name}"


def test_every_planted_break_is_found_to_the_cent_and_nothing_else(imported: Path):
    planted = sorted(facts(one._asdict()) for one in month().planted)

    assert sorted(facts(one) for one in found(imported)) == planted
    assert len(planted) == len(set(planted)) == 13


def test_one_command_says_of_each_break_whether_it_is_found_and_what_else_is(tmp_path: Path):
    """Here one is labelled a cent off: it is missing, and what was found instead was not planted."""
    other = shutil.copytree(FOLDER, tmp_path / "month")
    planted = (other / "planted.jsonl").read_text().splitlines()
    (other / "planted.jsonl").write_text("\n".join([planted[0].replace('"9.00"', '"9.01"'), *planted[1:]]))
    words = [sys.executable, "-m", "tieout.demo.bank_and_stripe_check", str(other)]

    told = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert told.returncode == 1, told.stderr
    assert told.stdout.splitlines()[0].startswith("MISSING  AmountMismatch")
    assert told.stdout.splitlines()[-1] == "12 of 13 planted breaks found to the cent, 1 others"


def test_without_the_breaks_nothing_is_found(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The month itself is in order: every finding above is a planted one."""
    monkeypatch.setattr("tieout.demo.bank_and_stripe._plant", lambda _made: None)
    for name, content in files(month()).items():
        (tmp_path / name).write_bytes(content)
    for name, words in IMPORTS.items():
        given = [str(tmp_path / word) if word.endswith(".csv") else word for word in words.split()]
        assert tieout("import", *given, "--output", str(tmp_path / name)).returncode == 0
    assert found(tmp_path) == []


def test_the_same_files_twice_find_the_same(imported: Path):
    """Every event keeps its id, so a file that is imported again changes nothing."""
    again = [imported / name for name in IMPORTS]

    assert sorted(facts(one) for one in found(imported, *again)) == sorted(facts(one) for one in found(imported))


def test_payouts_tie_to_stripes_own_figures(imported: Path):
    """Per payout, gross, fees and refunds of the events add up to what the files say, but for the planted one."""
    events = [json.loads(line) for line in (imported / "stripe.jsonl").read_text().splitlines()]
    paid = {one["refs"]["payout_id"]: Decimal(one["amount"]) for one in events if one["type"].startswith("payout.")}
    sums = dict.fromkeys(paid, Decimal(0))
    for one in events:
        if one["type"].startswith("movement."):
            sums[one["refs"]["payout_id"]] += Decimal(one["amount"])

    off = {payout: sums[payout] - amount for payout, amount in paid.items() if sums[payout] != amount}
    assert off == {"po_019": Decimal("5.00")}


def test_a_dry_run_says_which_rules_would_take_the_rows():
    told = tieout("import", "bank.csv", *IMPORTS["bank.jsonl"].split()[1:], "--dry-run", "--rules", "rules.yaml")

    assert told.returncode == 0, told.stderr
    assert "bank/movement.payout: 22, 24070.89 EUR" in told.stdout
    assert "bank.payouts: 22" in told.stdout
    assert "no rule selects bank/movement.other: not reconciled (5)" in told.stdout
    assert told.stdout.endswith("27 rows read, 27 events would be sent, 0 refused.\n")


def test_a_broken_line_in_the_middle_costs_its_own_sale_and_nothing_else(imported: Path, tmp_path: Path):
    """It is named by file and line, and what then lacks a booking is that one sale."""
    lines = (FOLDER / "ledger.csv").read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if "SO-1040" in line)
    (tmp_path / "ledger.csv").write_text("\n".join([*lines[:place], f'"{lines[place]}', *lines[place + 1 :]]) + "\n")
    for name in ("bank.jsonl", "stripe.jsonl"):
        (tmp_path / name).write_bytes((imported / name).read_bytes())
    told = tieout(
        "import",
        str(tmp_path / "ledger.csv"),
        *IMPORTS["ledger.jsonl"].split()[1:],
        "--output",
        str(tmp_path / "ledger.jsonl"),
    )

    assert told.stderr == f'{tmp_path / "ledger.csv"}:{place + 1}: refused: a quote (") is opened and never closed\n'
    more = [facts(one) for one in found(tmp_path)]
    for known in month().planted:
        more.remove(facts(known._asdict()))
    assert [(rule, type_, key) for rule, type_, key, *_ in more] == [
        ("books.payments", "MissingInternalRecord", "SO-1040")
    ]


def test_every_reporting_category_stands_on_one_side_of_the_payout():
    """What a payout holds and no side selects would look like a break of the payout."""
    rule = next(rule for rule in load_rules(FOLDER / "rules.yaml").rules if rule.name == "stripe.payouts")
    selected = [type_ for selector in rule.selectors.values() for type_ in selector.type]
    movements = {f"movement.{category}" for category in (CATEGORIES | {UNKNOWN}) - {PAYOUT}}

    assert sorted(selected) == sorted({*movements, "payout.*", "movement.payout_debit", "movement.processing_fee"})

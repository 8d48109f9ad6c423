"""The files of examples/near_misses, and what has to be said about each record of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared.contracts.discrepancy import Discrepancy
from shared.rules.load import load_rules
from tieout.offline.replay import replay

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "near_misses"
FILES = [FOLDER / "ledger.jsonl", FOLDER / "stripe.jsonl"]
RULES = FOLDER / "rules.yaml"
UNTIL = "2026-11-21T00:00:00Z"

ACROSS: dict[str, tuple[str, str]] = {
    # Key of the ledger's record: kind, and the sentence up to the discrepancy that it names.
    "INV-17": ("same_amount", "stripe record ch_1 of 120.50 EUR has the same amount under the reference INV-71 instead of INV-17, two characters transposed"),
    "INV-2046": ("same_amount", "stripe record ch_2 of 88.10 EUR has the same amount under the reference INV-2946 instead of INV-2046, one character different"),
    "INV-3001": ("same_amount", "stripe record ch_3 of 77.70 EUR has the same amount under the reference INV-3001/2 instead of INV-3001, '/2' more at the end"),
    "INV-B44": ("same_amount", "stripe record ch_4 of 61.15 EUR has the same amount under the reference inv-b44 instead of INV-B44, in another case"),
    "INV-0055": ("same_amount", "stripe record ch_5 of 53.27 EUR has the same amount under the reference INV-55 instead of INV-0055, with other leading zeros"),
    "SO-9917": ("same_amount", "stripe record ch_6 of 431.19 EUR has the same amount under the reference pi_3QxWk instead of SO-9917"),
    "INV-7007": ("same_amount", "stripe record ch_7 of 219.73 EUR has the same amount and no reference, where INV-7007 was expected"),
    "INV-8801": ("digits_transposed", "stripe record ch_8 of 301.80 EUR stands against 310.80 EUR: two digits look transposed (01 for 10), under the reference INV-8810 instead of INV-8801, two characters transposed"),
    "INV-9009": ("sign_flipped", "stripe record ch_9 of -45.90 EUR has the same amount with the sign flipped under the reference INV-9090 instead of INV-9009, two characters transposed"),
    "INV-10-A": ("minor_units", "stripe record ch_10 of 9995.00 EUR stands against 99.95 EUR: exactly 100 times too large, so minor units look taken for major ones, under the reference INV-10-AA instead of INV-10-A, 'A' more at the end"),
    "acct_4 2026-11-19": ("day_off", "stripe record ch_11 of 640.00 EUR has the same amount under the reference acct_4 2026-11-20 instead of acct_4 2026-11-19, one day off"),
    "INV-12345": ("fee", "stripe record ch_12 of 147.65 EUR stands against 150.00 EUR: exactly the size of a fee of 1.4 % + 0.25 EUR, under the reference INV-12354 instead of INV-12345, two characters transposed"),
    "INV-13001": ("tax", "stripe record ch_13 of 238.00 EUR stands against 200.00 EUR: exactly the size of 19 % tax, net against gross, under the reference INV-13010 instead of INV-13001, two characters transposed"),
    "INV-14002": ("other_currency", "stripe record ch_14 of 581.30 USD stands against 500.00 EUR: worth as much at a plausible rate of 1.163 USD for 1 EUR, under the reference INV-14020 instead of INV-14002, two characters transposed"),
}  # fmt: skip
WITHIN: dict[str, str] = {
    # Key of both records: how the explanation ends.
    "pay_15": "18.00 EUR less than expected; two digits look transposed (02 for 20).",
    "pay_16": "7449.75 EUR more than expected; exactly 100 times too large, so minor units look taken for major ones.",
    "pay_17": "3.20 USD less than expected; exactly the size of a fee of 2.9 % + 0.30 USD.",
    "pay_18": "19.00 EUR less than expected; exactly the size of 19 % tax, net against gross.",
    "pay_19": "the currencies differ; worth as much at a plausible rate of 1.161 USD for 1 EUR.",
    "pay_20": "66.66 EUR less than expected; the sign looks flipped.",
}
NONE = {"INV-23232", "pi_other", "SUB-21001", "SUB-21002", "pi_subA", "INV-24001", "pi_fee"}
"""Keys of what only looks a little like something else."""


def replayed() -> Sequence[Discrepancy]:
    """Return what the engine says of the files at the end."""
    rules = load_rules(RULES)
    until = datetime.fromisoformat(UNTIL).astimezone(UTC)
    run = replay(FILES, {rules.pack: rules.rules}, org="acme", until=until, complain=lambda _place, _what: None)
    return run.engine.last_revisions()

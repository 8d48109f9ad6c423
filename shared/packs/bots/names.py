"""Names of the bots pack: sources, types of events, rules and codes, as rules.yaml and vocabulary.yaml have them."""

from typing import Final

BOT: Final = "bot"
"""Source of what a bot says."""
FILLS: Final = "fills"
"""Source of what was read from its fills.csv."""
SNAPSHOT: Final = "snapshot.state"
INPUT: Final = "snapshot.input"
ORDER_FILLED: Final = "order_filled"
FILLS_READ: Final = "balance.fills"

STATE_RULE: Final = "bots.state"
PARITY_RULE: Final = "bots.fill_parity"
INPUT_RULE: Final = "bots.input"

SNAPSHOT_FIELDS: Final = ("equity_quote", "base_pct", "target_base_pct", "fees_paid", "turnover")
"""What a snapshot must have. `external_base_pct` comes beside them from the exchange."""
EXTERNAL: Final = "external_base_pct"

CHECKS: Final = ("balance", "inventory", "fill_parity", "exchange", "accounting", "input")
"""The checks, in the order reports show them; `input`: could everything be read?"""

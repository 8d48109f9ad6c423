"""An unusual drift, or one that leads to a breach: what was expected, what was seen, and when a limit will be passed."""

from datetime import datetime
from typing import Literal, get_args

import msgspec

from shared.contracts.discrepancy import Severity

AnomalyKind = Literal["unusual", "level_shift", "trend"]
"""`unusual`: one or two hours beside what is usual. `level_shift`: three or more in a row. `trend`: it leads to a breach."""
ANOMALY_KINDS: tuple[AnomalyKind, ...] = get_args(AnomalyKind)


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """One anomaly of a check's account, or of a check as a whole. Amounts are statistics, rounded to the currency."""

    id: str
    org: str
    pack: str
    rule: str
    """The rule whose readings are watched; of a check as a whole its pack and name."""
    check_type: str
    account: str | None
    """None: the hourly discrepancy of the check."""
    currency: str
    kind: AnomalyKind
    state: Literal["open", "closed"]
    severity: Severity
    raised_at: datetime
    seen_at: datetime
    """Hour of the newest reading that it is about."""
    closed_at: datetime | None
    expected: str
    seen: str
    per_day: str
    """How much the level moves in a day."""
    breach_of: Literal["tolerance", "critical"] | None
    breach_limit: str | None
    breach_at: datetime | None
    explanation: str
    """One sentence."""

"""How far accounts may drift, from the rules of kind balance in force."""

from collections.abc import Mapping
from decimal import Decimal

from services.alerts.adapters.rule_topic import RuleTopic
from services.alerts.domain.baseline import Limits
from services.alerts.ports.anomalies import LimitsOf
from shared.rules.balance_rule import MISMATCH, BalanceRuleModel
from shared.rules.parts import SeverityAbove, SeverityMap


class TopicLimits:
    """`WatchedRules` over the topic `rules`."""

    def __init__(self, rules: RuleTopic) -> None:
        self._rules = rules

    async def limits(self) -> Mapping[tuple[str, str], LimitsOf]:
        """See `ports.anomalies.WatchedRules`."""
        found: dict[tuple[str, str], LimitsOf] = {}
        for (org, _), models in (await self._rules.models()).items():
            for model in models:
                if isinstance(model, BalanceRuleModel) and not model.shadow:
                    found[org, model.name] = _limits_of(model)
        return found


def _limits_of(model: BalanceRuleModel) -> LimitsOf:
    def limits(account: str, currency: str) -> Limits:
        own = model.overrides.get(account)
        tolerance = model.tolerance if own is None or own.tolerance is None else own.tolerance
        severity = model.severity if own is None or own.severity is None else own.severity
        critical = _critical(severity, currency)
        return Limits(tolerance=float(Decimal(tolerance)), critical=None if critical is None else float(critical))

    return limits


def _critical(severity: SeverityMap, currency: str) -> Decimal | None:
    """Return the difference above which an exception is critical, None where none is."""
    steps = severity.types.get(MISMATCH)
    if not isinstance(steps, SeverityAbove):
        return None
    table = steps.above.get(currency or "default", steps.above.get("default", {}))
    found = [Decimal(limit) for limit, name in table.items() if name == "critical"]
    return min(found, default=None)

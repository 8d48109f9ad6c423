"""Severity of a discrepancy: by its type, and by how large the difference is."""

from collections.abc import Callable
from decimal import Decimal

from shared.contracts.discrepancy import Severity
from shared.money import parse_amount
from shared.rules.parts import SeverityAbove, SeverityMap

SeverityOf = Callable[[str, Decimal | None, str | None], Severity]
"""Severity of (type, difference, currency)."""


def severity_of(model: SeverityMap) -> SeverityOf:
    """Compile the severities of a rule."""
    fixed: dict[str, Severity] = {}
    steps: dict[str, dict[str, list[tuple[Decimal, Severity]]]] = {}
    for kind, value in model.types.items():
        if isinstance(value, SeverityAbove):
            steps[kind] = {
                currency: sorted(
                    ((parse_amount(t), s) for t, s in table.items()), key=lambda step: step[0], reverse=True
                )
                for currency, table in value.above.items()
            }
        else:
            fixed[kind] = value
    default = model.default

    def of(kind: str, difference: Decimal | None, currency: str | None) -> Severity:
        if kind in fixed:
            return fixed[kind]
        by_currency = steps.get(kind)
        if by_currency is None or difference is None:
            return default
        for threshold, severity in by_currency.get(currency or "default", by_currency.get("default", [])):
            if abs(difference) > threshold:
                return severity
        return default

    return of

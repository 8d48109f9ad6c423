"""Amounts as people's programs print them, to exact decimals. Nothing is guessed: what does not fit is refused."""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

_SPACES = "\u0020\u00a0\u202f\u2009"
"""What stands between thousands where a space does: also the ones that do not break."""
_MINUS = "-\u2212"
THOUSANDS = {".": r"\.", ",": ",", "'": "['\u2019]", " ": f"[{_SPACES}]"}
"""Separators of thousands and what is taken for them."""


class AmountUnreadable(ValueError):
    """The text is no amount of this form."""


@dataclass(frozen=True)
class AmountForm:
    """How amounts are printed."""

    decimal: str = "."
    thousands: str | None = None
    strip: tuple[str, ...] = ()
    """Texts around the number that say nothing, e.g. `€`."""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        whole = r"[0-9]+"
        if self.thousands is not None:
            whole = rf"[0-9]{{1,3}}(?:{THOUSANDS[self.thousands]}[0-9]{{3}})+|[0-9]+"
        return re.compile(rf"({whole})?(?:{re.escape(self.decimal)}([0-9]+))?", re.ASCII)

    def read(self, text: str) -> Decimal:
        """Return the exact value; a minus may stand before or after it, or parentheses around it.

        Raises:
            AmountUnreadable: not of this form, for instance with a decimal point where a comma is expected.
        """
        number = text
        for part in self.strip:
            number = number.replace(part, "")
        number = number.strip(_SPACES)
        number, is_negative = _without_sign(number)
        found = self._pattern.fullmatch(number)
        if not number or found is None:
            raise AmountUnreadable(f"{text[:60]!r} is no amount {self._words()}")
        whole = re.sub(r"[^0-9]", "", found.group(1) or "0")
        value = Decimal(f"{whole}.{found.group(2)}" if found.group(2) else whole)
        return -value if is_negative and value else value

    def _words(self) -> str:
        example = f"1{self.thousands or ''}234{self.decimal}50"
        return f"as the mapping says, like {example!r} (`amount.decimal`, `amount.thousands`, `amount.strip`)"


def _without_sign(number: str) -> tuple[str, bool]:
    if number.startswith("(") and number.endswith(")"):
        return number[1:-1].strip(_SPACES), True
    if number[:1] and number[0] in _MINUS:
        return number[1:].lstrip(_SPACES), True
    if number[-1:] and number[-1] in _MINUS:
        return number[:-1].rstrip(_SPACES), True
    return (number[1:].lstrip(_SPACES) if number.startswith("+") else number), False

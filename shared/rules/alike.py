"""What makes two records suspicious: they agree where one payment booked twice would, within a time."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from shared.rules.parts import KEY_FIELDS_MAX, DurationText, FieldPath, SideName, Strict, check_durations

AMOUNT = "amount"
NEVER_SAME = ("record", "id")
"""Fields that differ on every record."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


SameFields = Annotated[
    list[FieldPath | Literal["amount"]], BeforeValidator(_as_list), Field(min_length=1, max_length=KEY_FIELDS_MAX)
]


class Alike(Strict):
    """What two records agree in, and how far apart they may have occurred."""

    same: SameFields
    within: DurationText = "10m"

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        check_durations(self, "within")
        for field in NEVER_SAME:
            if field in self.same:
                msg = f"same: {field!r} differs on every record, so no two would ever agree"
                raise ValueError(msg)
        if not set(self.same) - {AMOUNT, "currency"}:
            msg = "same: amount and currency alone agree by chance; add what tells the payer, for example account"
            raise ValueError(msg)
        return self


class AlikeOnSides(Alike):
    """The same, for some sides of a rule."""

    sides: list[SideName] | None = None
    """Sides that are looked at; all where it is left out."""

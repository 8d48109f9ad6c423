"""JSON at edges whose numbers are money: read by their text into Decimal, written with their exact text."""

import json
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from shared.money import AmountError, parse_amount

FLOAT_DIGITS_MAX = 15
"""Decimal digits that every float keeps; a client that parsed more has lost some before we see it."""
EXPONENT_MAX = 40
"""Beyond the digits of any amount; writing such a number out could fill the memory."""


class NotExact(ValueError):
    """A number that is none, or that cannot be taken by its text."""


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object whose numbers become Decimal.

    Raises:
        NotExact: no JSON object, or NaN or Infinity in it.
    """
    try:
        read = json.loads(body, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
    except NotExact:
        raise
    except (ValueError, RecursionError, InvalidOperation):
        raise NotExact("is not valid JSON") from None
    if not isinstance(read, dict):
        raise NotExact("must be a JSON object")
    return read


def _refuse(constant: str) -> Decimal:
    raise NotExact(f"holds {constant}, which is no number; send an amount such as 19.54")


def exact(value: object) -> Decimal:
    """Return an amount by its text: of a Decimal, a string, an int, or a float that lost nothing.

    Raises:
        NotExact: no amount, or a float of more digits than floats keep.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int | float):
        raise NotExact("must be a number such as 19.54")
    number = Decimal(repr(value)) if isinstance(value, float) else value
    if isinstance(number, Decimal):
        if not number.is_finite():
            raise NotExact(f"{number} is no number; send an amount such as 19.54")
        if isinstance(value, float) and len(number.as_tuple().digits) > FLOAT_DIGITS_MAX:
            raise NotExact(f"{value!r} has more digits than a float keeps: send it as a string")
        if abs(number.adjusted()) > EXPONENT_MAX:
            raise NotExact("is too large or too small for an amount: at most 38 digits, 18 after the point")
        number = format(number, "f")
    try:
        amount = parse_amount(str(number))
    except AmountError as error:
        raise NotExact(str(error)) from None
    return amount or abs(amount)


Exact = Annotated[
    Decimal,
    BeforeValidator(exact),
    PlainSerializer(lambda value: value, return_type=Decimal),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "examples": [19.54]}),
]
"""An amount in a body or in a tool's arguments; a string keeps every digit, whatever the client's floats do."""


def write(answer: object) -> bytes:
    """Return `answer` as JSON; amounts are numbers with their exact text, without exponent."""
    return msgspec.json.encode(_written(msgspec.to_builtins(answer, builtin_types=(Decimal,))))


def _written(value: Any) -> Any:
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, dict):
        return {name: _written(inner) for name, inner in value.items()}
    return [_written(inner) for inner in value] if isinstance(value, list) else value

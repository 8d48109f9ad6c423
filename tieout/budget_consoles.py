"""What providers' consoles say is left: from a file, over HTTP, or by a plug-in of another package.

A plug-in is an entry point of the group `tieout.consoles`: a function without arguments that returns the balance as a
Decimal or a decimal string.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import UsageError
from shared.money import AmountError, parse_amount
from shared.strict_yaml import parse_yaml

PLUGINS = "tieout.consoles"
TIMEOUT_S = 30.0
"""A console that takes longer is away; the next provider waits meanwhile."""
ANSWER_BYTES_MAX = 1024 * 1024
"""A balance is a line; more is another page, such as a login."""


class ConsoleAway(Exception):
    """The balance could not be had; the message says why, without addresses' secrets."""


class Console(BaseModel):
    """Where one budget's balance is read: `file` or `url` with the field it stands in, or `plugin`."""

    model_config = ConfigDict(extra="forbid")

    file: Path | None = None
    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    field: str | None = None
    """Of a JSON answer: `data.balance`; left out: the whole text is the amount."""
    token_variable: str | None = None
    """Environment variable whose value is sent as a bearer token."""
    plugin: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Console":
        if sum(place is not None for place in (self.file, self.url, self.plugin)) != 1:
            msg = "name one of file, url and plugin"
            raise ValueError(msg)
        return self


class _Consoles(BaseModel):
    model_config = ConfigDict(extra="forbid")

    consoles: dict[str, Console]


def read_consoles(path: Path) -> Mapping[str, Console]:
    """Read the file that names each budget's console.

    Raises:
        UsageError: it cannot be read, or says something else.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        return _Consoles.model_validate(document).consoles
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def balance(console: Console) -> Decimal:
    """Return what the console says is left.

    Raises:
        ConsoleAway: it cannot be reached, or says no amount.
    """
    try:
        return parse_amount(_found(console))
    except AmountError as error:
        raise ConsoleAway(f"the console says no amount: {error}") from None


def _found(console: Console) -> str:
    if console.plugin is not None:
        return _asked(console.plugin)
    text = _text(console)
    if console.field is None:
        return text.strip()
    try:
        value: Any = json.loads(text, parse_float=str, parse_int=str)
        for part in console.field.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (ValueError, LookupError, TypeError):
        raise ConsoleAway(f"the console's answer has no field {console.field}") from None
    return str(value)


def _text(console: Console) -> str:
    if console.file is not None:
        try:
            return console.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConsoleAway(
                f"{console.file} cannot be read: {getattr(error, 'strerror', None) or 'no text'}"
            ) from None
    assert console.url is not None, "a console has one place"
    headers = {"Accept": "application/json"}
    if console.token_variable is not None:
        token = os.environ.get(console.token_variable, "")
        if not token:
            raise ConsoleAway(f"set {console.token_variable} to the token of the console")
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(console.url, headers=headers)  # noqa: S310 - http and https only, by the model
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            text: str = answer.read(ANSWER_BYTES_MAX).decode()
            return text
    except urllib.error.HTTPError as error:
        raise ConsoleAway(f"the console answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise ConsoleAway(f"the console does not answer: {getattr(error, 'reason', error)}") from None


def _asked(name: str) -> str:
    found = entry_points(group=PLUGINS, name=name)
    if not found:
        raise ConsoleAway(f"no package offers the plug-in {name!r} (entry point group {PLUGINS})")
    try:
        return str(next(iter(found)).load()())
    except Exception as error:
        raise ConsoleAway(f"the plug-in {name!r} failed: {type(error).__name__}: {error}") from error

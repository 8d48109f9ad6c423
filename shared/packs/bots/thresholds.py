"""Thresholds of the bots pack: `config/reconciliation_thresholds.json`, defaults from `RECON_<KEY>`, overrides per bot.

Of one key counts, in this order: the bot's own value, `defaults` of the file, the environment, what is built in.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from shared.errors import UsageError
from shared.money import AmountError, parse_amount

PATH_VARIABLE: Final = "RECON_THRESHOLDS_PATH"
PATH_DEFAULT: Final = "config/reconciliation_thresholds.json"
"""Relative to the working directory."""
VARIABLE_PREFIX: Final = "RECON_"
SIZE_MAX_BYTES: Final = 4_000_000
"""A thresholds file larger than this is not one: a thousand bots with every key are half a megabyte."""

_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class BotThresholds:
    """What holds for one bot. A drift is reached at its own value; amounts are in the unit of the field they are about."""

    enabled: bool = True
    inventory_check_enabled: bool = True
    exchange_check_enabled: bool | None = None
    """None, where nobody said anything: the exchange is asked where its snapshot names the bot, and need not be there."""
    fill_parity_check_enabled: bool = True
    accounting_check_enabled: bool = True
    inventory_warn: Decimal = Decimal("0.25")
    inventory_critical: Decimal = Decimal("0.45")
    exchange_drift_warn: Decimal = Decimal("0.10")
    exchange_drift_critical: Decimal = Decimal("0.20")
    fee_drop_warn: Decimal = Decimal("0.05")
    fee_drop_critical: Decimal = Decimal("0.20")
    turnover_fee_gap_warn: Decimal = Decimal("0.05")


KEYS: Final = tuple(one.name for one in fields(BotThresholds))
"""Every key, as it stands in the file; `RECON_` and the key in capitals is its variable."""
SWITCHES: Final = tuple(key for key in KEYS if key.endswith("enabled"))
PAIRS: Final = (
    ("inventory_warn", "inventory_critical"),
    ("exchange_drift_warn", "exchange_drift_critical"),
    ("fee_drop_warn", "fee_drop_critical"),
)
"""Of each the first must not be greater than the second."""


class ThresholdsInvalid(UsageError):
    """The file or a variable is wrong; `problems` holds one line each, with file, bot and key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What holds for all bots, and for single ones."""

    defaults: BotThresholds = BotThresholds()
    bots: Mapping[str, BotThresholds] = field(default_factory=dict)

    def of(self, bot: str) -> BotThresholds:
        """Return what holds for a bot."""
        return self.bots.get(bot, self.defaults)


def variable_of(key: str) -> str:
    """Return the environment variable that gives a key's default."""
    return VARIABLE_PREFIX + key.upper()


def thresholds_path(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the file lies."""
    return Path((os.environ if environment is None else environment).get(PATH_VARIABLE) or PATH_DEFAULT)


def load_thresholds(environment: Mapping[str, str] | None = None) -> Thresholds:
    """Read the file and the environment.

    Without a file at its default place, the environment and what is built in hold; one that `RECON_THRESHOLDS_PATH`
    names must be there.

    Raises:
        ThresholdsInvalid: with every problem found.
    """
    given = os.environ if environment is None else environment
    path = thresholds_path(given)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX_BYTES + 1)
    except FileNotFoundError:
        if given.get(PATH_VARIABLE):
            raise ThresholdsInvalid([f"{path}: is not there; {PATH_VARIABLE} names it"]) from None
        return parse_thresholds(b"{}", str(path), given)
    except OSError as error:
        raise ThresholdsInvalid([f"{path}: cannot be read: {error.strerror}"]) from None
    return parse_thresholds(raw, str(path), given)


def parse_thresholds(raw: bytes, name: str, environment: Mapping[str, str]) -> Thresholds:
    """Return the thresholds that `raw` and the environment give; `name` is what errors call the file.

    Raises:
        ThresholdsInvalid: with every problem found.
    """
    problems: list[str] = []
    document = _document(raw, name, problems)
    from_environment = _from_environment(environment, problems)
    own = _section(document.get("defaults", {}), f"{name}: defaults", problems)
    built_in = BotThresholds()
    defaults = _put(built_in, from_environment | own, f"{name}: defaults", problems)
    bots: dict[str, BotThresholds] = {}
    given = document.get("bots", {})
    if not isinstance(given, dict):
        problems.append(f"{name}: bots: must be an object with one object per bot")
        given = {}
    for bot, section in given.items():
        place = f"{name}: bots.{bot}"
        bots[bot] = _put(defaults, _section(section, place, problems), place, problems)
    if problems:
        raise ThresholdsInvalid(dict.fromkeys(problems))
    return Thresholds(defaults, bots)


class _Wrong(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        msg = f"{next(name for name in names if names.count(name) > 1)} is given twice"
        raise _Wrong(msg)
    return found


def _parsed(raw: bytes) -> dict[str, Any]:
    if len(raw) > SIZE_MAX_BYTES:
        msg = f"is larger than {SIZE_MAX_BYTES} bytes; is this a thresholds file?"
        raise _Wrong(msg)
    if not raw.strip():
        msg = 'is empty; write {"defaults": {}, "bots": {}}, or remove it'
        raise _Wrong(msg)
    try:
        # Numbers as their text: 0.1 stays 0.1.
        document = json.loads(
            raw.decode(), parse_float=Decimal, parse_int=Decimal, parse_constant=str, object_pairs_hook=_once
        )
    except UnicodeDecodeError:
        msg = "is not UTF-8 text"
        raise _Wrong(msg) from None
    except _Wrong:
        raise
    except (ValueError, RecursionError) as error:
        msg = f"is not valid JSON: {error}"
        raise _Wrong(msg) from None
    if not isinstance(document, dict):
        msg = 'must be an object {"defaults": {…}, "bots": {…}}'
        raise _Wrong(msg)
    return document


def _document(raw: bytes, name: str, problems: list[str]) -> dict[str, Any]:
    try:
        document = _parsed(raw)
    except _Wrong as error:
        problems.append(f"{name}: {error}")
        return {}
    for key in document:
        if key not in {"defaults", "bots"}:
            hint = "a threshold belongs into `defaults`" if key in KEYS else "bots belong into `bots`"
            problems.append(f"{name}: {key}: is neither `defaults` nor `bots`; {hint}")
    return document


def _section(given: Any, place: str, problems: list[str]) -> dict[str, Any]:
    """Return the keys of one object that are as they should be."""
    if not isinstance(given, dict):
        problems.append(f"{place}: must be an object of thresholds")
        return {}
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key not in KEYS:
            problems.append(f"{place}.{key}: is no threshold; known are {', '.join(KEYS)}")
            continue
        try:
            found[key] = _switch(value) if key in SWITCHES else _size(value)
        except ValueError as error:
            problems.append(f"{place}.{key}: {error}")
    return found


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in KEYS:
        variable = variable_of(key)
        text = environment.get(variable, "").strip()
        if not text:
            continue
        try:
            found[key] = _switch_text(text) if key in SWITCHES else _size(text)
        except ValueError as error:
            problems.append(f"{variable}: {error}")
    return found


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"must be true or false (got {_shown(value)})"
    raise ValueError(msg)


def _switch_text(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    msg = f"must be true or false (got {text[:40]!r})"
    raise ValueError(msg)


def _size(value: Any) -> Decimal:
    """Return a threshold; 0 would be reached by everything."""
    text = format(value, "f") if isinstance(value, Decimal) and abs(value.adjusted()) < 40 else value
    if not isinstance(text, str):
        msg = f"must be a number (got {_shown(value)})"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all that is wrong with a value
    try:
        size = parse_amount(text)
    except AmountError:
        msg = f"must be a number such as 0.25 (got {_shown(value)})"
        raise ValueError(msg) from None
    if size < 0:
        msg = f"is negative ({text}); thresholds are sizes, so write it without the minus"
        raise ValueError(msg)
    if not size:
        msg = "is 0, which everything reaches; write a greater value, or switch the check off"
        raise ValueError(msg)
    return size


def _shown(value: Any) -> str:
    return str(value)[:40] if isinstance(value, Decimal) else repr(value)[:40]


def _put(onto: BotThresholds, own: dict[str, Any], place: str, problems: list[str]) -> BotThresholds:
    """Lay what was given over what holds otherwise."""
    put = replace(onto, **own)
    for warn, critical in PAIRS:
        low, high = getattr(put, warn), getattr(put, critical)
        if low > high and (warn in own or critical in own):
            problems.append(f"{place}.{warn}: {low} is greater than {critical} ({high}), so it would never come first")
    return put


class Reloaded(NamedTuple):
    """The thresholds in force after a look at the file."""

    thresholds: Thresholds
    changed: bool
    problem: str | None = None
    """Why those of the file are not in force: the last good ones are."""


class ThresholdsFile:
    """Thresholds that follow their file while a program runs."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Read them.

        Raises:
            ThresholdsInvalid: there are no good ones to begin with.
        """
        self._environment = environment
        self._seen = self._stat()
        self._thresholds = load_thresholds(environment)
        self._problem: str | None = None

    def current(self) -> Reloaded:
        """Look at the file again where it changed; a wrong one leaves the last good thresholds in force."""
        seen = self._stat()
        if seen == self._seen:
            return Reloaded(self._thresholds, changed=False, problem=self._problem)
        self._seen = seen
        try:
            thresholds = load_thresholds(self._environment)
        except ThresholdsInvalid as error:
            self._problem = str(error)
            return Reloaded(self._thresholds, changed=False, problem=self._problem)
        changed, self._thresholds, self._problem = thresholds != self._thresholds, thresholds, None
        return Reloaded(thresholds, changed)

    def _stat(self) -> tuple[int, ...]:
        try:
            found = thresholds_path(self._environment).stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino

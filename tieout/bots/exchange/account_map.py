"""Which account of the exchange belongs to which bot, and the credentials of each."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from shared.errors import UsageError
from shared.settings import SettingsInvalid, secret_from_environment

AccountMode = Literal["probe", "disabled", "paper_only"]
Market = Literal["spot", "swap", "unified"]
Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
Pair = Annotated[str, StringConstraints(to_upper=True, pattern=r"^[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}$")]

FORM = '{"bot2": "BOT2"} or {"bots": {"bot2": {"credential_prefix": "BOT2", "trading_pair": "BTC-USDT"}}}'
MAP_BYTES_MAX = 1024 * 1024
"""Some thousand bots; a larger file is a wrong path."""
M = TypeVar("M", bound=BaseModel)
_BOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_NOT_IN_PREFIXES = re.compile(r"[^A-Z0-9]")


class Account(BaseModel):
    """How a bot's account is looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    exchange: Literal["bitget"] = "bitget"
    credential_prefix: Prefix
    account_mode: AccountMode = "probe"
    """`disabled`: the exchange is not asked; `paper_only`: there is nothing to ask, the bot trades on paper."""
    trading_pair: Pair
    market: Market = "spot"
    """`spot` and `swap` (USDT futures) of a classic account, or `unified`."""


class Credentials(NamedTuple):
    """What Bitget wants of an API key."""

    key: SecretStr
    secret: SecretStr
    passphrase: SecretStr


class _Given(BaseModel):
    """What the file may say of a bot, or of all."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    exchange: Literal["bitget"] | None = None
    credential_prefix: Prefix | None = None
    account_mode: AccountMode | None = None
    trading_pair: Pair | None = None
    market: Market | None = None


class _Long(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    defaults: _Given = _Given()
    bots: dict[str, Any] = Field(default_factory=dict)


def read_account_map(path: Path, default_pair: str) -> dict[str, Account]:
    """Return the accounts by bot.

    Raises:
        UsageError: with file, bot and field, and what to write there.
    """
    document = _document(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: is no JSON object; write {FORM}")
    if document.keys() & {"defaults", "bots"}:
        long = _checked(path, _Long, document)
        defaults, bots = long.defaults, long.bots
    else:
        defaults, bots = _Given(), document
    if not bots:
        raise UsageError(f"{path}: names no bot; write {FORM}")
    return {bot: _account(path, bot, given, defaults, default_pair) for bot, given in bots.items()}


def read_credentials(prefix: str, environment: Mapping[str, str] | None = None) -> Credentials:
    """Return the credentials from `<PREFIX>_BITGET_API_KEY`, `…_SECRET` and `…_PASSPHRASE`, or files that `…_FILE` names.

    Raises:
        UsageError: one of them is not there or cannot be used; never with a value.
    """
    names = [f"{prefix}_BITGET_{part}" for part in ("API_KEY", "SECRET", "PASSPHRASE")]
    found: list[SecretStr] = []
    missing: list[str] = []
    for name in names:
        try:
            secret = secret_from_environment(name, environment)
        except SettingsInvalid as error:
            raise UsageError(str(error)) from None
        text = secret.get_secret_value().strip() if secret else ""
        if not text:
            missing.append(name)
        elif not text.isascii() or not text.isprintable():
            raise UsageError(f"{name}: has characters that no key has; was it copied whole?")
        found.append(SecretStr(text))
    if missing:
        raise UsageError(f"set {', '.join(missing)} (or the same with _FILE for a file that holds it)")
    return Credentials(*found)


def _document(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAP_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"EXCHANGE_ACCOUNT_MAP_PATH: cannot read {path}: {error.strerror}; write {FORM}") from None
    if len(content) > MAP_BYTES_MAX:
        raise UsageError(f"{path}: is larger than {MAP_BYTES_MAX} bytes: is it the right file?")
    try:
        return json.loads(content, object_pairs_hook=_once)
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON: {error}") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name given twice: nobody could tell which of two accounts is meant."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = value
    return found


def _account(path: Path, bot: str, given: Any, defaults: _Given, default_pair: str) -> Account:
    if _BOT.fullmatch(bot) is None:
        raise UsageError(
            f"{path}: {bot!r} is no name of a bot: letters, digits, dot, hyphen and underscore, at most 64"
        )
    if isinstance(given, str):
        # `"bot3": "paper_only"`: prefixes are in capitals, so the two never meet.
        given = {"account_mode": given} if given in {"disabled", "paper_only"} else {"credential_prefix": given}
    own = _checked(path, _Given, given, bot)
    told = defaults.model_dump(exclude_none=True) | own.model_dump(exclude_none=True)
    told.setdefault("credential_prefix", _NOT_IN_PREFIXES.sub("_", bot.upper()))
    told.setdefault("trading_pair", default_pair)
    return _checked(path, Account, told, bot)


def _checked(path: Path, model: type[M], given: Any, bot: str | None = None) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        place = f"{path}: {bot}" if bot else f"{path}"
        lines = (
            f"{place}: {'.'.join(map(str, one['loc'])) or 'account'}: {one['msg'].removeprefix('Input ')}"
            for one in error.errors(include_url=False, include_input=False)
        )
        raise UsageError("\n".join(lines)) from None

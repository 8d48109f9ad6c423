"""The file of pollers: which providers are asked for balances, how often, with which credentials."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError
from pydantic import model_validator as validator
from yarl import URL

from services.ingest.domain.providers import alpaca, circle
from services.ingest.domain.providers.alpaca import Figure
from services.ingest.use_cases.poll_balances import Poll
from shared.errors import UsageError
from shared.money import is_currency
from shared.settings import SettingsInvalid, read_secret_file, secret_from_environment
from shared.strict_yaml import parse_yaml

VARIABLE = "TIEOUT_POLLER_KEY"
"""`TIEOUT_POLLER_KEY__<ORG>__<SOURCE>`, or the same with `_FILE` for a file that holds it."""
ADDRESSES: dict[tuple[str, str], str] = {
    ("circle", "live"): "https://api.circle.com",
    # Circle Wallets has one address; the key decides.
    ("circle", "sandbox"): "https://api.circle.com",
    ("alpaca", "live"): "https://broker-api.alpaca.markets",
    ("alpaca", "sandbox"): "https://broker-api.sandbox.alpaca.markets",
}
KEY_PREFIXES = {"live": "LIVE_API_KEY:", "sandbox": "TEST_API_KEY:"}
"""How Circle's keys begin."""
TOTAL_ACCOUNTS = {"circle": "usdc_buffer", "alpaca": "alpaca_exposure"}
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ALPACA_CURRENCIES = ("USD",)
"""In which a failed read is told before a whole one has shown others: accounts are in dollars unless somebody opens others."""
NAME_FIELDS = {"circle": circle.NAME_FIELDS, "alpaca": alpaca.NAME_FIELDS}

_NOT_IN_VARIABLES = re.compile(r"[^A-Z0-9]")
_PLACE = re.compile(r"\{([^{}]*)\}")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$")]


class PollerModel(BaseModel):
    """One source in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    provider: Literal["circle", "alpaca"]
    environment: Literal["sandbox", "live"]
    base_url: AnyHttpUrl | None = None
    """Instead of the provider's own address."""
    key_file: Path | None = None
    """Holds Circle's API key, or Alpaca's `key id:secret`; or give it in the environment."""
    interval_s: int = Field(default=300, ge=10, le=86_400)
    total_account: str | None = Field(default=None, min_length=1, max_length=200)
    """The ledger's account that should hold the total."""
    user_account: str | None = Field(default=None, min_length=1, max_length=200)
    """The ledger's name of one wallet or account, such as `user:{ref_id}:usdc`."""
    users: bool = True
    """Also publish what each account holds."""
    currencies: tuple[str, ...] = ("USDC",)
    """Circle: which tokens count."""
    token_ids: frozenset[str] = frozenset()
    """Circle: ids of the genuine tokens."""
    figure: Figure = "buying_power"
    """Alpaca: which figure of an account counts."""
    accounts_min: int = Field(default=1, ge=1)
    """Fewer are no whole read."""
    requests_per_s: float = Field(default=10.0, gt=0, le=100)
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    """Of one request."""

    @validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.base_url is not None and self.base_url.scheme != "https" and self.base_url.host not in LOOPBACK:
            msg = "base_url: must be https, because the key is sent to it"
            raise ValueError(msg)
        for code in self.currencies:
            if not is_currency(code):
                msg = f"currencies: {code!r} is no currency that tieout knows"
                raise ValueError(msg)
        if not self.currencies:
            msg = "currencies: names none, so nothing would be read"
            raise ValueError(msg)
        for field in _PLACE.findall(self.user_account or ""):
            if field not in NAME_FIELDS[self.provider]:
                msg = f"user_account: {{{field}}} is not known; use {', '.join(NAME_FIELDS[self.provider])}"
                raise ValueError(msg)
        others = {"circle": {"figure"}, "alpaca": {"currencies", "token_ids"}}[self.provider]
        if strange := others & self.model_fields_set:
            msg = f"{min(strange)}: does not belong to {self.provider}"
            raise ValueError(msg)
        return self


class Configured(NamedTuple):
    """A source that can be polled."""

    poll: Poll
    model: PollerModel
    key: SecretStr

    @property
    def interval(self) -> timedelta:
        """Return the time from one look to the next."""
        return timedelta(seconds=self.model.interval_s)

    @property
    def address(self) -> URL:
        """Return where the provider is asked."""
        return URL(str(self.model.base_url or ADDRESSES[self.model.provider, self.model.environment]))

    @property
    def user_account(self) -> str:
        """Return how an account of the provider is called in the ledger."""
        return self.model.user_account or f"{self.model.provider}:{{id}}"


def read_pollers(file: Path, environment: Mapping[str, str] | None = None) -> list[Configured]:
    """Read the file and the credentials.

    Raises:
        UsageError: with the place and what to write there; never with a key.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"TIEOUT_POLLERS_FILE: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text") from None
    document = parse_yaml(text, str(file)) or {}
    found = [_configured(file, org, source, given, environment) for org, source, given in _sources(file, document)]
    if not found:
        raise UsageError(f"{file}: names no source; write {{org: {{source: {{provider: circle, environment: live}}}}}}")
    return found


def _sources(file: Path, document: Any) -> Iterator[tuple[str, str, Any]]:
    form = f"{file}: write {{org: {{source: {{provider: circle, environment: live}}}}}}"
    if not isinstance(document, dict):
        raise UsageError(form)
    for org, sources in document.items():
        if not isinstance(sources, dict):
            raise UsageError(f"{form}; {org} is no table of sources")
        for source, given in sources.items():
            yield str(org), str(source), given


def _configured(file: Path, org: str, source: str, given: Any, environment: Mapping[str, str] | None) -> Configured:
    place = f"{file}: {org}.{source}"
    try:
        model = PollerModel.model_validate(given)
    except ValidationError as error:
        lines = (
            f"{place}: {'.'.join(map(str, one['loc']))}{': ' if one['loc'] else ''}"
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False)
        )
        raise UsageError("\n".join(lines)) from None
    poll = Poll(
        org,
        source,
        model.provider,
        model.total_account or TOTAL_ACCOUNTS[model.provider],
        model.users,
        currencies=model.currencies if model.provider == "circle" else ALPACA_CURRENCIES,
    )
    return Configured(poll, model, _key(place, org, source, model, environment))


def _key(place: str, org: str, source: str, model: PollerModel, environment: Mapping[str, str] | None) -> SecretStr:
    variable = "__".join([VARIABLE, *(_NOT_IN_VARIABLES.sub("_", name.upper()) for name in (org, source))])
    try:
        key = secret_from_environment(variable, environment)
        if key is None and model.key_file is not None:
            key = SecretStr(read_secret_file(model.key_file))
    except (SettingsInvalid, UsageError) as error:
        raise UsageError(f"{place}: {error}") from None
    if key is None:
        raise UsageError(f"{place}: has no key; set {variable}, {variable}_FILE or key_file")
    text = key.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise UsageError(f"{place}: the key has characters that no key has; was it copied whole?")
    if model.provider == "alpaca" and (":" not in text or text.startswith(":") or text.endswith(":")):
        raise UsageError(f"{place}: Alpaca's key is written as `key id:secret`")
    wrong = KEY_PREFIXES["sandbox" if model.environment == "live" else "live"]
    if model.provider == "circle" and text.startswith(wrong):
        raise UsageError(
            f"{place}: the key begins with {wrong}, which does not belong to environment {model.environment}"
        )
    return SecretStr(text)

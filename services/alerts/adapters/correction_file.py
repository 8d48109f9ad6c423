"""What auto-correction may try: the packs' own word, and the operator's file over it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as validator
from yarl import URL

from services.alerts.adapters.ledger_client import LedgerAddress
from services.alerts.domain.correction import Allowed, Policy
from shared.errors import UsageError
from shared.money import AmountError, is_currency, parse_amount
from shared.packs.stack import corrections_of_rules
from shared.settings import SettingsInvalid, read_secret_file, secret_from_environment
from shared.strict_yaml import parse_yaml

VARIABLE = "TIEOUT_LEDGER_KEY"
"""`TIEOUT_LEDGER_KEY__<ORG>`, or the same with `_FILE` for a file that holds it."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_NOT_IN_VARIABLES = re.compile(r"[^A-Z0-9]")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RuleModel(_Model):
    """What may be tried on low exceptions of a rule."""

    refetch: str | None = Field(default=None, min_length=1, max_length=64)
    adjust: bool = False


class LedgerModel(_Model):
    """Where the ledger takes adjustment entries."""

    url: AnyHttpUrl
    source: str = Field(default="ledger", min_length=1, max_length=64)
    """How its events are called."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Of one request."""
    key_file: Path | None = None


class OrgModel(_Model):
    """One organisation."""

    ledger: LedgerModel | None = None
    adjust_up_to: dict[str, str] = Field(default={})
    """Largest adjustment per currency; others are never adjusted."""
    adjustments_per_hour_max: int = Field(default=20, ge=1, le=10_000)
    after_s: int = Field(default=60, ge=0, le=86_400)
    validate_within_s: int = Field(default=600, ge=5, le=86_400)
    rules: dict[str, RuleModel] = Field(default={})
    """Instead of what the pack says of these rules."""

    @validator(mode="after")
    def _makes_sense(self) -> Self:
        for currency, amount in self.adjust_up_to.items():
            if not is_currency(currency):
                msg = f"adjust_up_to: {currency!r} is no currency that tieout knows"
                raise ValueError(msg)
            try:
                limit = parse_amount(amount)
            except AmountError as error:
                msg = f"adjust_up_to.{currency}: {error}"
                raise ValueError(msg) from None
            if limit <= 0:
                msg = (
                    f"adjust_up_to.{currency}: must be above zero; leave the currency out where nothing may be adjusted"
                )
                raise ValueError(msg)
        if self.ledger is not None and not self.adjust_up_to:
            msg = "adjust_up_to: names no currency, so nothing would ever be posted to the ledger"
            raise ValueError(msg)
        if self.adjust_up_to and self.ledger is None:
            msg = "ledger: is missing, so there is nobody who could be asked to adjust"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class FilePolicies:
    """`Policies` of the file; an organisation that is not in it gets what the packs allow without a ledger."""

    default: Policy
    policies: Mapping[str, Policy]
    addresses: Mapping[str, LedgerAddress]

    def of(self, org: str) -> Policy:
        """See `ports.Policies`."""
        return self.policies.get(org, self.default)

    @property
    def watched(self) -> list[str]:
        """Rules on whose exceptions something may be tried, of any organisation."""
        every = [self.default, *self.policies.values()]
        return sorted({rule for policy in every for rule, allowed in policy.allowed.items() if _any(allowed)})

    @property
    def shortest(self) -> timedelta:
        """The shortest time that an exception must have lasted, of any organisation."""
        return min(policy.after for policy in [self.default, *self.policies.values()])


def _any(allowed: Allowed) -> bool:
    return allowed.adjust or allowed.refetch is not None


def read_policies(file: Path | None, *, allow_http: bool, environment: Mapping[str, str] | None = None) -> FilePolicies:
    """Read the file, where there is one.

    Args:
        file: the operator's; None: only what the packs allow.
        allow_http: let a ledger be asked without TLS; for closed networks.
        environment: instead of the process's own.

    Raises:
        UsageError: with the place and what to write there; never with a key.
    """
    own = {rule: Allowed(**given) for rule, given in corrections_of_rules().items()}
    policies: dict[str, Policy] = {}
    addresses: dict[str, LedgerAddress] = {}
    for org, given in (_document(file) if file is not None else {}).items():
        place = f"{file}: {org}"
        model = _org(place, given)
        allowed = own | {rule: Allowed(one.refetch, one.adjust) for rule, one in model.rules.items()}
        policies[org] = Policy(
            allowed=allowed,
            ceilings={currency: Decimal(amount) for currency, amount in model.adjust_up_to.items()},
            ledger_source=None if model.ledger is None else model.ledger.source,
            after=timedelta(seconds=model.after_s),
            within=timedelta(seconds=model.validate_within_s),
            per_hour_max=model.adjustments_per_hour_max,
        )
        if model.ledger is not None:
            addresses[org] = _address(place, org, model.ledger, environment, allow_http=allow_http)
    return FilePolicies(Policy(allowed=own), policies, addresses)


def _document(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"TIEOUT_CORRECTIONS_FILE: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text") from None
    document = parse_yaml(text, str(file)) or {}
    if not isinstance(document, dict):
        raise UsageError(f'{file}: write {{org: {{ledger: {{url: https://…}}, adjust_up_to: {{EUR: "1.00"}}}}}}')
    return {str(org): given for org, given in document.items()}


def _org(place: str, given: Any) -> OrgModel:
    try:
        return OrgModel.model_validate(given)
    except ValidationError as error:
        lines = (
            f"{place}: {'.'.join(map(str, one['loc']))}{': ' if one['loc'] else ''}"
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False)
        )
        raise UsageError("\n".join(lines)) from None


def _address(
    place: str, org: str, ledger: LedgerModel, environment: Mapping[str, str] | None, *, allow_http: bool
) -> LedgerAddress:
    url = URL(str(ledger.url))
    if url.user or url.password:
        raise UsageError(f"{place}: ledger.url: holds a user or password; give a key with {VARIABLE}__{_upper(org)}")
    if url.scheme != "https" and url.host not in LOOPBACK and not allow_http:
        raise UsageError(
            f"{place}: ledger.url: must be https; in a closed network set TIEOUT_WEBHOOKS_ALLOW_PRIVATE=true"
        )
    return LedgerAddress(url, _key(place, org, ledger, environment), ledger.timeout_s)


def _key(place: str, org: str, ledger: LedgerModel, environment: Mapping[str, str] | None) -> SecretStr | None:
    try:
        key = secret_from_environment(f"{VARIABLE}__{_upper(org)}", environment)
        if key is None and ledger.key_file is not None:
            key = SecretStr(read_secret_file(ledger.key_file))
    except (SettingsInvalid, UsageError) as error:
        raise UsageError(f"{place}: {error}") from None
    if key is not None and not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
        raise UsageError(f"{place}: the ledger's key has characters that no key has; was it copied whole?")
    return key


def _upper(org: str) -> str:
    return _NOT_IN_VARIABLES.sub("_", org.upper())

"""Settings of every service: read from `TIEOUT_…` variables, secrets also from files.

A service declares one class over `ServiceSettings` and reads it with `load_settings`, so that a wrong variable ends
in one clear line and never in a traceback.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import AnyHttpUrl, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shared.errors import UsageError

ENV_PREFIX: Final = "TIEOUT_"

SECRET_FILE_BYTES_MAX: Final = 64 * 1024
"""A private key with its chain fits well; a larger file is a wrong path."""

SHOWN_VALUE_CHARS_MAX: Final = 40

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


class SettingsInvalid(UsageError):
    """The environment does not make valid settings; `problems` holds one line per variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class SecretFileUnreadable(UsageError):
    """The file that should hold a secret cannot be used; the message names the file and the reason."""


class _Refused:
    """Stands where a secret should be; fails validation and carries the reason there."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def read_secret_file(path: str | Path) -> str:
    """The secret in `path`, without the line ends that editors and `echo` add.

    Raises:
        SecretFileUnreadable: the file is absent, not readable, empty, too large or not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretFileUnreadable(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise SecretFileUnreadable(f"{path} is larger than {SECRET_FILE_BYTES_MAX} bytes: is it the right file?")
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        # The chained error would carry the bytes themselves.
        raise SecretFileUnreadable(f"{path} is not UTF-8 text") from None
    if not secret:
        raise SecretFileUnreadable(f"{path} is empty")
    return secret


class SecretFileSource(EnvSettingsSource):
    """Gives every `SecretStr` field of the settings class from the file that `<VARIABLE>_FILE` names.

    A variable given both ways is refused: nobody could tell which of two secrets is in use.
    """

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            if not _is_secret(field):
                continue
            for key, variable, _ in self._extract_field_info(field, name):
                path = self.env_vars.get(f"{variable}_file")
                if not path:
                    continue
                values[key] = self._secret(variable, path)
                break
        return values

    def _secret(self, variable: str, path: str) -> str | _Refused:
        if self.env_vars.get(variable):
            return _Refused(f"set either {variable.upper()} or {variable.upper()}_FILE, not both")
        try:
            return read_secret_file(path)
        except SecretFileUnreadable as error:
            return _Refused(f"given by {variable.upper()}_FILE: {error}")


class SecretFileSettings(BaseSettings):
    """Settings whose `SecretStr` fields may also be given as `<VARIABLE>_FILE`; `.env` files are not read."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,  # compose files pass unset variables on as empty ones
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a value may be a secret
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the framework passes all of them
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, SecretFileSource(settings_cls), env_settings


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class ServiceSettings(SecretFileSettings):
    """What every service needs to log, to be observed and to listen."""

    environment: str = Field(default="local", min_length=1, max_length=64)
    """Name of the installation, such as `production`; stands in traces."""
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = "info"
    """`debug`, `info`, `warning` or `error`."""
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = "auto"
    """`auto`: console on a terminal, else JSON."""
    http_host: str = Field(default="127.0.0.1", min_length=1)
    """Only this machine, unless somebody decides otherwise (containers set `0.0.0.0`)."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """0 takes any free port."""
    otel_endpoint: AnyHttpUrl | None = None
    """OTLP/HTTP collector, such as `http://collector:4318`; without it nothing is traced."""
    otel_headers: SecretStr | None = None
    """`name=value,name=value` for the collector, such as its access token."""
    otel_sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of requests traced; a trace that came sampled stays sampled."""


S = TypeVar("S", bound=BaseSettings)


def load_settings(settings_class: type[S], **given: Any) -> S:
    """Read the settings from the environment; `given` values win.

    Raises:
        SettingsInvalid: one line per problem, naming the variable and never a secret.
    """
    prefix = settings_class.model_config.get("env_prefix", "")
    try:
        return settings_class(**given)
    except (ValidationError, SettingsError) as error:
        # `from None`: the cause holds the values that were given.
        raise SettingsInvalid(describe_settings_error(error, prefix).splitlines()) from None


def describe_settings_error(error: ValidationError | SettingsError, prefix: str = ENV_PREFIX) -> str:
    """One line per problem: the environment variable, what is wrong, and the value where it cannot be a secret."""
    if isinstance(error, SettingsError):
        field = re.search(r'field "([^"]+)"', str(error))
        variable = f"{prefix}{field[1]}".upper() if field else f"{prefix}…"
        return f"{variable}: is not valid JSON, and this setting is a list or an object"
    return "\n".join(dict.fromkeys(_describe(problem, prefix) for problem in error.errors(include_url=False)))


# These kinds of problem come from numbers, booleans and fixed choices; a secret is none of them.
_SHOWS_VALUE: Final = re.compile(r"(int|float|bool|decimal|time_delta)_(parsing|type|from_float)|literal_error|enum")
_BOUND: Final = re.compile(r"(greater|less)_than(_equal)?")
_SECRET_NAME: Final = re.compile(r"key|token|password|secret|signature|auth|credential|headers|dsn|url", re.IGNORECASE)


def _describe(problem: ErrorDetails, prefix: str) -> str:
    variable = _variable(problem["loc"], prefix)
    value = problem.get("input")
    if isinstance(value, _Refused):
        return f"{variable}: {value.reason}"
    if problem["type"] == "missing":
        return f"{variable}: is required and not set"
    if problem["type"] == "extra_forbidden":
        return f"{variable}: no such setting"
    wish = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{variable}: {wish}{_shown(problem, variable, value)}"


def _variable(location: tuple[int | str, ...], prefix: str) -> str:
    if not location:
        return f"{prefix}…"
    name, *inner = location
    place = " (" + ".".join(str(part) for part in inner) + ")" if inner else ""
    return f"{prefix}{name}".upper() + place


def _shown(problem: ErrorDetails, variable: str, value: Any) -> str:
    harmless = _SHOWS_VALUE.fullmatch(problem["type"]) or _BOUND.fullmatch(problem["type"])
    if not harmless or _SECRET_NAME.search(variable):
        return ""
    text = repr(value)
    return f" (given: {text if len(text) <= SHOWN_VALUE_CHARS_MAX else text[:SHOWN_VALUE_CHARS_MAX] + '…'})"


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def secret_from_environment(variable: str, environment: Mapping[str, str] | None = None) -> SecretStr | None:
    """A secret whose name is known only at run time: `variable`, or the file that `<variable>_FILE` names.

    Raises:
        SettingsInvalid: both are given, or the file cannot be read.
    """
    known = os.environ if environment is None else environment
    value, path = known.get(variable), known.get(f"{variable}_FILE")
    if value and path:
        raise SettingsInvalid([f"{variable}: set either {variable} or {variable}_FILE, not both"])
    if not path:
        return SecretStr(value) if value else None
    try:
        return SecretStr(read_secret_file(path))
    except SecretFileUnreadable as error:
        raise SettingsInvalid([f"{variable}: given by {variable}_FILE: {error}"]) from error

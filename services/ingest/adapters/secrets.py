"""Signing secrets of webhooks, from one file and from the environment; never logged, never in Kafka."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from services.ingest.ports import SigningConfig
from shared.errors import UsageError
from shared.settings import secret_from_environment

VARIABLE = "TIEOUT_WEBHOOK_SECRET"
"""`TIEOUT_WEBHOOK_SECRET__<ORG>__<SOURCE>`: one secret, or several with commas between them."""
LOOK_INTERVAL_S = 5.0
"""How often the file's time is looked at: a rotated secret works within this time."""
FILE_BYTES_MAX = 4 * 1024 * 1024

_NOT_IN_VARIABLES = re.compile(r"[^A-Z0-9]")

log = structlog.get_logger(__name__)


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    secrets: list[str]
    provider: str | None = None
    payment_id_field: str | None = None


_File = dict[str, dict[str, _Source]]


class FileSecrets:
    """Secrets from `file` (YAML or JSON) and `environment`; what the environment gives is valid beside the file's."""

    def __init__(
        self,
        file: Path | None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._looked_at = clock()
        self._stamp = _stamp(file)
        self._sources = _read(file) if file else {}
        self._known: dict[tuple[str, str], SigningConfig | None] = {}

    def of(self, org: str, source: str) -> SigningConfig | None:
        """Return how the webhooks of (org, source) are signed."""
        self._look_again()
        name = (org, source)
        if name not in self._known:
            self._known[name] = self._config(org, source)
        return self._known[name]

    def _config(self, org: str, source: str) -> SigningConfig | None:
        given = self._sources.get(org, {}).get(source)
        variable = f"{VARIABLE}__{_in_variable(org)}__{_in_variable(source)}"
        secret = secret_from_environment(variable, self._environment)
        extra = [part.strip() for part in secret.get_secret_value().split(",")] if secret else []
        secrets = (*(given.secrets if given else ()), *(part for part in extra if part))
        if not secrets:
            return None
        return SigningConfig(given.provider if given else None, secrets, given.payment_id_field if given else None)

    def _look_again(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked_at < LOOK_INTERVAL_S:
            return
        self._looked_at = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._sources = _read(self._file)
        except UsageError as error:
            log.error("the file of webhook secrets cannot be read; the former ones stay in force", reason=str(error))  # noqa: TRY400 - a traceback could show what the file holds
            return
        self._stamp = stamp
        self._known.clear()
        log.info("webhook secrets read again", sources=sum(len(sources) for sources in self._sources.values()))


def _stamp(file: Path | None) -> tuple[int, int] | None:
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None


def _read(file: Path) -> _File:
    """Read the file.

    Raises:
        UsageError: with the place and never with what the file holds.
    """
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise UsageError(f"{file}: larger than {FILE_BYTES_MAX} bytes; is it the file of webhook secrets?")
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"TIEOUT_WEBHOOK_SECRETS_FILE: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UsageError(f"{file}{f':{mark.line + 1}' if mark else ''}: is neither YAML nor JSON") from None
    try:
        return msgspec.convert(document or {}, _File)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{file}: {error}; write {{org: {{source: {{provider: stripe, secrets: [whsec_...]}}}}}}"
        ) from None


def _in_variable(name: str) -> str:
    return _NOT_IN_VARIABLES.sub("_", name.upper())

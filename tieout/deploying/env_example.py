"""Writes `deploy/compose/.env.example`: every variable that a service reads, with its meaning and its default.

`python -m tieout.deploying.env_example` writes it, `--check` refuses one that is out of date. Meanings are the docstrings of the
settings, so that neither can say something else.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = ROOT / "deploy" / "compose"
EXAMPLE: Final = COMPOSE / ".env.example"
WIDTH: Final = 118

TITLES: Final = {
    "ServiceSettings": "every service",
    "KafkaSettings": "Kafka, for every service and command",
    "IngestSettings": "ingest",
    "MatcherSettings": "matcher",
    "AlertsSettings": "alerts",
    "ExchangeSettings": "exchange snapshots (profile external)",
}

EMPTY: Final = "SecretFileSettings"
"""A base of settings classes that holds nothing itself."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment, as a person needs to know it."""

    name: str
    meaning: str
    default: str = ""
    is_set: bool = False
    """Stands uncommented in the example."""


@dataclass(frozen=True, slots=True)
class Part:
    """Variables that belong together."""

    title: str
    variables: tuple[Variable, ...]


OF_COMPOSE: Final = Part(
    "compose itself",
    (
        Variable("TIEOUT_REGISTRY", "Registry and folder of tieout's images.", "localhost"),
        Variable("TIEOUT_VERSION", "Tag of tieout's images; `make images` builds `dev`.", "dev"),
        Variable("BASE_IMAGE", "What the images are built on.", "docker.io/library/python:3.11-slim-bookworm"),
        Variable("KAFKA_IMAGE", "Kafka, pinned by version.", "docker.io/apache/kafka:4.3.1"),
        Variable("KAFKA_HEAP_OPTS", "Memory of Kafka's JVM.", "-Xms512m -Xmx1g"),
        Variable("POSTGRES_IMAGE", "PostgreSQL, pinned by version.", "docker.io/library/postgres:18.4"),
        Variable("TIEOUT_PARTITIONS", "Partitions of legs, state and results: never changes under data.", "12"),
        Variable("TIEOUT_INBOX_PARTITIONS", "Partitions of the inbox: never changes under data.", "6"),
        Variable("TIEOUT_BIND", "Address of this machine on which ingest and alerts are published.", "127.0.0.1"),
        Variable("TIEOUT_INGEST_PORT", "Port of this machine for events and webhooks.", "8080"),
        Variable("TIEOUT_ALERTS_PORT", "Port of this machine for the API and the web page.", "8081"),
        Variable("KAFKA_PORT", "Port of this machine for producers that write Kafka directly.", "9094"),
        Variable("PROMETHEUS_PORT", "Profile observability: Prometheus.", "9090"),
        Variable("GRAFANA_PORT", "Profile observability: Grafana (user admin, secrets/grafana_password).", "3000"),
        Variable("JAEGER_PORT", "Profile observability: traces.", "16686"),
        Variable("BOTS_DIR", "Profile external: folder with config/, reports/ and the bots' files.", "./bots"),
        Variable("BOTS_USER", "Profile external: user and group ids that own that folder.", "10001:10001"),
    ),
)

OF_BOTS: Final = (
    Variable("RECON_INTERVAL_SECONDS", "From one cycle to the next.", "300"),
    Variable(
        "RECON_SETTLE_SECONDS", "How long a cycle waits where files do not fit yet: bots write them one by one.", "1"
    ),
    Variable(
        "RECON_COUNTERS_RESET",
        "When the bots' counters of fees and turnover begin anew: never, daily or monthly.",
        "never",
    ),
    Variable("RECON_ZONE", "Time zone of that.", "UTC"),
    Variable("RECON_REPORTS_KEPT", "Reports kept beside latest.json; 0 keeps all.", "0"),
    Variable("RECON_ALERT_WEBHOOK_URL", "Where findings are told; nowhere where it is empty."),
    Variable("RECON_ALERT_MIN_SEVERITY", "What is told: warning, or critical only.", "critical"),
)

NAMED_AT_RUN_TIME: Final = Part(
    "variables with a name of your own",
    (
        Variable(
            "TIEOUT_WEBHOOK_SECRET__ACME__STRIPE",
            "Signing secrets of the webhooks of one source (organisation ACME, source STRIPE), with commas between; or `..._FILE`. Compose takes them from secrets/webhook_secrets.",
        ),
        Variable("TIEOUT_POLLER_KEY__ACME__CIRCLE", "API key of one polled provider; or `..._FILE` (docs/stack.md)."),
        Variable("TIEOUT_LEDGER_KEY__ACME", "API key of one organisation's ledger, for corrections; or `..._FILE`."),
        Variable("BOT2_BITGET_API_KEY", "Exchange key of the account that the account map calls BOT2; or `..._FILE`."),
        Variable("BOT2_BITGET_SECRET", "As above."),
        Variable("BOT2_BITGET_PASSPHRASE", "As above."),
        Variable(
            "POD_NAME",
            "Name of this replica, stable and unique: the default of TIEOUT_GROUP_INSTANCE_ID. The chart sets it; compose does not, because replicas of a service share their variables.",
        ),
    ),
)

OF_COMMANDS: Final = Part(
    "commands (`tieout discrepancies`, `runs`, `import`, ...), for the shell that runs them",
    (
        Variable("TIEOUT_API_URL", "Where alerts answers.", "http://127.0.0.1:8081"),
        Variable("TIEOUT_INGEST_URL", "Where ingest answers.", "http://127.0.0.1:8080"),
        Variable("TIEOUT_API_KEY", "`tk_...`, from `tieout keys create`."),
        Variable("TIEOUT_IMPORT_RETRY_TIMEOUT_S", "How long `tieout import` waits for an ingest that is away.", "60"),
    ),
)


def parts() -> Iterator[Part]:
    """Every variable, part by part."""
    yield OF_COMPOSE
    known: dict[str, str] = {}
    for title, settings in settings_classes():
        found = [one for one in variables_of(settings) if one.name not in known]
        known |= {one.name: title for one in found}
        yield Part(title, tuple(found))
    yield Part("reconciliation of trading bots (profile external)", tuple(_of_bots()))
    yield NAMED_AT_RUN_TIME
    yield OF_COMMANDS


def _of_bots() -> Iterator[Variable]:
    from shared.packs.bots import places, thresholds

    lies = "Where it lies, from the folder that the job works in; `{bot}` is a bot's name: "
    told = {
        places.SNAPSHOTS_VARIABLE: "snapshots.",
        places.FILLS_VARIABLE: "fills.",
        places.EVENTS_VARIABLE: "events.",
        places.EXCHANGE_VARIABLE: "the exchange's snapshot.",
        places.REPORTS_VARIABLE: "reports.",
    }
    for name, default in places.DEFAULTS.items():
        yield Variable(name, lies + told.get(name, "see docs/bots.md."), default)
    yield from OF_BOTS
    yield Variable(thresholds.PATH_VARIABLE, "File of thresholds, per bot.", thresholds.PATH_DEFAULT)
    built_in = thresholds.BotThresholds()
    for key in thresholds.KEYS:
        value = getattr(built_in, key)
        shown = "" if value is None else str(value).lower()
        yield Variable(thresholds.variable_of(key), f"Default of `{key}` where the file of thresholds has none.", shown)


def settings_classes() -> Iterator[tuple[str, type[BaseSettings]]]:
    """Every settings class of the product: those that stand in a module `settings`."""
    folders = ("shared", "services", "tieout")
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("settings.py"))):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = import_module(name)
        for each in vars(module).values():
            if not (inspect.isclass(each) and issubclass(each, BaseSettings) and each.__module__ == name):
                continue
            if each.__name__ != EMPTY:
                yield TITLES.get(each.__name__, name.removesuffix(".settings")), each


def variables_of(settings: type[BaseSettings]) -> Iterator[Variable]:
    """The variables of one settings class."""
    meanings = _docstrings(settings)
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        variable = _alias(field) or f"{prefix}{name}".upper()
        meaning = " ".join((field.description or meanings.get(name, "")).split())
        yield Variable(variable, meaning or name.replace("_", " "), _default(field))
        if _is_secret(field) and f"{name}_file" not in settings.model_fields:
            yield Variable(f"{variable}_FILE", f"A file that holds it, instead of {variable}.")


def _alias(field: FieldInfo) -> str | None:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else None


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined or value is None or _is_secret(field):
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _docstrings(settings: type[BaseSettings]) -> dict[str, str]:
    """The text below each field, also of the classes that it stands on."""
    found: dict[str, str] = {}
    for each in reversed(settings.__mro__):
        if not issubclass(each, BaseSettings) or each is BaseSettings:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef), "the source of a class is a class"
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found[field.target.id] = inspect.cleandoc(text.value.value)  # type: ignore[attr-defined] # `_is_text` has looked
    return found


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


HEAD: Final = """\
# Every variable of tieout, with its meaning and its default. Copy this file to .env (`make up` does) and take the # away
# from what you change. Made by `make docs` from the settings themselves: do not edit.
# Passwords and keys do not belong here but in files: see ./secrets and docs/deploy.md.
"""


def text() -> str:
    """The whole file."""
    lines = [HEAD]
    for part in parts():
        if not part.variables:
            continue
        lines.append(f"\n# ---- {part.title}\n")
        for one in part.variables:
            lines += [f"# {line}" for line in textwrap.wrap(one.meaning, WIDTH - 2, break_on_hyphens=False)]
            lines.append(f"{'' if one.is_set else '#'}{one.name}={_quoted(one.default)}\n")
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s#]", value) else value


def main() -> int:
    """Write the file, or with `--check` compare it."""
    made = text()
    if "--check" not in sys.argv[1:]:
        EXAMPLE.write_text(made, encoding="utf-8")
        print(EXAMPLE.relative_to(ROOT))
        return 0
    if not EXAMPLE.exists() or EXAMPLE.read_text(encoding="utf-8") != made:
        print(f"{EXAMPLE.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

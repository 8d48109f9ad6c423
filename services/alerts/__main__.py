"""`python -m services.alerts [ROLE…]`: the same as `tieout alerts`."""

import asyncio
import sys
from typing import Any

from services.alerts.app import ROLES, Role, serve
from services.alerts.settings import AlertsSettings
from shared.errors import TieoutError, UsageError
from shared.kafka.settings import KafkaSettings
from shared.settings import load_settings
from shared.telemetry.logs import configure_logging
from shared.telemetry.traces import configure_tracing


def run(names: list[str], **given: Any) -> None:
    """Serve the roles named (none: all) until a signal; `given` settings win over the environment.

    Raises:
        TieoutError: with the exit code and one line for the person.
    """
    unknown = [name for name in names if name not in ROLES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no role: use {', '.join(ROLES)}")
    roles: list[Role] = [role for role in ROLES if not names or role in names]
    settings = load_settings(AlertsSettings, **given)
    kafka = load_settings(KafkaSettings)
    configure_logging("alerts", settings)
    end_tracing = configure_tracing("alerts", settings)
    try:
        asyncio.run(serve(settings, kafka, roles))
    except BaseExceptionGroup as group:
        first = _first(group)
        raise first if isinstance(first, TieoutError) else group from None
    finally:
        end_tracing()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except TieoutError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)

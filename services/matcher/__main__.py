"""`python -m services.matcher`: the matcher as a process of its own, configured by `TIEOUT_…` variables."""

import asyncio
import signal
import sys

from services.matcher.app import run
from services.matcher.settings import MatcherSettings, load
from shared.errors import TieoutError
from shared.kafka.settings import KafkaSettings
from shared.telemetry.logs import configure_logging


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    try:
        settings, kafka = load()
        serve(settings, kafka)
    except TieoutError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def serve(settings: MatcherSettings, kafka: KafkaSettings) -> None:
    """Run until SIGTERM or SIGINT, which finish the transactions and keep the membership.

    Raises:
        TieoutError: one clear message and the exit code.
    """
    configure_logging("matcher", settings)
    asyncio.run(_until_signal(settings, kafka))


async def _until_signal(settings: MatcherSettings, kafka: KafkaSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, kafka, stop)


if __name__ == "__main__":
    sys.exit(main())

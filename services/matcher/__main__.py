"""`python -m services.matcher`: the matcher as a process of its own, configured by `TIEOUT_…` variables."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.matcher.settings import MatcherSettings
    from shared.kafka.settings import KafkaSettings


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    gc.disable()  # see `serve`
    # structlog would import it for tracebacks that are written otherwise here, which takes a tenth of a start.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: as if it was not installed
    from services.matcher.settings import load
    from shared.errors import TieoutError

    try:
        settings, kafka = load()
        serve(settings, kafka)
    except TieoutError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def serve(settings: "MatcherSettings", kafka: "KafkaSettings") -> None:
    """Run until SIGTERM or SIGINT, which finish the transactions and keep the membership.

    Raises:
        TieoutError: one clear message and the exit code.
    """
    # What imports make stays: to look through it for garbage, again and again, took an eighth of a start.
    gc.disable()
    from services.matcher.app import run
    from shared.telemetry.logs import configure_logging

    gc.freeze()
    gc.enable()
    configure_logging("matcher", settings)
    asyncio.run(_until_signal(partial(run, settings, kafka)))


async def _until_signal(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(stop)


if __name__ == "__main__":
    sys.exit(main())

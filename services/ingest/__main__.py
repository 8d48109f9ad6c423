"""`python -m services.ingest`: ingest as a process of its own."""

import asyncio
import sys

from services.ingest.app import run
from services.ingest.settings import load
from shared.errors import TieoutError


def main() -> int:
    """Run until stopped; a person's mistake is one line and an exit code."""
    try:
        settings, kafka = load()
        asyncio.run(run(settings, kafka))
    except TieoutError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

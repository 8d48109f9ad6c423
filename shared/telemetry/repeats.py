"""What libraries say again and again, summed up: an outage is told by tens of lines, not by tens of thousands."""

import logging
import time
from collections.abc import Callable
from typing import Final

REPEAT_S: Final = 10.0
"""The same line of a library comes at most this often; the next one says how many were left out."""
LINES_MAX: Final = 1_000
"""Different lines remembered: texts hold offsets and the like, and there is no end to those."""


class Repeats(logging.Filter):
    """Lets through the first of equal lines, and one every `REPEAT_S` with the number in between as `left_out`.

    Only of libraries, from warnings on, and nothing that carries a traceback. Our own lines are decisions: all stay.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[tuple[str, int, str], tuple[float, int]] = {}
        """When a line was let through, and how many equal ones were not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = isinstance(record.msg, dict)
        if is_ours or record.levelno < logging.WARNING or record.exc_info:
            return True
        line = (record.name, record.levelno, record.getMessage())
        now = self._clock()
        told_s, left_out = self._told.get(line, (float("-inf"), 0))
        if now - told_s < REPEAT_S:
            self._told[line] = told_s, left_out + 1
            return False
        if left_out:
            record.left_out = left_out
        if line not in self._told and len(self._told) >= LINES_MAX:
            self._told.clear()
        self._told[line] = now, 0
        return True

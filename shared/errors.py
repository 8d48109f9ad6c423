"""Errors that a person sees: each says what happened, to what, and what to do, and carries the exit code."""


class TieoutError(Exception):
    """A problem whose message is written for the person at the terminal; no traceback is shown for it."""

    exit_code = 2


class UsageError(TieoutError):
    """Wrong usage or bad input."""

    exit_code = 2


class DependencyAway(TieoutError):
    """Kafka, PostgreSQL or another service that is needed cannot be reached."""

    exit_code = 3

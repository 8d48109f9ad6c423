"""What this machine lacks to run a part locally."""

from shared.errors import DependencyAway


class LocalUnavailable(DependencyAway):
    """A program or package is missing, or would not start; the message says what to install or look at."""

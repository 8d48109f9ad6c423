"""When a run that is not complete yet is looked at again."""

from datetime import datetime, timedelta

LOOK_PAUSE_MIN = timedelta(seconds=2)
"""The matcher's progress comes every second: sooner there is nothing new."""
LOOK_PAUSE_MAX = timedelta(minutes=10)
"""A run over a month that goes on reads all of its items; ten minutes old figures are fresh enough for that."""
_SHARE = 10


def look_due(created_at: datetime, looked_at: datetime, now: datetime) -> bool:
    """Tell whether a run is due: the pauses grow with its age, to a tenth of it, within the two limits."""
    pause = min(max((looked_at - created_at) / _SHARE, LOOK_PAUSE_MIN), LOOK_PAUSE_MAX)
    return now >= looked_at + pause

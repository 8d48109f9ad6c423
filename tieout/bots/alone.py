"""One process at a time on what another would overwrite."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import UsageError


@contextmanager
def alone(lock: Path, who: str) -> Iterator[None]:
    """Hold a lock; it is gone with the process, however that ends.

    Args:
        lock: the lock's file, in the folder that is written.
        who: what runs, for people.

    Raises:
        UsageError: another one holds it, or the folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise UsageError(f"cannot write into {lock.parent}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{lock.parent}: another {who} is running on these reports; let it end first") from None
        yield

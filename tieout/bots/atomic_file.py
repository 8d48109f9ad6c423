"""Files that others read while they are written: the old one or the new one, never a part."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from shared.errors import UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` under `path`: written to a temporary file beside it, on the disk, then renamed.

    Raises:
        UsageError: it cannot be written there; what was there stays.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are private; this one is for others to read.
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        raise UsageError(f"cannot write {path}: {error.strerror or type(error).__name__}") from None


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk, too."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)

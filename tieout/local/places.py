"""Where local parts keep their files, and which ports are free."""

import os
import socket
from pathlib import Path


def cache_dir() -> Path:
    """Where downloads are kept between runs: `TIEOUT_CACHE_DIR`, else `~/.cache/tieout`."""
    chosen = os.environ.get("TIEOUT_CACHE_DIR")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "tieout"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_ports(count: int) -> tuple[int, ...]:
    """Different TCP ports on 127.0.0.1 that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(int(each.getsockname()[1]) for each in sockets)
    finally:
        for each in sockets:
            each.close()


def listens(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1 at `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

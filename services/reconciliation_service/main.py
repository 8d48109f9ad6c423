"""`python services/reconciliation_service/main.py --once [--synthetic-drift]`: the same as `tieout bots reconcile …`.

Runbooks name this path. It starts the command in its place, so nothing is done here that is not done there.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Become the command, with the same arguments, working directory and environment."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tieout", "bots", "reconcile", *sys.argv[1:]]
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell: the arguments are handed on as they are


if __name__ == "__main__":
    main()

"""`make lock`: resolve the locks anew, with hashes and without addresses, one per service and one for development."""

import subprocess
import sys
from pathlib import Path

OPTIONS = (
    "--universal",
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--quiet",
    "--python-version",
    "3.11",
)
LOCKS: dict[str, tuple[str, ...]] = {
    "dev": ("--all-extras", "--group", "dev"),
    "ingest": ("--extra", "ingest"),
    "matcher": ("--extra", "matcher"),
    "alerts": ("--extra", "alerts", "--extra", "mcp"),
    "bots": ("--extra", "bots"),
}
TOOLS = {"uv": b"uv\n", "native": b"cython>=3.1\nsetuptools>=80\n"}
"""What installs, and what builds `native/`, by themselves."""


def main() -> None:
    """Write locks/*.txt."""
    uv = str(Path(sys.executable).with_name("uv"))
    for name, options in LOCKS.items():
        target = f"locks/{name}.txt"
        subprocess.run([uv, "pip", "compile", *OPTIONS, *options, "pyproject.toml", "-o", target], check=True)
        print(target)
    for name, wanted in TOOLS.items():
        target = f"locks/{name}.txt"
        subprocess.run([uv, "pip", "compile", *OPTIONS, "-", "-o", target], check=True, input=wanted)
        print(target)


if __name__ == "__main__":
    main()

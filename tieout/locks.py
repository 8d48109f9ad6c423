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


def main() -> None:
    """Write locks/*.txt."""
    uv = str(Path(sys.executable).with_name("uv"))
    for name, options in LOCKS.items():
        target = f"locks/{name}.txt"
        subprocess.run([uv, "pip", "compile", *OPTIONS, *options, "pyproject.toml", "-o", target], check=True)
        print(target)
    subprocess.run([uv, "pip", "compile", *OPTIONS, "-", "-o", "locks/uv.txt"], check=True, input=b"uv\n")
    print("locks/uv.txt")


if __name__ == "__main__":
    main()

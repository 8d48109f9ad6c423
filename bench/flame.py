"""Draws stacks that `py-spy record --format raw` wrote as a flame graph: one small SVG that any browser opens.

py-spy record --native --format raw --output stacks.txt --pid PID
python bench/flame.py stacks.txt docs/flames/matcher.svg --title "matcher" --root Runner.run
"""

import argparse
import html
from pathlib import Path

WIDTH, ROW, LEFT_OUT = 1200, 17, 0.004
"""Pixels, and the share below which a frame is not drawn."""
NOISE = ("0x", "_asynciomodule.c", "asyncio/events.py")
"""In the names of frames that only hand on."""
OURS, NATIVE, OTHERS = "#e07b39", "#7a9e5f", "#c9b458"


class Frame:
    """A function, where it was called from, and the samples in it."""

    def __init__(self) -> None:
        self.samples = 0
        self.callees: dict[str, Frame] = {}

    def add(self, stack: list[str], samples: int) -> None:
        """Count samples of a stack, outermost first."""
        frame = self
        frame.samples += samples
        for name in stack:
            frame = frame.callees.setdefault(name, Frame())
            frame.samples += samples


def read(path: Path, root: str, without: list[str]) -> Frame:
    """Return the stacks below the frame `root`, without those in which one of `without` stands."""
    found = Frame()
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        names = [name for name in stack.split(";") if not any(word in name for word in NOISE)]
        places = [place for place, name in enumerate(names) if root in name]
        if places and not any(word in name for word in without for name in names):
            found.add(names[places[0] + 1 :], int(samples))
    return found


def colour(name: str) -> str:
    """Return the colour of code of ours, compiled code, and everything else."""
    if "tieout_native" in name:
        return NATIVE
    return OURS if any(folder in name for folder in ("services/", "shared/", "tieout/")) else OTHERS


def draw(title: str, whole: Frame) -> str:
    """Return the SVG: callers below, callees above them; the width of a frame is its share of the samples."""
    boxes: list[tuple[int, float, float, str]] = []

    def place(frame: Frame, depth: int, left: float) -> None:
        for name, callee in sorted(frame.callees.items()):
            share = callee.samples / whole.samples
            if share >= LEFT_OUT:
                boxes.append((depth, left, share, name))
                place(callee, depth + 1, left)
            left += share

    place(whole, 0, 0.0)
    rows = max(depth for depth, *_ in boxes) + 1
    height = (rows + 2) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="13" font-size="13">{html.escape(title)} ({whole.samples:,} samples)</text>',
    ]
    for depth, left, share, name in boxes:
        x, y, width = left * WIDTH, height - (depth + 1) * ROW, share * WIDTH
        shown = name[: int(width / 6.7)] if width > 20 else ""
        lines.append(
            f'<g><title>{html.escape(name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.5):.1f}" '
            f'height="{ROW - 1}" fill="{colour(name)}"/><text x="{x + 2:.1f}" y="{y + 12}">{html.escape(shown)}</text></g>'
        )
    return "\n".join([*lines, "</svg>\n"])


def main() -> None:
    """Draw one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", type=Path)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--title", default="")
    parser.add_argument("--root", default="run_forever", help="draw what this frame called")
    parser.add_argument(
        "--without", action="append", default=[], help="leave out stacks with this word, such as a wait"
    )
    given = parser.parse_args()
    whole = read(given.stacks, given.root, given.without)
    if not whole.samples:
        parser.error(f"{given.stacks} has no stack with {given.root} in it: see what it has, and give --root")
    given.svg.write_text(draw(given.title, whole))
    print(f"{given.svg}: {whole.samples:,} samples")


if __name__ == "__main__":
    main()

# /// script
# dependencies = ["matplotlib>=3.10"]
# ///
"""Draws what `bench/full.py` measured: `uv run bench/plots.py` writes docs/bench/*.svg."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent.parent / "docs/bench"
OURS, THEIRS, GOAL = "#2c6e9b", "#b8b8b8", "#c0392b"
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "tieout",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
NAMES = {
    "tieout": "tieout",
    "kafka-streams-1": "Kafka Streams, 1 thread",
    "kafka-streams-2": "Kafka Streams, 2 threads",
    "quix-stateful": "Quix Streams, keyed state",
    "quix-interval-join": "Quix Streams, interval join",
}


def save(figure: Any, name: str) -> None:
    """Write one picture, the same bytes for the same figures."""
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
    print(FOLDER / f"{name}.svg")


def peers(result: dict[str, Any]) -> None:
    """Legs a second of every contestant, and the limit."""
    rows = [("pass-through (the limit)", result["limit_events_per_second"])]
    rows += [(NAMES[one["name"]], one["events_per_second"]) for one in result["contestants"]]
    figure, axes = plt.subplots(figsize=(7.5, 2.8))
    colours = ["#e4e4e4", *(OURS if name == "tieout" else THEIRS for name, _ in rows[1:])]
    bars = axes.barh([name for name, _ in rows], [value for _, value in rows], color=colours)
    axes.bar_label(bars, [f"{value:,}" for _, value in rows], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, rows[0][1] * 1.15)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("legs a second, exactly once, one process")
    save(figure, "peers")


def held(sizes: list[dict[str, Any]]) -> None:
    """Memory and time by what is held."""
    items = [size["items"] for size in sizes]
    figure, (memory, cpu) = plt.subplots(1, 2, figsize=(9, 3))
    for axes, names, unit in (
        (memory, {"bytes_per_open_item": "open item", "bytes_per_settled_group": "settled group"}, "bytes each"),
        (
            cpu,
            {"cpu_us_per_leg_open": "while so many are open", "cpu_us_per_leg_expiring": "while so many expire"},
            "us of CPU a leg",
        ),
    ):
        for (name, label), marker in zip(names.items(), "os", strict=True):
            axes.plot(items, [size[name] for size in sizes], marker=marker, label=label)
        axes.set(xscale="log", xlabel="items held", ylabel=unit)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    for goal in (400, 250):
        memory.axhline(goal, color=GOAL, linewidth=0.8, linestyle=":")
        memory.text(items[-1], goal + 6, f"goal {goal}", color=GOAL, fontsize=8, ha="right")
    save(figure, "held")


def latency(results: dict[str, dict[str, Any]]) -> None:
    """Percentiles from the POST to the topic and to the webhook, at every rate measured."""
    figure, axes = plt.subplots(figsize=(7.5, 2.6))
    rows = [
        (f"{name.removeprefix('latency at ')}/s, to the {end}", result[f"{end}_ms"])
        for name, result in results.items()
        for end in ("topic", "webhook")
    ]
    names = [name for name, _ in rows]
    axes.barh(names, [times["p99"] for _, times in rows], color=THEIRS, label="p99")
    axes.barh(names, [times["p50"] for _, times in rows], color=OURS, label="p50")
    for place, (_, times) in enumerate(rows):
        axes.text(times["p99"], place, f" {times['p50']:.0f} / {times['p99']:.0f} ms", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, max(times["p99"] for _, times in rows) * 1.3)
    axes.set_xlabel("ms from the second leg's POST")
    axes.legend(frameon=False, loc="upper right")
    save(figure, "latency")


def main() -> None:
    """Draw what is there."""
    lines = map(json.loads, (FOLDER / "results.jsonl").read_text().splitlines())
    results = {line["name"]: line["result"] for line in lines}
    if "peers" in results:
        peers(results["peers"])
    if "memory" in results:
        held(results["memory"]["sizes"])
    rates = {name: result for name, result in results.items() if name.startswith("latency at")}
    if rates:
        latency(rates)


if __name__ == "__main__":
    main()

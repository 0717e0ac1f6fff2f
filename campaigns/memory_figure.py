"""Draws docs/figures/memory.png from docs/results/memory.csv: python campaigns/memory_figure.py"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"memory_chain": "memory chain of 50", "tmaze": "T-maze of 50"}
SETTINGS = {"m1": "1", "m5": "5", "m20": "20", "short-memory": "5, cells\nthat forget"}
CORES = {"elstm-rtrl": "RTRL", "elstm-tbptt": "truncated backpropagation"}


def shares() -> dict[tuple[str, str, str], list[float]]:
    """(task, setting, core) -> the share of right answers of each seed."""
    found: dict[tuple[str, str, str], list[float]] = {}
    with (ROOT / "docs" / "results" / "memory.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault((row["task"], row["unrolls"], row["core"]), []).append(float(row["right"]))
    return found


def draw(to: Path) -> None:
    """A picture for each task: a mark for each seed, settings side by side, both cores beside each other."""
    found = shares()
    figure, each = plt.subplots(1, len(TASKS), figsize=(8, 3.4), sharey=True)
    for axes, (task, title) in zip(each, TASKS.items(), strict=True):
        for shift, (core, label) in zip((-0.15, 0.15), CORES.items(), strict=True):
            marks = [
                (place + shift + 0.06 * (seed - 1), share)
                for place, setting in enumerate(SETTINGS)
                for seed, share in enumerate(found.get((task, setting, core), []))
            ]
            axes.plot(*zip(*marks, strict=True), "o" if shift < 0 else "s", label=label, alpha=0.8)
        axes.axhline(0.95, color="grey", linewidth=0.8, linestyle="--")
        axes.set(title=title, xlabel="rows in an unroll", xticks=range(len(SETTINGS)), ylim=(0.4, 1.04))
        axes.set_xticklabels(list(SETTINGS.values()))
    each[0].set_ylabel("right answers of 500")
    each[0].legend(frameon=False, loc="lower left")
    figure.tight_layout()
    figure.savefig(to, dpi=120)


if __name__ == "__main__":
    draw(ROOT / "docs" / "figures" / "memory.png")

"""Draws docs/figures/delay-freeway.png from docs/results/delay_minatar.csv: python campaigns/delay_minatar_curve.py"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from offbeat.scoring.statistics import over_runs_and_games, stratified_bootstrap

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"plain": "the late picture alone", "model": "what a forward model foretells"}


def scores(game: str) -> dict[tuple[str, int], list[float]]:
    """(agent, delay) -> the final score of each seed."""
    found: dict[tuple[str, int], list[float]] = {}
    with (ROOT / "docs" / "results" / "delay_minatar.csv").open() as file:
        for row in csv.DictReader(file):
            if row["game"] == game:
                found.setdefault((row["agent"], int(row["delay"])), []).append(float(row["mean"]))
    return found


def draw(game: str, to: Path) -> None:
    """Interquartile means with their 95 % bootstrap intervals, each agent beside the other."""
    found = scores(game)
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for agent, label in LABELS.items():
        delays = sorted(delay for name, delay in found if name == agent or delay == 0)
        each = [found.get((agent, delay)) or found["plain", 0] for delay in delays]
        estimates = [stratified_bootstrap([np.array(values)], over_runs_and_games) for values in each]
        line = axes.plot(delays, [estimate.value for estimate in estimates], marker="o", label=label)[0]
        bounds = [[getattr(estimate, name) for estimate in estimates] for name in ("low", "high")]
        axes.fill_between(delays, *bounds, alpha=0.2, color=line.get_color())
    axes.set(xlabel="delay (frames)", ylabel=f"score in MinAtar {game.title()}", ylim=(0, None))
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(to, dpi=120)


if __name__ == "__main__":
    draw("freeway", ROOT / "docs" / "figures" / "delay-freeway.png")

"""Draws scores over the delay from a campaign's campaign.csv: python campaigns/realtime_curve.py CSV PICTURE

A panel for each environment and a line for each setting, with its 95 % bootstrap interval over seeds; settings without
a delay in their options, such as random play, lie across. Campaigns: realtime_tetris, realtime_atari, delay_gameboy.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from offbeat.scoring.statistics import over_runs_and_games, stratified_bootstrap

DELAY, ENV, FINAL = "delay.inference_frames", "env.id", "final"
Scores = dict[str, dict[str, dict[int | None, list[float]]]]
"""Environment -> setting -> delay in frames, None for none in its options -> the score of each seed."""


def read(file: Path) -> Scores:
    """The final scores of finished runs. Settings are called as in the campaign, less their delay and environment."""
    found: Scores = {}
    with file.open() as rows:
        for row in csv.DictReader(rows):
            if row["score"] != FINAL:
                continue
            setting = re.sub(r"-(inference_frames|env)=[^-]*", "", row["name"])
            delay = int(row[DELAY]) if row.get(DELAY) else None
            settings = found.setdefault(row.get(ENV) or "", {})
            settings.setdefault(setting, {}).setdefault(delay, []).append(float(row["mean"]))
    return found


def draw(axes: Axes, settings: dict[str, dict[int | None, list[float]]]) -> None:
    """One panel."""
    for setting, scores in settings.items():
        if None in scores:
            axes.axhline(np.mean(scores[None]), linestyle=":", label=setting, color="gray")
            continue
        delays = sorted(delay for delay in scores if delay is not None)
        estimates = [stratified_bootstrap([np.array(scores[delay])], over_runs_and_games) for delay in delays]
        line = axes.plot(delays, [estimate.value for estimate in estimates], marker="o", label=setting)[0]
        bounds = [[getattr(estimate, name) for estimate in estimates] for name in ("low", "high")]
        axes.fill_between(delays, *bounds, alpha=0.2, color=line.get_color())


def main(file: Path, to: Path) -> None:
    """Draw all panels. SystemExit where no run is finished."""
    found = read(file)
    if not found:
        raise SystemExit(f"{file} holds no final score yet; run the campaign first")
    figure, panels = plt.subplots(1, len(found), figsize=(5 * len(found) + 1, 3.6), squeeze=False)
    for axes, (name, settings) in zip(panels[0], found.items(), strict=True):
        draw(axes, settings)
        axes.set(xlabel="delay (frames)", ylabel="score", title=name)
        axes.set_xscale("symlog", linthresh=1)
    panels[0][-1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(to, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

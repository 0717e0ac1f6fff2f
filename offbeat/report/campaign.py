"""What a campaign has found: a table for people, campaign.csv, curves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.scores import bootstrap_interval, interquartile_mean
from offbeat.report.plot import plot_runs
from offbeat.run.campaign import FINAL, Planned

COLUMNS = ("name", "preset", "seed", "score", "frames", "mean", "std", "episodes", "policy", "run_seconds")
"""Columns of campaign.csv."""


def write_report(out: Path, runs: list[Planned]) -> None:
    """Write campaign.csv and the curves, and print the table of scores: mean over seeds with a bootstrap interval."""
    by_name: dict[tuple[str, str], list[tuple[Planned, dict[str, Any]]]] = {}
    with (out / "campaign.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        rows.writeheader()
        for run in runs:
            final = run.score()
            for further in (None, *run.scores) if final is not None else ():
                score = run.score(further)
                if final is None or score is None:
                    continue
                called = {"name": run.name, "preset": run.preset, "seed": run.seed, "run_seconds": final["time"]}
                name = FINAL if further is None else further.name
                rows.writerow(score | called | {"score": name})
                by_name.setdefault((run.name, name), []).append((run, score))
    for (run_name, score_name), found in by_name.items():
        means = np.array([score["mean"] for _, score in found])
        low, high = bootstrap_interval(means)
        seeds = ", ".join(f"{mean:.4g}" for mean in means)
        print(
            f"{run_name}{'' if score_name == FINAL else f', {score_name}'}: mean {means.mean():.4g} "
            f"[{low:.4g}, {high:.4g}], IQM {interquartile_mean(means):.4g} "
            f"over {len(means)} seeds ({seeds}) at {found[0][1]['frames']:,} frames"
        )
        if score_name == FINAL:
            published = found[0][0].published
            folders = [run.folder for run, _ in found]
            plot_runs(folders, out / f"{run_name}.png", "seconds" if published else "frames", published=published)

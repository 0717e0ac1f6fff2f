"""What a campaign has found: campaign.csv, curves, and its settings ranked by their scores."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.scores import bootstrap_interval, interquartile_mean
from offbeat.report.plot import COLOURS, plot_runs
from offbeat.run.campaign_file import Campaign
from offbeat.run.planned import FINAL, Planned
from offbeat.scoring.compare import read_results
from offbeat.scoring.ranking import Scored, tables

COLUMNS = ("name", "preset", "seed", "score", "frames", "mean", "std", "episodes", "policy", "run_seconds")
"""Columns of campaign.csv; behind them, one for each option that a grid varies."""

Scores = list[tuple[Planned, str, dict[str, Any]]]
"""Every score of every finished run: the run, what the score is called, its record."""


def write_report(campaign: Campaign) -> None:
    """Write campaign.csv and a picture of the curves for each entry, and print the scores: final ones ranked, further
    ones as the mean over seeds with a bootstrap interval.
    """
    scores = [(run, name, record) for run in campaign.runs for name, record in _scores(run)]
    campaign.out.mkdir(parents=True, exist_ok=True)
    _write_csv(campaign, scores)
    finished = [run for run, name, _ in scores if name == FINAL]
    print(f"{len(finished)} of {len(campaign.runs)} runs are finished; {campaign.out / 'campaign.csv'}")
    if not finished:
        return
    scored = _scored(finished)
    for entry in dict.fromkeys(run.entry for run in finished):
        _draw(campaign.out, entry, [run for run in finished if run.entry == entry], scored)
    parts = tables(list(scored.values()), "Final scores of finished runs")
    lines = _further(scores)
    parts += ["\n".join(["Further scores", *lines])] if lines else []
    print("\n" + "\n\n".join(parts), flush=True)


def _scores(run: Planned) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a run's scores are called, and their records with the run's seconds; none of a run that is not finished."""
    final = run.score()
    for further in (None, *run.scores) if final is not None else ():
        score = run.score(further)
        if final is not None and score is not None:
            yield FINAL if further is None else further.name, score | {"run_seconds": final["time"]}


def _write_csv(campaign: Campaign, scores: Scores) -> None:
    varied = dict.fromkeys(option for run in campaign.runs for option, _ in run.varied)
    path, draft = campaign.out / "campaign.csv", campaign.out / ".campaign.csv"
    with draft.open("w", newline="") as file:
        rows = csv.DictWriter(file, (*COLUMNS, *varied), extrasaction="ignore")
        rows.writeheader()
        for run, name, record in scores:
            called = {"name": run.name, "preset": run.preset, "seed": run.seed, "score": name}
            rows.writerow(record | called | dict(run.varied))
    os.replace(draft, path)


def _scored(finished: list[Planned]) -> dict[Path, Scored]:
    """The final score of each finished run, by its folder."""
    found = {}
    for run in finished:
        (result,) = read_results([str(run.folder)])
        also = [option for option, _ in run.varied if option not in ("env.id", "eval_env.id")]
        found[run.folder] = result.scored("final", run.entry, also)
    return found


def _draw(out: Path, entry: str, runs: list[Planned], scored: dict[Path, Scored]) -> None:
    """The curves of an entry; of a grid of many settings those of the best, as many as there are colours."""
    means: dict[str, list[float]] = {}
    for run in runs:
        means.setdefault(run.name, []).append(scored[run.folder].score)
    best = sorted(means, key=lambda name: -np.mean(means[name]))[: len(COLOURS)]
    published = runs[0].published
    folders = [run.folder for run in runs if run.name in best]
    axis: Any = published[0].axis if published else "frames"
    picture = plot_runs(folders, out / f"{entry}.png", axis, published=published)
    left_out = f" (the best {len(best)} of {len(means)} settings)" if len(means) > len(best) else ""
    print(f"{picture}{left_out}")


def _further(scores: Scores) -> list[str]:
    """A line for each setting and further score."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run, name, record in scores:
        if name != FINAL:
            groups.setdefault((run.name, name), []).append(record)
    lines = []
    for (setting, name), records in groups.items():
        means = np.array([record["mean"] for record in records])
        low, high = bootstrap_interval(means)
        seeds = ", ".join(f"{mean:.4g}" for mean in means)
        lines.append(
            f"{setting}, {name}: mean {means.mean():.4g} [{low:.4g}, {high:.4g}], IQM {interquartile_mean(means):.4g} "
            f"over {len(means)} seeds ({seeds}) at {records[0]['frames']:,} frames"
        )
    return lines

"""Campaigns: a table of runs in a TOML file, worked off one after the other; stop it at any time and start it again.

::

    out = "results/spine"

    [[runs]]
    name = "cartpole"
    preset = "impala-cartpole"
    seeds = [0, 1, 2]
    options = { "learner.learning_rate" = 5e-4 }
    published = [[5, 24_200], [10, 36_100]]     # scores of others after so many hours, to be drawn beside it

Each run is an ``offbeat train`` of its own in ``OUT/<name>-seed<seed>``. Finished ones are left alone, begun ones are
resumed. At the end: ``OUT/campaign.csv`` with a row per run, ``OUT/<name>.png`` with the curves, a table of scores.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.compare import evaluations
from offbeat.config import apply_overrides, load_preset
from offbeat.errors import UserError, nearest
from offbeat.scores import bootstrap_interval, interquartile_mean

KEYS = {"name", "preset", "seeds", "options", "published"}
"""Keys of one entry."""


@dataclass(frozen=True)
class Planned:
    """One run of a campaign."""

    name: str
    preset: str
    seed: int
    options: tuple[tuple[str, Any], ...]
    folder: Path
    published: tuple[tuple[float, float], ...] = ()

    def command(self) -> list[str]:
        """The ``offbeat`` arguments that start it."""
        given = [text for key, value in self.options for text in (f"--{key}", str(value))]
        return ["train", self.preset, "--seed", str(self.seed), "--out", str(self.folder), *given]

    def total_frames(self) -> int:
        """Its length in environment frames."""
        return apply_overrides(load_preset(self.preset), self.options).total_frames

    def score(self) -> dict[str, Any] | None:
        """The evaluation of its final weights; None while it is not finished."""
        found = evaluations(self.folder) if self.folder.exists() else []
        done = [record for record in found if record["frames"] >= self.total_frames()]
        return done[-1] if done else None


def read_campaign(path: Path) -> tuple[Path, list[Planned]]:
    """The output folder and all runs of a campaign file. Raises ``UserError`` for anything that cannot run."""
    if not path.exists():
        raise UserError(f"no campaign file {path}; it is a TOML file with [[runs]]")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML: {error}") from error
    out = Path(data.get("out", f"results/{path.stem}"))
    runs = list(_planned(data.get("runs", []), out))
    if not runs:
        raise UserError(f"{path} has no [[runs]]")
    for run in runs:
        run.total_frames()
    return out, runs


def _planned(entries: list[dict[str, Any]], out: Path) -> Iterator[Planned]:
    for entry in entries:
        for key in entry:
            if key not in KEYS:
                raise UserError(f"unknown key {key!r} in [[runs]]{nearest(key, KEYS)}")
        if "preset" not in entry:
            raise UserError("an entry of [[runs]] has no preset")
        name = entry.get("name", entry["preset"])
        try:
            published = tuple((float(hours), float(score)) for hours, score in entry.get("published", []))
        except (TypeError, ValueError) as error:
            raise UserError(f"published of {name!r} must be a list of [hours, score]: {error}") from error
        for seed in entry.get("seeds", [0]):
            options = tuple(entry.get("options", {}).items())
            yield Planned(name, entry["preset"], seed, options, out / f"{name}-seed{seed}", published)


def run_campaign(path: Path) -> int:
    """Work off a campaign; returns how many runs failed."""
    out, runs = read_campaign(path)
    failed = 0
    for number, run in enumerate(runs, 1):
        if run.score() is not None:
            print(f"[{number}/{len(runs)}] {run.folder}: finished already", flush=True)
            continue
        print(f"[{number}/{len(runs)}] {run.folder}: {' '.join(_arguments(run))}", flush=True)
        code = subprocess.run([sys.executable, "-m", "offbeat", *_arguments(run)], check=False).returncode
        if code == 0 and run.score() is None:
            print("stopped; start the campaign again to go on", flush=True)
            break
        failed += code != 0
    write_report(out, runs)
    return failed


def _arguments(run: Planned) -> list[str]:
    """Train, or resume if there is a checkpoint; what is left of a run without one is removed."""
    if any((run.folder / "checkpoints").glob("[0-9]*")):
        return ["resume", str(run.folder)]
    shutil.rmtree(run.folder, ignore_errors=True)
    return run.command()


def write_report(out: Path, runs: list[Planned]) -> None:
    """Write campaign.csv and the curves, and print the table of scores: mean over seeds with a bootstrap interval."""
    from offbeat.plot import plot_runs

    out.mkdir(parents=True, exist_ok=True)
    columns = ["name", "preset", "seed", "frames", "mean", "std", "episodes", "policy", "run_seconds"]
    by_name: dict[str, list[tuple[Planned, dict[str, Any]]]] = {}
    with (out / "campaign.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore")
        rows.writeheader()
        for run in runs:
            score = run.score()
            if score is not None:
                rows.writerow(
                    score | {"name": run.name, "preset": run.preset, "seed": run.seed, "run_seconds": score["time"]}
                )
                by_name.setdefault(run.name, []).append((run, score))
    for name, found in by_name.items():
        means = np.array([score["mean"] for _, score in found])
        low, high = bootstrap_interval(means)
        seeds = ", ".join(f"{mean:.4g}" for mean in means)
        print(
            f"{name}: mean {means.mean():.4g} [{low:.4g}, {high:.4g}], IQM {interquartile_mean(means):.4g} "
            f"over {len(means)} seeds ({seeds}) at {found[0][1]['frames']:,} frames"
        )
        published = found[0][0].published
        folders = [run.folder for run, _ in found]
        plot_runs(folders, out / f"{name}.png", "seconds" if published else "frames", published=published)

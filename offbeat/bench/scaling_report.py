"""The results of ``offbeat realtime scaling``: table, CSV, picture, and the line through the logarithms."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offbeat.bench.scaling import Found

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"max": "#0072B2", "mean": "#D55E00", "quantile": "#009E73"}
"""Of the estimators. Source: Okabe and Ito 2008."""
COLUMNS = ("estimator", "inference_frames", "processes", "inaction", "computed", "tried")


@dataclass(frozen=True)
class Row:
    """One search, beside what ceil(T / tau) says."""

    found: Found
    computed: int


@dataclass(frozen=True)
class Fit:
    """log N = slope log(frames) + offset, by least squares."""

    slope: float
    error: float
    """Standard error of the slope; NaN for fewer than three points."""
    offset: float
    points: int


def fit(rows: Sequence[Row]) -> Fit | None:
    """The line through the searches that found something; None for fewer than two."""
    there = [(row.found.frames, row.found.processes) for row in rows if row.found.processes is not None]
    if len({frames for frames, _ in there}) < 2:
        return None
    x, y = np.log(np.array(there, np.float64)).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    offset = float(y.mean() - slope * x.mean())
    residual = float(((y - offset - slope * x) ** 2).sum())
    error = math.sqrt(residual / (len(x) - 2) / spread) if len(x) > 2 else math.nan
    return Fit(slope, error, offset, len(x))


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table."""
    lines = [f"{'estimator':<10}{'inference':>12}{'processes':>11}{'left over':>11}{'ceil(T/tau)':>13}{'tried':>7}"]
    for row in rows:
        found = row.found
        count = f"{found.processes:,}" if found.processes is not None else "none"
        share = f"{found.inaction:.2%}" if found.processes is not None else "too many"
        lines.append(
            f"{found.estimator:<10}{f'{found.frames:,g} fr.':>12}{count:>11}{share:>11}"
            f"{row.computed:>13,}{found.tried:>7}"
        )
    return lines


def fits(rows: Sequence[Row]) -> list[str]:
    """A line for each estimator."""
    lines = []
    for name in dict.fromkeys(row.found.estimator for row in rows):
        line = fit([row for row in rows if row.found.estimator == name])
        if line is not None:
            lines.append(
                f"{name}: log N = {line.slope:.3f} (standard error {line.error:.3f}) x log(frames) "
                f"+ {line.offset:.2f}, {line.points} points"
            )
    return lines


def write_csv(rows: Sequence[Row], path: Path, note: str) -> None:
    """All rows, below a comment that says how they were made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {note}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            found, values = row.found, ["", ""]
            if found.processes is not None:
                values = [str(found.processes), f"{found.inaction:.6f}"]
            writer.writerow([found.estimator, f"{found.frames:g}", *values, row.computed, found.tried])


def draw(rows: Sequence[Row], title: str) -> Figure:
    """N against the mean inference time, both by their logarithms; dashed: ceil(T / tau)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row.found.estimator for row in rows):
        own = [row for row in rows if row.found.estimator == name]
        there = [(row.found.frames, row.found.processes) for row in own if row.found.processes is not None]
        line = fit(own)
        slope = f", slope {line.slope:.3f} ± {line.error:.3f}" if line is not None else ""
        colour = COLOURS.get(name, "#000000")
        axes.plot(*zip(*there, strict=True), "o-", color=colour, markersize=4, label=f"{name}: found{slope}")
        dashed = [(row.found.frames, row.computed) for row in own]
        axes.plot(*zip(*dashed, strict=True), "--", color=colour, linewidth=1, label=f"{name}: ceil(T / frame)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("mean inference time (frames)")
    axes.set_ylabel("inference processes that suffice")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure

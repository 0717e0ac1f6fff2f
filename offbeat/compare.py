"""Runs side by side: what each one is, how far it went and how it scored."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from offbeat.presets import read_toml
from offbeat.runs import CONFIG, find_run, list_runs

COLUMNS = ("run", "agent", "environment", "seed", "frames", "hours", "final", "best", "at frames", "evaluations")


def table(paths: Iterable[str]) -> str:
    """A plain table, one line per run; a folder of runs stands for all runs in it. ``-``: nothing is known."""
    rows = [COLUMNS, *(tuple(row(run).values()) for path in paths for run in _runs(path))]
    widths = [max(len(line[i]) for line in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def row(run: Path) -> dict[str, str]:
    """One run's cells by column. Scores are mean raw returns of evaluations: the last one and the best one."""
    config = read_toml(run / CONFIG)
    scores = [
        (record["mean"], record.get("frames", 0)) for record in evaluations(run) if record.get("mean") is not None
    ]
    frames, seconds = _progress(run)
    best = max(scores, default=None)
    cells = {
        "run": run.name,
        "agent": config["agent"]["name"],
        "environment": config["env"]["id"],
        "seed": str(config["seed"]),
        "frames": "-" if frames is None else f"{frames:,}",
        "hours": "-" if seconds is None else f"{seconds / 3600:.2f}",
        "final": f"{scores[-1][0]:.2f}" if scores else "-",
        "best": f"{best[0]:.2f}" if best else "-",
        "at frames": f"{int(best[1]):,}" if best else "-",
        "evaluations": str(len(scores)),
    }
    return {column: cells[column] for column in COLUMNS}


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluation records of a run's metrics.jsonl, in order; a line cut off by a crash is left out."""
    found = []
    for line in _lines(run / "metrics.jsonl"):
        if '"evaluation"' not in line:
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("kind") == "evaluation":
            found.append(record)
    return found


def _progress(run: Path) -> tuple[int | None, float | None]:
    """Frames and seconds in the last row of progress.csv."""
    rows = list(csv.DictReader(_lines(run / "progress.csv")))
    if not rows or not rows[-1].get("frames") or not rows[-1].get("seconds"):
        return None, None
    return int(float(rows[-1]["frames"])), float(rows[-1]["seconds"])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _runs(path: str) -> list[Path]:
    """The run at ``path``, or all runs in the folder. Raises ``UserError`` where there is none."""
    run = find_run(path)
    return [run] if run == Path(path).expanduser() else list_runs(Path(path).expanduser())

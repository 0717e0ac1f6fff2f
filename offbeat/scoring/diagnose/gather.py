"""A run folder's own records, read for its judges. Nothing is written."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import UserError
from offbeat.run.load import run_config
from offbeat.run.provenance import FILE_NAME
from offbeat.run.records import read_records
from offbeat.scoring.diagnose.record import Record

LEARNS_NOTHING = ("random", "noop")
"""Agents with nothing to diagnose."""


def read_record(run: Path) -> Record:
    """What the run in folder ``run`` has recorded so far.

    UserError where it is no run folder, its agent learns nothing, or it has recorded nothing yet.
    """
    config = run_config(run)
    if config.agent_name in LEARNS_NOTHING:
        raise UserError(f"{run}: agent {config.agent_name!r} learns nothing on purpose; name the run of another agent")
    learner: list[dict[str, Any]] = []
    episodes: list[tuple[float, float]] = []
    evaluations: list[dict[str, Any]] = []
    for line in read_records(run / "metrics.jsonl"):
        kind = line.get("kind")
        if kind == "learner" and line.get("role") == "learner":
            learner.append(line)
        elif kind == "episode" and isinstance(line.get("return"), int | float):
            episodes.append((line["return"], line.get("length", math.nan)))
        elif kind == "evaluation":
            evaluations.append(line)
    progress = _progress(run / "progress.csv")
    if not learner and not episodes and not progress:
        raise UserError(f"{run} holds no records yet: wait for its first period (log.every_s), or name another run")
    returns, lengths = np.array(episodes, np.float64).reshape(-1, 2).T
    return Record(config, learner, returns, lengths, evaluations, progress, _cores(run / FILE_NAME))


def _progress(path: Path) -> list[dict[str, float]]:
    """The rows of progress.csv, without what is empty or torn."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return [_numbers(row) for row in csv.DictReader(file)]


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            found[name] = float(text)
        except (TypeError, ValueError):
            continue
    return found


def _cores(path: Path) -> int:
    """Cores of the machine that the run was begun on, or last resumed on; 0 where that is not known."""
    try:
        written = json.loads(path.read_bytes())
        return int([written, *written.get("resumed", [])][-1]["machine"]["cores"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return 0

"""Learning curves as numbers: what run folders hold, smoothed, grouped by what they have in common but the seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offbeat.config.presets import read_toml
from offbeat.run.records import read_records
from offbeat.scoring.compare import setting

Axis = Literal["frames", "agent_steps", "seconds", "updates"]
AXES = ("frames", "agent_steps", "seconds", "updates")


@dataclass(frozen=True)
class Curve:
    """What one run's files say about its scores. Positions are [n, 4]: a column for each of ``AXES``."""

    run: Path
    config: dict[str, Any]
    """config.toml as it is."""
    frame_skip: int
    episode_at: np.ndarray  # [episodes, 4], where the run stood when each training episode ended
    episode_return: np.ndarray  # [episodes] raw returns
    eval_at: np.ndarray  # [evaluations, 4]
    eval_mean: np.ndarray  # [evaluations]
    eval_interval: np.ndarray  # [evaluations, 2], 95 % interval of the mean
    eval_episodes: int
    """Episodes of the last evaluation; 0 without any."""
    end: np.ndarray  # [4], where the run stands now

    @property
    def environment(self) -> str:
        """Id of the environment."""
        return str(self.config["env"]["id"])

    @property
    def name(self) -> str:
        """The preset, or the agent of a run without one."""
        return str(self.config.get("preset") or self.config["agent"]["name"])

    @property
    def group(self) -> str:
        """The same for runs that differ in their seed and in nothing that should matter to the score."""
        return json.dumps(setting(self.config), sort_keys=True)

    def training(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions [m, 4], mean return of the last ``window`` episodes [m]), of fewer at first."""
        start = max(0, min(window, len(self.episode_return)) // 10 - 1)
        return self.episode_at[start:], running_mean(self.episode_return, window)[start:]


def read_runs(runs: Iterable[Path]) -> list[Curve]:
    """The curves of run folders. Lines that a crash cut off are left out."""
    return [read_run(Path(run)) for run in runs]


def read_run(run: Path) -> Curve:
    """The curve of one run folder."""
    return curve_of(run, read_toml(run / "config.toml"), read_records(run / "metrics.jsonl"))


def curve_of(run: Path, config: dict[str, Any], records: Iterable[dict[str, Any]]) -> Curve:
    """The curve of a run with that ``config``, from the lines of its metrics.jsonl."""
    marks, episodes, evaluations = [(0.0, 0.0, 0.0, 0.0)], [], []
    moves: list[tuple[float, float, float]] = []
    for line in records:
        kind = line.get("kind")
        at = (line["frames"], line["agent_steps"], line["time"])
        if kind == "evaluation":
            if line.get("mean") is not None:
                evaluations.append(line)
            continue
        if not moves:
            moves.append(at if at[0] == 0 else (0.0, 0.0, 0.0))  # starting up took a while
        if at[0] > moves[-1][0]:
            moves.append(at)
        if kind == "learner" and at[0] >= marks[-1][0]:  # of several learners one may tell late
            marks.append((*at, line.get("updates", np.nan)))
        elif kind == "episode":
            episodes.append((line["time"], line["return"]))
    known, moved = np.array(marks, np.float64), np.array(moves or [(0.0, 0.0, 0.0)], np.float64)
    played = np.array(episodes, np.float64).reshape(-1, 2)
    # Counters move on about once a second; between two moves an episode is placed by its time.
    frames, steps = (np.interp(played[:, 0], moved[:, 2], moved[:, i]) for i in (0, 1))
    episode_at = np.column_stack([frames, steps, played[:, 0], np.interp(frames, known[:, 0], known[:, 3])])
    eval_frames = np.array([line["frames"] for line in evaluations], np.float64)
    # An evaluation is drawn where its weights were, not where it ended.
    eval_at = np.column_stack([eval_frames, *(np.interp(eval_frames, known[:, 0], known[:, i]) for i in (1, 2, 3))])
    means = np.array([line["mean"] for line in evaluations], np.float64)
    bounds = [[_number(line.get(key), line["mean"]) for key in ("low", "high")] for line in evaluations]
    taken = moved[-1, 1]
    return Curve(
        run=run,
        config=config,
        frame_skip=round(moved[-1, 0] / taken) if taken else 1,
        episode_at=episode_at,
        episode_return=played[:, 1],
        eval_at=eval_at,
        eval_mean=means,
        eval_interval=np.array(bounds, np.float64).reshape(-1, 2),
        eval_episodes=int(evaluations[-1].get("episodes", 0)) if evaluations else 0,
        end=np.max(np.concatenate([known, episode_at]), axis=0),
    )


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last ``window`` values at each of [n], of fewer where there are not yet so many."""
    if window < 1:
        raise ValueError(f"window={window} must be at least 1")
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - window)
    return (total[last] - total[first]) / (last - first)


def resample(curves: list[tuple[np.ndarray, np.ndarray]], points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Curves of (x, y), each at its own x, at common places: (x [points], y [curves, points]).

    Only the range that all of them cover; empty if there is none.
    """
    start = max(float(x[0]) for x, _ in curves)
    end = min(float(x[-1]) for x, _ in curves)
    if end <= start:
        return np.empty(0), np.empty((len(curves), 0))
    grid = np.linspace(start, end, points)
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def summarise(curve: Curve) -> dict[str, Any]:
    """One run in numbers: how far it went and how it scored. Empty strings where nothing is known.

    ``final`` and ``best`` are mean raw returns of evaluations, ``training`` that of the last 100 training episodes.
    """
    frames, steps, seconds, updates = (float(value) for value in curve.end)
    best = int(np.argmax(curve.eval_mean)) if curve.eval_mean.size else None
    return {
        "run": curve.run.name,
        "preset": curve.config.get("preset", ""),
        "agent": curve.config["agent"]["name"],
        "environment": curve.environment,
        "seed": curve.config["seed"],
        "frames": int(frames),
        "agent_steps": int(steps),
        "updates": int(updates),
        "minutes": round(seconds / 60, 2),
        "frames_per_s": round(frames / seconds, 1) if seconds else "",
        "final": round(float(curve.eval_mean[-1]), 4) if best is not None else "",
        "best": round(float(curve.eval_mean[best]), 4) if best is not None else "",
        "best_at_frames": int(curve.eval_at[best, 0]) if best is not None else "",
        "training": round(float(curve.episode_return[-100:].mean()), 4) if curve.episode_return.size else "",
        "episodes": len(curve.episode_return),
    }


def write_summary_csv(runs: Iterable[Path], out: Path) -> Path:
    """Write one row for each run (see ``summarise``) to ``out`` and return it."""
    rows = [summarise(curve) for curve in read_runs(runs)]
    if not rows:
        raise ValueError("runs is empty; name at least one run folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


def _number(value: float | None, default: float) -> float:
    return default if value is None else float(value)

"""Runs side by side: what each one is, how far it went and how it scored; and what runs of one setting add up to."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offbeat.config.presets import read_toml
from offbeat.envs.atari_scores import human_normalised, scored_game
from offbeat.run.folders import CONFIG, find_run, list_runs
from offbeat.run.records import evaluations
from offbeat.scoring.statistics import (
    Estimate,
    Statistic,
    mean_over_games,
    median_over_games,
    over_runs_and_games,
    stratified_bootstrap,
)

Which = Literal["final", "best"]
"""Which evaluation of a run is its score."""
COLUMNS = (
    "run", "agent", "environment", "seed", "frames", "hours", "final", "best", "at frames", "evaluations", "policy",
)  # fmt: skip
BY_ENVIRONMENT = ("agent", "environment", "runs", "frames", "mean", "IQM", "95 % interval", "human %")
OVER_GAMES = ("agent", "games", "runs", "median %", "mean %", "IQM %")
NOT_PART_OF_A_GROUP = ("seed", "out", "device", "engine", "deterministic", "total_frames", "actor", "inference", "log",
                       "checkpoint", "evaluation", "trace")  # fmt: skip
"""Top-level keys of config.toml in which runs may differ and still be drawn as seeds of one experiment."""
NOT_PART_OF_A_SETTING = ("env.id", "eval_env.id", "learner.device", "learner.threads")
"""Options in which runs of one setting may differ, beside ``NOT_PART_OF_A_GROUP``."""

Score = tuple[str, str, float, int]
"""What a run is called in the tables of groups, its environment, its score and the frames it was trained on."""


@dataclass(frozen=True)
class Result:
    """What one run's files say."""

    name: str
    config: dict[str, Any]
    scores: list[tuple[float, int]]
    """Mean raw return of each evaluation and the frames that its weights were trained on, in order."""
    frames: int | None
    seconds: float | None
    policies: tuple[str, ...] = ()
    """What was played in its evaluations: ``greedy``, ``sampled``, ``noisy``."""

    @property
    def agent(self) -> str:
        """The preset, or the agent of a run without one."""
        return str(self.config.get("preset") or self.config["agent"]["name"])

    @property
    def environment(self) -> str:
        """Where it was scored: the Atari game however its id was written, or the environment's id."""
        env_id = self.config.get("eval_env", self.config["env"])["id"]
        return scored_game(env_id) or str(env_id)

    def score(self, which: Which) -> tuple[float, int]:
        """(score, frames) of the last or of the best evaluation; there must be one."""
        return max(self.scores) if which == "best" else self.scores[-1]

    def setting(self) -> dict[str, str]:
        """Every option that may matter to the score but for the environment's id: dotted name -> value."""
        kept = {key: value for key, value in self.config.items() if key not in NOT_PART_OF_A_GROUP}
        return {name: value for name, value in _flat("", kept).items() if name not in NOT_PART_OF_A_SETTING}


def report(paths: Iterable[str], which: Which = "final") -> str:
    """The table of runs; below it, where they add up to something, the scores by environment and over Atari games.

    Args:
        paths: runs, or folders of runs.
        which: the evaluation that counts as a run's score: its last one or its best one.
    """
    results = read_results(paths)
    parts = [_runs_table(results)]
    scored = [result for result in results if result.scores]
    labels, differences = _labels(scored)
    scores = [(label, result.environment, *result.score(which)) for label, result in zip(labels, scored, strict=True)]
    over_games = _over_games(scores)
    if len(scores) > 1 or over_games:
        parts += [f"Scores of {which} evaluations", _lines_up([BY_ENVIRONMENT, *_by_environment(scores)])]
    if over_games:
        parts += ["Human-normalised scores over Atari games", _lines_up([OVER_GAMES, *over_games])]
    return "\n\n".join([*parts, *(["\n".join(differences)] if differences else [])])


def table(paths: Iterable[str]) -> str:
    """A plain table, one line per run; a folder of runs stands for all runs in it. ``-``: nothing is known."""
    return _runs_table(read_results(paths))


def read_results(paths: Iterable[str]) -> list[Result]:
    """What the runs at ``paths`` say, each once. Raises ``UserError`` where there is none."""
    runs = {run.resolve(): run for path in paths for run in _runs(path)}
    return [_result(run) for run in runs.values()]


def row(result: Result) -> dict[str, str]:
    """One run's cells by column. Scores are mean raw returns of evaluations: the last one and the best one."""
    final, best = (result.score("final"), result.score("best")) if result.scores else (None, None)
    cells = {
        "run": result.name,
        "agent": result.config["agent"]["name"],
        "environment": result.config["env"]["id"],
        "seed": str(result.config["seed"]),
        "frames": "-" if result.frames is None else f"{result.frames:,}",
        "hours": "-" if result.seconds is None else f"{result.seconds / 3600:.2f}",
        "final": f"{final[0]:.2f}" if final else "-",
        "best": f"{best[0]:.2f}" if best else "-",
        "at frames": f"{best[1]:,}" if best else "-",
        "evaluations": str(len(result.scores)),
        "policy": ", ".join(result.policies) or "-",
    }
    return {column: cells[column] for column in COLUMNS}


def _by_environment(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Cells of each setting on each environment, from raw scores over its runs."""
    groups: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for label, environment, score, frames in scores:
        groups.setdefault((label, environment), []).append((score, frames))
    lines: list[tuple[str, ...]] = []
    for (label, environment), found in sorted(groups.items()):
        values, ends = np.array([score for score, _ in found]), [frames for _, frames in found]
        iqm = stratified_bootstrap([values], over_runs_and_games)
        human = human_normalised(environment, float(values.mean()))
        lines.append(
            (
                label,
                environment,
                str(len(found)),
                f"{min(ends):,}" if min(ends) == max(ends) else f"{min(ends):,} to {max(ends):,}",
                f"{values.mean():.2f}",
                f"{iqm.value:.2f}",
                _interval(iqm, 2),
                "-" if human is None else f"{human:.1f}",
            )
        )
    return lines


def _over_games(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Cells of each setting, from human-normalised scores over all games that it was run on."""
    groups: dict[str, dict[str, list[float]]] = {}
    for label, environment, score, _ in scores:
        normalised = human_normalised(environment, score)
        if normalised is not None:
            groups.setdefault(label, {}).setdefault(environment, []).append(normalised)
    lines = []
    for label, games in sorted(groups.items()):
        strata = [np.array(games[game]) for game in sorted(games)]
        aggregates: list[Statistic] = [median_over_games, mean_over_games, over_runs_and_games]
        estimates = [stratified_bootstrap(strata, aggregate) for aggregate in aggregates]
        cells = [f"{estimate.value:.1f} {_interval(estimate, 1)}".removesuffix(" -") for estimate in estimates]
        lines.append((label, str(len(games)), str(sum(map(len, strata))), *cells))
    return lines


def _labels(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """What to call the setting of each result, and lines that say how settings of one preset differ."""
    settings: dict[str, list[dict[str, str]]] = {}
    labels, differences = [], []
    for result in results:
        known = settings.setdefault(result.agent, [])
        if result.setting() not in known:
            known.append(result.setting())
    for result in results:
        known = settings[result.agent]
        number = f" #{known.index(result.setting()) + 1}" if len(known) > 1 else ""
        labels.append(result.agent + number)
    for agent, known in settings.items():
        names = sorted({name for setting in known for name in setting})
        differing = [name for name in names if len({setting.get(name) for setting in known}) > 1]
        lines = [", ".join(f"{name} = {setting.get(name, '-')}" for name in differing) for setting in known]
        differences += [f"{agent} #{place}: {line}" for place, line in enumerate(lines, 1) if differing]
    return labels, differences


def _runs_table(results: Sequence[Result]) -> str:
    return _lines_up([COLUMNS, *(tuple(row(result).values()) for result in results)])


def _flat(name: str, value: Any) -> dict[str, str]:
    """Nested tables and lists of tables as dotted names, everything else as JSON."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, dict):
        return {name: json.dumps(value)}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= _flat(f"{name}.{key}" if name else key, item)
    return found


def _interval(estimate: Estimate, digits: int) -> str:
    return "-" if np.isnan(estimate.low) else f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _lines_up(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns of text, the first row as their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _result(run: Path) -> Result:
    """Read one run."""
    scored = [record for record in evaluations(run) if record.get("mean") is not None]
    scores = [(float(record["mean"]), int(record.get("frames", 0))) for record in scored]
    policies = tuple(dict.fromkeys(record["policy"] for record in scored if "policy" in record))
    return Result(run.name, read_toml(run / CONFIG), scores, *_progress(run), policies)


def _progress(run: Path) -> tuple[int | None, float | None]:
    """Frames and seconds in the last row of progress.csv."""
    path = run / "progress.csv"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for row in reversed(list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))):
        with suppress(KeyError, TypeError, ValueError):  # torn by a crash: the one before
            return int(float(row["frames"])), float(row["seconds"])
    return None, None


def _runs(path: str) -> list[Path]:
    """The run at ``path``, or all runs in the folder. Raises ``UserError`` where there is none."""
    run = find_run(path)
    return [run] if run == Path(path).expanduser() else list_runs(Path(path).expanduser())

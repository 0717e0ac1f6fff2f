"""Runs side by side: what each one is, how far it went and how it scored; and what runs of one setting add up to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from offbeat.config.presets import read_toml
from offbeat.envs.atari_scores import scored_game
from offbeat.run.folders import CONFIG, runs_among
from offbeat.run.records import evaluations
from offbeat.scoring.ranking import Scored, lines_up, over_games, tables

Which = Literal["final", "best"]
"""Which evaluation of a run is its score."""
COLUMNS = (
    "run", "agent", "environment", "seed", "frames", "hours", "final", "best", "at frames", "evaluations", "policy",
)  # fmt: skip
NOT_PART_OF_A_SETTING = (
    "seed", "out", "device", "engine", "deterministic", "total_frames", "env.id", "eval_env.id", "learner.device",
    "learner.threads", "learner.hang_timeout_s", "learner.max_restarts", "learner.mirror_every", "actor.workers",
    "actor.threads", "actor.env_threads", "actor.inference", "actor.precision", "actor.hang_timeout_s",
    "actor.max_restarts", "inference.*", "log.*", "checkpoint.*",
    "evaluation.*", "validation.*", "valid_env.*", "final.*", "final_env.*", "trace.*",
)  # fmt: skip
"""Options in which runs may differ and still be seeds of one setting: where and how long a run ran, how it was scored
and written down."""


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

    def scored(self, which: Which, name: str = "", also: Iterable[str] = ()) -> Scored:
        """Its score for the tables of settings; ``name``: what its setting is called there, else as ``agent``.

        ``also``: options beside those of ``setting`` that make another setting.
        """
        score, frames = self.score(which)
        more = {option: value for option, value in flat_options("", self.config).items() if option in set(also)}
        return Scored(name or self.agent, setting(self.config) | more, self.environment, score, frames)


def setting(config: dict[str, Any]) -> dict[str, str]:
    """Every option of a config.toml that may matter to the score but for the environment's id: dotted name -> JSON."""
    return {
        name: value
        for name, value in flat_options("", config).items()
        if not any(fnmatch(name, pattern) for pattern in NOT_PART_OF_A_SETTING)
    }


def _silent(line: str) -> None:
    """Nobody is told."""


def report(paths: Iterable[str], which: Which = "final", say: Callable[[str], object] = _silent) -> str:
    """The table of runs; below it, where they add up to something, the scores by environment and over Atari games.

    Args:
        paths: runs, or folders of runs.
        which: the evaluation that counts as a run's score: its last one or its best one.
        say: is told of what is passed over, as it is no run.
    """
    results = read_results(paths, say)
    scored = [result.scored(which) for result in results if result.scores]
    parts = [_runs_table(results)]
    if len(scored) > 1 or over_games(scored):
        parts += tables(scored, f"Scores of {which} evaluations")
    return "\n\n".join(parts)


def table(paths: Iterable[str]) -> str:
    """A plain table, one line per run; a folder of runs stands for all runs in it. ``-``: nothing is known."""
    return _runs_table(read_results(paths))


def read_results(paths: Iterable[str], say: Callable[[str], object] = _silent) -> list[Result]:
    """What the runs at ``paths`` say, each once, see ``runs_among``. Raises ``UserError`` where there is none."""
    return [_result(run) for run in runs_among(paths, newest=False, say=say)]


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


def _runs_table(results: Sequence[Result]) -> str:
    return lines_up([COLUMNS, *(tuple(row(result).values()) for result in results)])


def flat_options(name: str, value: Any) -> dict[str, str]:
    """Nested tables and lists of tables below ``name`` as dotted names, everything else as JSON."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, dict):
        return {name: json.dumps(value, default=str)}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= flat_options(f"{name}.{key}" if name else key, item)
    return found


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

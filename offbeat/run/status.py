"""Where a run stands, in the numbers that it shows and writes down."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Status:
    """Where the run stands: the numbers of one row of progress.csv, in its order. None: not known yet."""

    seconds: float = 0.0
    frames: int = 0
    agent_steps: int = 0
    updates: int = 0
    samples: int = 0
    episodes: int = 0
    actor_frames_per_s: float | None = None
    learner_frames_per_s: float | None = None
    return_mean: float | None = None
    return_max: float | None = None
    length_mean: float | None = None
    eval_mean: float | None = None
    eval_std: float | None = None
    policy_lag: float | None = None
    queue: float | None = None
    learner_wait: float | None = None
    actor_wait: float | None = None
    loss: float | None = None
    policy_loss: float | None = None
    baseline_loss: float | None = None
    entropy: float | None = None
    gradient_norm: float | None = None
    learning_rate: float | None = None
    skipped: int = 0
    restarts: int = 0
    valid_mean: float | None = None
    valid_best: float | None = None
    games: dict[str, float | None] = field(default_factory=dict)
    """Of a list of games: ``return_<game>``, the mean return of its last 100 training episodes, and ``eval_<game>``, of
    its last evaluation; columns of their own."""

    def row(self) -> dict[str, Any]:
        """Name -> number, in the order of the columns."""
        numbers = asdict(self)
        return numbers | numbers.pop("games")

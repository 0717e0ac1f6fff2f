"""The evaluator: whole episodes in environments of its own, with a copy of the current weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how the agent is scored during a run."""

    every_frames: int = 1_000_000
    """An evaluation starts each time so many environment frames have been trained on; 0: only at the end."""
    episodes: int = 10
    """Whole episodes per evaluation."""
    envs: int = 10
    """Environments that play them, in parallel; each plays an equal share so that short episodes are not favoured."""
    policy: Literal["greedy", "sampled"] = "sampled"
    """Most probable action, or one drawn from the policy."""
    at_end: bool = True
    """One evaluation of the final weights."""
    threads: int = 1
    """Torch threads of the evaluator."""

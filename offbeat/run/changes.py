"""What may be another when a run goes on, and why everything else may not."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from offbeat.config.run_config import RunConfig, apply_overrides
from offbeat.errors import UserError

MAY_CHANGE = (
    "total_frames", "device", "evaluation.*", "validation.*", "final.*", "final_env.*", "log.*", "checkpoint.*",
    "trace.*", "inference.*",
    "learner.learning_rate", "learner.final_learning_rate", "learner.schedule", "learner.schedule_power",
    "learner.schedule_updates", "learner.threads", "learner.device", "learner.precision", "learner.compile",
    "learner.prefetch", "learner.assemblers", "learner.max_batch_age", "learner.hang_timeout_s",
    "learner.nonfinite_limit",
    "learner.mode", "learner.count", "learner.max_restarts", "learner.mirror_every",
    "actor.threads", "actor.env_threads", "actor.hang_timeout_s", "actor.max_restarts", "actor.weights",
)  # fmt: skip
"""Options that may be given to ``resume``."""
NOT_BIT_FOR_BIT = ("learner.threads", "learner.precision", "learner.compile", "actor.threads", "inference.*")
"""Those among them that change what is computed, by a rounding: a deterministic run keeps them."""
REASONS = {
    "env": "it decides what the saved streams and games hold",
    "delay": "it decides what the saved streams and games hold; 'offbeat eval' takes --delay options",
    "eval_env": "scores before and after would not compare; 'offbeat eval' takes --eval-env options",
    "valid_env": "validations before and after would not compare",
    "agent": "the saved weights are those of this agent",
    "demonstrations": "they decide what the saved batches and samplers hold",
    "replay": "it decides what the saved streams and samplers hold",
    "actor": "the saved games are those of these actors",
    "learner": "it decides what the saved batches, statistics and weights are",
    "realtime": "the saved rows and moments are those of this world's pace",
    "seed": "the saved generators go on from it",
    "engine": "the saved parts are those of this engine's schedule",
    "deterministic": "the saved parts are those of this schedule",
    "out": "a run goes on in its own folder",
    "preset": "it names what the run was started from",
}
"""Section or option -> why it stays."""


def changed(config: RunConfig, options: Iterable[tuple[str, Any]]) -> RunConfig:
    """A run's configuration with ``options`` laid over it. UserError, with the reason, for one that may not change."""
    options = [(name.replace("-", "_"), value) for name, value in options]
    for name, _ in options:
        if not any(fnmatch(name, pattern) for pattern in MAY_CHANGE):
            reason = REASONS.get(name.partition(".")[0], "the run was started with it")
            raise UserError(
                f"{name} cannot be another when a run goes on: {reason}; start a new run from its weights with "
                "'offbeat train PRESET --from RUN'"
            )
        if config.deterministic and any(fnmatch(name, pattern) for pattern in NOT_BIT_FOR_BIT):
            raise UserError(
                f"{name} cannot be another when a deterministic run goes on: it would not go on bit for bit"
            )
    return apply_overrides(config, options)


def check_length(wanted: int, before: int, frames: int, run: Path) -> None:
    """Refuse a new length that a run is past already: it would be written down, and nothing done.

    ``wanted``, ``before``: ``total_frames`` from now on and until now; the same one again is no new length.
    ``frames``: those that the run has.
    """
    if wanted != before and wanted <= frames:
        raise UserError(
            f"total_frames={wanted:,} is no new length of {run}, which has {frames:,} frames already; give more"
        )

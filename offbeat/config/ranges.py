"""The numbers that options may have."""

from __future__ import annotations

import math

RANGES: dict[str, tuple[float, float]] = {
    "total_frames": (1, math.inf),
    "seed": (0, 2**63 - 1),
    "env.frame_skip": (1, math.inf),
    "env.frame_stack": (1, math.inf),
    "env.sticky": (0, 1),
    "env.reward_scale": (-math.inf, math.inf),
    "env.length": (1, math.inf),
    "actor.workers": (0, math.inf),
    "actor.envs_per_worker": (1, math.inf),
    "actor.threads": (1, math.inf),
    "actor.env_threads": (0, math.inf),
    "inference.threads": (1, math.inf),
    "inference.max_batch": (1, math.inf),
    "inference.min_batch": (1, math.inf),
    "learner.count": (1, math.inf),
    "learner.batch_size": (1, math.inf),
    "learner.unroll_length": (1, math.inf),
    "learner.rmsprop_decay": (0, 1),
    "learner.rmsprop_momentum": (0, 1),
    "learner.adam_beta1": (0, 1),
    "learner.adam_beta2": (0, 1),
    "learner.publish_every": (1, math.inf),
    "learner.threads": (0, math.inf),
    "learner.nonfinite_limit": (1, math.inf),
    "replay.samplers.share": (0, 1),
    "replay.samplers.max_pending": (1, math.inf),
    "replay.samplers.batches": (1, math.inf),
    "replay.samplers.uses": (1, math.inf),
    "evaluation.episodes": (1, math.inf),
    "evaluation.envs": (1, math.inf),
    "evaluation.threads": (1, math.inf),
    "validation.episodes": (1, math.inf),
    "validation.envs": (1, math.inf),
    "final.episodes": (1, math.inf),
    "final.envs": (1, math.inf),
    "realtime.jitter": (0, 0.99),
    "realtime.quantile": (0.01, 1),
    "checkpoint.keep": (1, math.inf),
}
"""Least and greatest value of the options that have other bounds than [0, infinity). Agents check their own."""

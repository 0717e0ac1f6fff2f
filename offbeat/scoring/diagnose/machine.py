"""Judges of the machine and of the scores: does the run get what it needs, and is it scored as it plays."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

CROWDED = 2.0
"""Threads for each core from which on they take each other's time. Presets: 1.5 at most, on 2 cores."""
WAITING = 0.97
"""Share of its time that one side waits for the other. Healthy runs: 0.69 at most."""
MISSED = 0.5
"""An evaluator that gives less than this share of the scores that were due is late. Healthy runs: all of them."""
LEAST_DUE = 2
"""Evaluations that must have been due."""
APART = 0.5
"""Scores lie below training by this share of the range of returns, from the 5th to the 95th percentile. A DQN that had
barely begun on MinAtar: 0.3; other healthy runs: never below."""


def evaluator(record: Record) -> Finding | None:
    """Scores that were due and did not come."""
    every, frames = record.config.evaluation.every_frames, record.last("frames")
    due = int(frames // every) if every else 0
    got = len(record.evaluations)
    if due < LEAST_DUE or got >= MISSED * due:
        return None
    return Finding(
        f"{got} of {due} evaluations that were due by {frames:,.0f} frames",
        "all of them",
        "evaluation.every_frames larger, fewer evaluation.episodes; evaluation.longest where episodes do not end",
    )


def greedy(record: Record) -> Finding | None:
    """Evaluations score far below what training gets."""
    last = record.evaluations[-1] if record.evaluations else {}
    now = record.windows[1]
    if not last or not np.isfinite(now) or not isinstance(last.get("mean"), int | float):
        return None
    low, high = np.percentile(record.returns, (5, 95))
    score = max(float(last["mean"]), float(last.get("high") or last["mean"]))
    if now - score <= APART * (high - low) or high <= low:
        return None
    return Finding(
        f"{last.get('policy', 'evaluation')} evaluation {last['mean']:.3g}, training episodes {now:.3g} at the end",
        "evaluations at or above training",
        "evaluation.policy=sampled beside greedy ('offbeat eval RUN --policy sampled'); a memory (agent.core) where "
        "the policy needs its chance; eval_env.* that differ from env.*",
    )


def cores(record: Record) -> Finding | None:
    """More threads than cores."""
    learner, actor, inference = record.config.learner, record.config.actor, record.config.inference
    busy = learner.count * learner.threads + actor.workers * max(actor.threads, actor.env_threads)
    if actor.inference == "server":
        busy += len(inference.device) * inference.threads
    if busy <= CROWDED * record.cores:
        return None
    return Finding(
        f"{busy} threads of learner, actors and inference on {record.cores} cores",
        "up to 1.5 a core",
        "actor.workers, actor.env_threads, actor.threads and learner.threads smaller, or 0: chosen from the cores",
    )


def waits(record: Record) -> Finding | None:
    """One side as good as always waits for the other."""
    options = {
        "learner_wait": "actor.workers, actor.env_threads or actor.envs_per_worker larger; replay.samples_per_insert",
        "actor_wait": "learner.batch_size or the network smaller, learner.device=cuda; replay.samples_per_insert",
    }
    for name, helps in options.items():
        share = record.column(name)
        if len(share) and share.mean() >= WAITING:
            side = name.removesuffix("_wait")
            return Finding(f"the {side} waits {share.mean():.0%} of its time", "up to 70 %", helps)
    return None

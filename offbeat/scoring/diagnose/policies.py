"""Judges of policies: do they try things out, do they move, and how far are actors behind."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

COLLAPSED = 0.02
"""Entropy below this, of the last quarter, is none. Unit: nats. Healthy runs: 0.17 at least. A learning rate of 0.1
(docs/my_run_does_not_learn.md): 0.00."""
FROZEN = 0.01
"""An entropy that has moved less than this since the run began stands still. Unit: nats. Healthy runs: 0.10 at
least. A learning rate of 1e-6: 0.00."""
ONE_ACTION, ROWS_PER_ACTION = 0.99, 100
"""Share of one action from which on there is no other, and rows for each choice that it takes to say so. A T-maze of
length 20 is solved with 0.95; healthy runs had 0.79 at most."""
EPSILON, NEARLY_OVER = 0.25, 0.9
"""Epsilon is high above this once this share of the run is over. Presets end at 0.01 to 0.1 (ladders: 0.4 at most)."""
LEAST_RATIO, MOST_RATIO = 0.7, 1.5
"""Mean importance ratios beyond these come from another policy: its expectation is 1. Healthy runs: 0.999 to 1.001."""
CLIPPED = 0.9
"""Share of clipped ratios that leaves nothing to correct with. Healthy runs: 0 to 0.5."""
LAG = 30.0
"""Actors so many updates behind act with another policy. Healthy runs: 1 to 9."""


def collapsed(record: Record) -> Finding | None:
    """The policy is certain, and does not earn more for it."""
    entropy = record.moving("entropy")
    last = entropy[-max(1, len(entropy) // 4) :]
    if not len(entropy) or (entropy < 0).any() or last.max() >= COLLAPSED:
        return None
    return Finding(
        f"entropy {last.mean():.3f} nats since {len(last)} periods, {entropy[0]:.3f} in the first one",
        "0.17 to 1.0 while learning",
        "learner.learning_rate a tenth, agent.entropy_cost higher, learner.clip_norm smaller",
    )


def frozen(record: Record) -> Finding | None:
    """The policy does not move."""
    entropy = record.moving("entropy")
    if not len(entropy) or np.abs(entropy[-1]) < COLLAPSED:
        return None
    moved = float(entropy.max() - entropy.min())
    if moved >= FROZEN:
        return None
    return Finding(
        f"entropy stays within {moved:.4f} nats of {entropy[0]:.3f} for {record.last('updates'):,.0f} updates",
        "it moves by 0.1 nats and more",
        "learner.learning_rate ten times as much, agent.entropy_cost smaller; rewards and their scale first",
    )


def actions(record: Record) -> Finding | None:
    """Only one action is taken, or some never are."""
    assert record.fresh is not None
    for index, chosen in enumerate(record.fresh.actions):
        legal = chosen[chosen >= 0]
        total = int(legal.sum())
        if len(legal) < 2 or total < ROWS_PER_ACTION * len(legal):
            continue
        never, most = int((legal == 0).sum()), int(legal.max())
        if not never and most < ONE_ACTION * total:
            continue
        part = f" of component {index}" if len(record.fresh.actions) > 1 else ""
        return Finding(
            f"{never} of {len(legal)} actions{part} never chosen in {total:,} rows, the most frequent in "
            f"{most / total:.0%}",
            "each now and then, the most frequent in 35 to 79 %",
            "agent.entropy_cost or agent.epsilon_end higher, learner.learning_rate lower; does the action do anything?",
        )
    return None


def epsilon(record: Record) -> Finding | None:
    """Most actions are random still, or will be until the end."""
    agent, total = record.config.agent, record.config.total_frames
    steps, frames = record.last("agent_steps"), record.last("frames")
    if getattr(agent, "exploration", "linear") != "linear":
        return None
    done = min(1.0, steps / agent.explore)
    now = agent.epsilon_start + (agent.epsilon_end - agent.epsilon_start) * done
    if now <= EPSILON or frames < NEARLY_OVER * total:
        return None
    return Finding(
        f"epsilon {now:.2f} after {steps:,.0f} agent steps, {frames / total:.0%} of the run",
        "0.1 or less by then",
        f"agent.explore={max(1, int(steps / 4))} (it is {agent.explore}), agent.epsilon_end (it is "
        f"{agent.epsilon_end:g}), or more total_frames",
    )


def ratios(record: Record) -> Finding | None:
    """What is trained on was done by another policy than the one that learns."""
    mean, share = record.late("ratio_mean"), record.late("ratio_clipped_share")
    if not record.paced or not len(mean):
        return None
    cut = float(share.mean()) if len(share) else 0.0
    if LEAST_RATIO <= mean.mean() <= MOST_RATIO and cut < CLIPPED:
        return None
    return Finding(
        f"importance ratios of {mean.mean():.2f} in the mean, {cut:.0%} of them clipped",
        "1.00 in the mean, 0 to 50 % clipped",
        "agent.rho_bar and agent.c_bar of 1; learner.learning_rate lower, learner.publish_every=1, fewer "
        "actor.envs_per_worker, larger learner.batch_size",
    )


def lag(record: Record) -> Finding | None:
    """Actors act with weights of long ago."""
    behind = record.late("policy_lag")
    if not record.paced or not len(behind) or behind.mean() < LAG:
        return None
    return Finding(
        f"actors are {behind.mean():.0f} updates behind",
        "1 to 9 without replay",
        "fewer actor.envs_per_worker, larger learner.batch_size, learner.publish_every=1, learner.max_policy_lag",
    )

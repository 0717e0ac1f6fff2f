"""Judges of rewards: are there any, do they arrive as they were meant, and on what scale."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

RARE, RARE_EPISODES = 0.01, 100
"""Returns that all but this share of so many episodes have in common tell next to nothing. In the healthy runs of
docs/my_run_does_not_learn.md at most 0.79 have one in common."""
CUT, LEAST_REWARDS = 0.9, 10
"""Clipping is looked at where it changes this share of the rewards that are not 0, and there are so many of them."""
HIDDEN = 10.0
"""Rewards that clipping makes equal differ by this factor (5th to 95th percentile). With Breakout's 1, 4 and 7, which
are learnt clipped (Mnih et al. 2015), it is 7 at most."""
LARGE_REWARD, LARGE_VALUE = 100.0, 300.0
"""Magnitudes from here on are wild. Values of CartPole's undiscounted rewards come to 100 and are learnt; healthy runs
had rewards up to 1.6 and values up to 12. Rewards of 1000 were not learnt (docs/my_run_does_not_learn.md)."""
SMALL_REWARD = 1e-3
"""The largest reward below this is lost beside initial values of about 0.1. Healthy runs: 0.1 at least."""
VALUES = ("value_mean", "target_mean", "q_mean", "q_max")
"""Names of the learner's numbers that are values."""


def unseen(record: Record) -> Finding | None:
    """Every training episode returned the same, or as good as: nothing tells good from bad."""
    values, counts = np.unique(record.returns, return_counts=True)
    total, most = len(record.returns), int(counts.max())
    rare = total >= RARE_EPISODES and total - most <= RARE * total and not record.learns
    if total - most and not rare:
        return None
    others = f"all but {total - most}" if total - most else "all"
    return Finding(
        f"{others} of {total:,} training episodes returned {values[counts.argmax()]:g}",
        "returns differ by chance already; at most 79 % alike",
        "a reward on the way or starts nearer to the goal; agent.entropy_cost, agent.epsilon_end or "
        "agent.explore_repeat higher; more actor.envs_per_worker",
    )


def clipped(record: Record) -> Finding | None:
    """Raw rewards differ, and what is trained on does not: clipping took what is to be learnt."""
    env, fresh = record.config.env, record.fresh
    assert fresh is not None
    given = np.isfinite(fresh.raw_rewards) & (fresh.raw_rewards != 0)
    raw, trained = fresh.raw_rewards[given], fresh.rewards[given]
    if env.reward_clip == "none" or len(raw) < LEAST_REWARDS:
        return None
    cut = float((np.abs(trained - raw * env.reward_scale) > 1e-6 * np.abs(raw)).mean())
    least, most = (float(np.percentile(np.abs(raw), share)) for share in (5, 95))
    same = len(np.unique(fresh.raw_rewards)) > 1 and len(np.unique(fresh.rewards)) == 1
    if not same and not (cut >= CUT and most >= HIDDEN * least):
        return None
    return Finding(
        f"env.reward_clip={env.reward_clip} changes {cut:.0%} of the rewards, which are {raw.min():g} to "
        f"{raw.max():g} and become {trained.min():g} to {trained.max():g}",
        "few are changed, or those that are differ little (Breakout's 1 to 7)",
        'env.reward_clip="none" with env.reward_scale, or with agent.normalise_reward=true',
    )


def scale(record: Record) -> Finding | None:
    """Rewards or values far from what networks are tuned to."""
    if getattr(record.config.agent, "normalise_reward", False):
        return None
    largest = 0.0 if record.fresh is None else record.fresh.largest
    value = max((float(np.abs(late).max()) for name in VALUES if len(late := record.late(name))), default=0.0)
    if largest < LARGE_REWARD and value < LARGE_VALUE and not 0.0 < largest < SMALL_REWARD:
        return None
    seen = [f"rewards up to {largest:g} are trained on"] if largest else []
    seen += [f"values reach {value:g}"] if value else []
    return Finding(
        ", ".join(seen),
        "rewards of 0.1 to 1, values of about 1 to 10",
        "agent.normalise_reward=true, or env.reward_scale",
    )

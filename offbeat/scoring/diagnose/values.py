"""Judges of values: do they say anything, do their targets hold still, is what they learn from fresh."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

EXPLAINED = 0.02
"""Values that never explained more than this of their targets say nothing. Healthy runs reach 0.74 and more, or, on
Catch, learn all the same: it is asked only where returns do not rise. A learning rate of 1e-6: -2.6."""
BEYOND, BESIDE = 2.0, 1.0
"""Values beyond so many times the largest return, and this, promise what nobody has earned. Healthy runs: 0.9 times."""
GROWTH, LEAST_ERROR = 5.0, 1.0
"""TD errors that grow by this factor from the second quarter of the run to the last, to at least so much, run away.
Healthy runs: 1.1 times."""
LEAST_COPIES = 2
"""A target network that was renewed less often still has initial values. Healthy runs: 3 and more."""
OLD = 200.0
"""Rows this many target networks old are stale. Healthy runs: 2 to 6; dqn-paper's capacity and period come to 13."""
MOST_SAMPLES, LEAST_SAMPLES = 100.0, 0.1
"""Each row trained on so often, or so rarely. Presets ask for 4 to 16, Young & Tian 2019 for 32."""


def explained(record: Record) -> Finding | None:
    """Values explain nothing of what they are trained towards."""
    series = record.moving("explained_variance")
    if not len(series) or series.max() >= EXPLAINED:
        return None
    return Finding(
        f"explained_variance never above {series.max():.2f} in {len(series)} periods",
        "0.7 and more at some time, or returns that rise",
        "the scale of rewards (agent.normalise_reward) and observations (agent.normalise), learner.learning_rate, "
        "agent.baseline_cost",
    )


def earned(record: Record) -> float:
    """The largest magnitude that a value can have, as far as it is known: of returns as trained on, and of rewards for
    ever where episodes are cut by a time limit, behind which values go on. 0: nothing is known.
    """
    env, fresh = record.config.env, record.fresh
    raw = float(np.abs(record.returns).max(initial=0.0))
    most = 0.0 if fresh is None else fresh.largest
    lengths = record.lengths[np.isfinite(record.lengths)]
    bounds = [raw * abs(env.reward_scale)] if env.reward_clip == "none" else [most * float(lengths.max(initial=0.0))]
    discount = getattr(record.config.agent, "discount", 1.0)
    if fresh is not None and fresh.truncated and discount < 1.0:
        bounds.append(most / (1.0 - discount))
    return max(bounds)


def drift(record: Record) -> Finding | None:
    """Values promise more than any episode gave, or their errors grow and grow."""
    names = [name for name in ("q_max", "q_mean", "value_mean") if len(record.late(name))]
    scaled = getattr(record.config.agent, "normalise_reward", False)
    bound = 0.0 if scaled else earned(record)
    value = max((float(np.abs(record.late(name)).max()) for name in names), default=0.0)
    errors = record.series("td_error")
    quarter = len(errors) // 4
    before, now = (errors[quarter : 2 * quarter], errors[-quarter:]) if quarter else (errors[:0], errors[:0])
    grown = bool(quarter) and now.mean() >= max(LEAST_ERROR, GROWTH * float(before.mean()))
    if not grown and not (bound and value > BEYOND * bound + BESIDE):
        return None
    seen = f"values of {value:.3g}, where the largest return was {bound:.3g}" if bound else f"values of {value:.3g}"
    seen += f"; TD errors from {before.mean():.3g} to {now.mean():.3g}" if quarter else ""
    return Finding(
        seen,
        "values below the largest return, TD errors that stay or fall",
        "agent.target_period longer, agent.double=true, learner.learning_rate lower, agent.discount smaller",
    )


def target(record: Record) -> Finding | None:
    """The target network is renewed with every update, or hardly ever was."""
    agent, updates = record.config.agent, record.last("updates")
    period, rate = agent.target_period, getattr(agent, "target_rate", 1.0)
    usual = "some hundred to some thousand updates, and a run of many of them"
    if period == 1 and rate == 1.0 and updates:
        return Finding(
            "the target network is the network itself: it is renewed with every update",
            usual,
            "agent.target_period=250 or more, or agent.target_rate=0.005",
        )
    if not updates or rate < 1.0 or updates // period >= LEAST_COPIES:
        return None
    return Finding(
        f"the target network was renewed {updates // period:.0f} times in {updates:,.0f} updates "
        f"(agent.target_period={period})",
        usual,
        f"agent.target_period={max(1, int(updates) // 20)}, more replay.samples_per_insert, or more total_frames",
    )


def stale(record: Record) -> Finding | None:
    """What is trained on was done long ago."""
    age = record.late("policy_lag")
    period = record.config.agent.target_period / getattr(record.config.agent, "target_rate", 1.0)
    if record.paced or period <= 1 or not len(age) or age.mean() < OLD * period:
        return None
    return Finding(
        f"rows trained on are {age.mean():,.0f} updates old, {age.mean() / period:,.0f} target networks",
        "2 to 13 target networks",
        "replay.capacity smaller, learner.batch_size larger, replay.samples_per_insert smaller",
    )


def samples(record: Record) -> Finding | None:
    """Each row is trained on far too often, or as good as never."""
    rate, least = record.late("samples_per_insert"), max(0, record.config.replay.min_rows)
    if not len(rate) or record.last("agent_steps") < 4 * least:
        return None
    now = float(rate[-1])
    if LEAST_SAMPLES <= now <= MOST_SAMPLES:
        return None
    return Finding(
        f"each row is trained on {now:.3g} times",
        "4 to 32 times",
        "replay.samples_per_insert, which holds learner and actors together; actor.workers, learner.batch_size",
    )

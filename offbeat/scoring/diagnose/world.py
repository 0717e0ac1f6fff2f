"""Judges of the environment, as a run sees it: what it shows, and how its episodes end."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

WILD = 100.0
"""Observations of floats from here on are hard to learn from. Healthy runs: 8 at most."""
ENDLESS = 10_000
"""No episode within so many steps of each environment, or twice its limit. Healthy runs: 500 at most; whole games of
Atari end within 27,000, where they have a limit."""
AT_ONCE = 2
"""Episodes of so few steps are over before anything is done. Healthy runs: 6 at least in the median."""


def numbers(record: Record) -> Finding | None:
    """Observations that are no numbers."""
    assert record.fresh is not None
    odd = {key: seen.odd for key, seen in record.fresh.observations.items() if seen.odd}
    if not odd:
        return None
    return Finding(
        ", ".join(f"{count:,} numbers of {key!r} are not finite" for key, count in odd.items()),
        "none",
        "'offbeat envs check'; the environment is to give finite numbers only",
    )


def constant(record: Record) -> Finding | None:
    """Nothing of what is seen ever changes."""
    assert record.fresh is not None
    seen = record.fresh.observations
    if not seen or any(one.moves for one in seen.values()):
        return None
    return Finding(
        f"all observations were the same in {len(record.fresh.rewards):,} rows",
        "they change with what is done",
        "'offbeat envs check', then 'offbeat record' to look at it; does the environment return a copy?",
    )


def scale(record: Record) -> Finding | None:
    """Observations of floats far from -1 to 1."""
    assert record.fresh is not None
    if getattr(record.config.agent, "normalise", False):
        return None
    for key, seen in record.fresh.observations.items():
        if not seen.scaled and max(abs(seen.low), abs(seen.high)) >= WILD and seen.low <= seen.high:
            return Finding(
                f"observation {key!r} reaches from {seen.low:.4g} to {seen.high:.4g}",
                "about -1 to 1, 8 at most",
                "agent.normalise=true",
            )
    return None


def endless(record: Record) -> Finding | None:
    """Episodes do not end."""
    actor, env = record.config.actor, record.config.env
    each = record.last("agent_steps") / max(1, actor.workers * actor.envs_per_worker)
    limit = max(ENDLESS, 2 * env.max_steps)
    if len(record.returns) or each < limit:
        return None
    return Finding(
        f"no episode has ended in {each:,.0f} steps of each environment",
        "one within 500 steps (games of Atari: 27,000)",
        "env.max_steps; 'offbeat envs check' says how episodes end",
    )


def at_once(record: Record) -> Finding | None:
    """Episodes end as soon as they begin."""
    lengths = record.lengths[np.isfinite(record.lengths)]
    if not len(lengths) or np.median(lengths) > AT_ONCE:
        return None
    return Finding(
        f"half of {len(lengths):,} episodes ended within {np.median(lengths):.0f} step(s)",
        "6 steps and more",
        "'offbeat envs check': is it over when it begins? env.max_steps, env.life_loss",
    )

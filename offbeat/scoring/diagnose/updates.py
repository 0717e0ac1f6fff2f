"""Judges of updates: are steps made, of what size, and by which part of the network."""

from __future__ import annotations

import numpy as np

from offbeat.scoring.diagnose.finding import Finding
from offbeat.scoring.diagnose.record import Record

SILENT, LEAST_UNITS = 0.75, 4
"""Share of a layer's units from which on it passes next to nothing on, of layers with so many at least. Healthy runs:
0.34 at most."""
OVER = 100.0
"""Gradients that are this many times ``learner.clip_norm``, in the median, are all direction. Healthy runs: 18 times
at most. Rewards of 1000 (docs/my_run_does_not_learn.md): 100,000 times."""
VANISHED = 1e-3
"""Gradients below this, in the median, move nothing. Healthy runs: 0.03 at least."""
STILL = 1e-5
"""A learning rate that was never above this learns nothing. Presets: 5e-5 to 3e-3."""


def silent(record: Record) -> Finding | None:
    """Layers most of whose units pass no gradient on what is really seen."""
    assert record.fresh is not None
    wrong = [
        layer for layer in record.fresh.layers if layer.units >= LEAST_UNITS and layer.silent >= SILENT * layer.units
    ]
    if not wrong:
        return None
    told = {"relu": "always 0", "tanh": "always at -1 or 1"}
    seen = [f"{layer.name}: {layer.silent} of {layer.units} {layer.kind} units {told[layer.kind]}" for layer in wrong]
    return Finding(
        f"{', '.join(seen)}, in {len(record.fresh.rewards):,} rows",
        "0 to 34 % of a layer",
        "a new run with learner.learning_rate lower, agent.normalise=true or scaled observations, "
        'agent.centered_filters=true for pictures, agent.init="orthogonal"',
    )


def clipping(record: Record) -> Finding | None:
    """Every gradient is cut to a small part of it."""
    norm, clip = record.late("gradient_norm"), record.config.learner.clip_norm
    if not len(norm) or not clip or np.median(norm) < OVER * clip:
        return None
    return Finding(
        f"gradient norm {np.median(norm):,.4g} in the median, {np.median(norm) / clip:,.0f} times learner.clip_norm",
        "up to 18 times",
        "agent.normalise_reward=true or env.reward_scale; then learner.learning_rate, learner.clip_norm",
    )


def vanishing(record: Record) -> Finding | None:
    """Gradients are as good as 0."""
    norm = record.late("gradient_norm")
    if not len(norm) or np.median(norm) >= VANISHED:
        return None
    return Finding(
        f"gradient norm {np.median(norm):.2g} in the median",
        "0.03 and more",
        "is there any reward? silent units and observations first; then env.reward_scale",
    )


def skipped(record: Record) -> Finding | None:
    """Updates that were undone, because they were not finite."""
    count, updates = record.last("skipped"), record.last("updates")
    if not count:
        return None
    bad = record.last("bad_rewards")
    why = f", {bad:,.0f} of them for rewards that are not finite" if bad else ""
    return Finding(
        f"{count:,.0f} updates skipped beside {updates:,.0f} made{why}",
        "none",
        "'offbeat envs check'; learner.learning_rate lower, env.reward_clip, learner.precision=fp32",
    )


def still(record: Record) -> Finding | None:
    """The learning rate is none. A single line may be the end of a schedule: then it is as configured."""
    rate = record.series("learning_rate")
    if len(rate) == 1:
        rate = np.append(rate, record.config.learner.learning_rate)
    if not len(rate) or rate.max() >= STILL:
        return None
    return Finding(
        f"learning rate never above {rate.max():.2g}",
        "5e-5 to 3e-3",
        "learner.learning_rate; learner.schedule, which falls to learner.final_learning_rate",
    )

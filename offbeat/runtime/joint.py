"""A learner's part in steps that several make together: what it gives of its share, and what the whole batch led to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from offbeat.agents.base import learner_states
from offbeat.replay.mixture import Mixture
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import BatchSource, Reduction
from offbeat.types import Batch, LossOutput, TensorDict, Unroll

LOOK_UP_S = 0.5
"""Longest wait for other learners before this one looks up. Unit: seconds."""


class Trained(Protocol):
    """What was trained on: a batch, or the sums over all its shares."""

    @property
    def rows(self) -> int:
        """Rows."""

    @property
    def env_steps(self) -> int:
        """Environment steps that those took."""


class Sums(NamedTuple):
    """Of all shares."""

    rows: int
    env_steps: int


class Whole(NamedTuple):
    """What a batch led to, all its shares together."""

    total: torch.Tensor
    """The sum of the loss []."""
    divisor: torch.Tensor | float | None
    """What it and the gradient are divided by; None: by nothing."""
    trained: Trained
    """What was trained on."""
    feedback: TensorDict
    """For the samplers: name -> [B], one learner's columns after the other's."""


def alone(batch: Batch, output: LossOutput) -> Whole:
    """A batch that is nobody else's too."""
    return Whole(output.total.detach(), output.count, batch, output.feedback)


def check_joint(agent: Any, mixture: Mixture, learners: int) -> None:
    """Raise ValueError where ``learners`` cannot share the batches of ``mixture`` between them."""
    shown = f"learner.count={learners}"
    if not mixture.splittable:
        kept = ", ".join(f"{place} ({type(mixture.samplers[place]).__name__})" for place in mixture.unsplittable)
        raise ValueError(
            f"{shown}: the first learner deals out where items lie in the streams, but of replay.samplers these "
            f"keep copies of their own or come from elsewhere: {kept}; leave them out, or take learner.count=1"
        )
    if whole := [name for name, state in learner_states(agent).items() if not getattr(state, "shards", False)]:
        raise ValueError(
            f"{shown}: what the agent keeps in the learner as {', '.join(whole)} needs whole batches, of which each "
            "of several learners sees a share; switch that off (agent.normalise=false, agent.normalise_reward=false, "
            "agent.kl_cost=0), or take learner.mode=async or learner.count=1"
        )


class Joint:
    """Of several learners that step together this one's part.

    All have the same weights and statistics and step with the same sum, so that they stay the same bit for bit.

    Args:
        reduction: where they add up.
        optimiser: of this learner.
        leads: whether this is the first, which draws the batches and counts.
    """

    def __init__(self, reduction: Reduction, optimiser: FlatOptimiser, leads: bool) -> None:
        self._reduction, self._optimiser, self._leads = reduction, optimiser, leads
        self._given = False
        self._names: Sequence[str] = ()

    def whole(self, batch: Batch, output: LossOutput) -> Whole | None:
        """What all shares led to, whose gradient lies in the optimiser then; None while others are at theirs.

        Asked again for the same batch it gives its own share only once. ``batch.fresh`` is that of all shares then.
        """
        if not self._given:
            self._give(batch, output)
        together = self._reduction.together(self._names, LOOK_UP_S)
        if together is None:
            return None
        self._given = False
        self._optimiser.set_gradient(together.gradient)
        sums = {name: math.fsum(values) for name, values in together.numbers.items() if name not in ("loss", "count")}
        if isinstance(batch, Unroll):
            batch.fresh = (int(sums["fresh_rows"]), int(sums["fresh_env_steps"]))
        counts = [count for count in together.numbers["count"] if not math.isnan(count)]
        total = torch.tensor(sum(together.numbers["loss"]), dtype=self._optimiser.flat.dtype)
        trained = Sums(int(sums["rows"]), int(sums["env_steps"]))
        return Whole(total, sum(counts) if counts else None, trained, together.found)

    def _give(self, batch: Batch, output: LossOutput) -> None:
        fresh = batch.fresh if isinstance(batch, Unroll) else (0, 0)
        numbers = {
            "loss": float(output.total.detach()),
            "count": math.nan if output.count is None else float(output.count),
            "rows": batch.rows,
            "env_steps": batch.env_steps,
            "fresh_rows": fresh[0],
            "fresh_env_steps": fresh[1],
        }
        self._names = sorted(output.feedback)
        self._reduction.give(self._optimiser.gradient(), numbers, output.feedback)
        self._given = True

    def counted(self, batches: BatchSource) -> tuple[int, int]:
        """Agent steps and frames of the run after this batch, by the first learner's books."""
        if not self._leads:
            return self._reduction.counts()
        steps, frames = batches.steps(), batches.frames()
        self._reduction.count(steps, frames)
        return steps, frames

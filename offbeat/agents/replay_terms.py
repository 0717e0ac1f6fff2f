"""What IMPALA's loss has for replayed rows: CLEAR's cloning, LASER's trust region, entropy on online rows alone.

Sources: Rolnick et al. 2019, "Experience Replay for Continual Learning" (CLEAR); Schmitt, Hessel, Simonyan 2020,
"Off-Policy Actor-Critic with Shared Experience Replay" (LASER); the forms named ``platform`` are those of
``parralplex/elite_buffer_vtrace``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from offbeat.agents.policy_agent import PolicyAgent, PolicyConfig
from offbeat.algorithms import actor_critic, clear, laser
from offbeat.algorithms.divergence import categorical_kl, gaussian_kl
from offbeat.types import TensorDict, Unroll


@dataclass(frozen=True)
class ReplayTermsConfig(PolicyConfig):
    """Options for batches of which a part is replayed. As they are by default there are no such terms."""

    policy_cloning_cost: float = 0.0
    """Weight of the policy-cloning loss, >= 0; 0: there is none. Source: CLEAR has 0.01, the platform 0.05."""
    value_cloning_cost: float = 0.0
    """Weight of the value-cloning loss, >= 0; 0: there is none, else rows keep the value at acting time.
    Source: CLEAR and the platform have 0.005."""
    cloning: Literal["clear", "platform"] = "clear"
    """``clear``: KL(mu || pi) and squared differences of values, of replayed rows (Rolnick et al. 2019). ``platform``:
    KL(pi || mu) and the norm of all differences of values, not squared, of all rows."""
    trust_region: float = 0.0
    """Learn only from rows whose policies are nearer than this; 0: from all. Unit: nats, >= 0. Source: Schmitt et al.
    2020, where it is b, of which the text has no number; the platform has 0.3."""
    trust_region_form: Literal["laser", "platform"] = "laser"
    """``laser``: KL(pi || the implied policy), and a row that is too far counts in no loss and ends corrections of
    those before it (Schmitt et al. 2020). ``platform``: KL(pi || mu); such a row still corrects its own target and the
    one before, and counts in the entropy."""
    entropy_on: Literal["all", "online"] = "all"
    """Which rows the entropy bonus counts: all, or those that are not replayed (Schmitt et al. 2020)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        for name in ("policy_cloning_cost", "value_cloning_cost", "trust_region"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")

    @property
    def keeps_value(self) -> bool:
        """Whether rows need the value at acting time."""
        return self.value_cloning_cost > 0

    @property
    def keeps_policy(self) -> bool:
        """Whether rows need all of the policy that acted."""
        return self.policy_cloning_cost > 0 or self.trust_region > 0


class Rows(NamedTuple):
    """Which rows count where, all [T, B] bool."""

    valid: Tensor  # transitions
    replayed: Tensor  # columns that are, with all their rows
    corrected: Tensor  # V-trace's ``keep``
    traced: Tensor | None  # rows through which a trace passes; None: all that are corrected
    learnt: Tensor  # policy gradient, value loss
    entropy: Tensor
    cloned: Tensor


def choose_rows(config: ReplayTermsConfig, batch: Unroll, distance: Tensor | None) -> Rows:
    """The rows of ``batch`` that count in each term. ``distance`` [T, B]: of the policies; None: no trust region.

    Where a batch does not say what is replayed, nothing is.
    """
    valid = batch.valid[:-1]
    replayed = torch.zeros_like(valid[0]) if batch.replayed is None else batch.replayed
    replayed = replayed.expand_as(valid)
    near = valid if distance is None else valid & (distance < config.trust_region)
    whole = config.trust_region_form == "laser"
    entropy = near if whole else valid
    return Rows(
        valid=valid,
        replayed=replayed,
        corrected=near if whole else valid,
        traced=None if whole or distance is None else near,
        learnt=near,
        entropy=entropy & ~replayed if config.entropy_on == "online" else entropy,
        cloned=near & replayed if config.cloning == "clear" else near,
    )


def policy_distance(
    agent: PolicyAgent, config: ReplayTermsConfig, rho_bar: float, points: Tensor, policy: Tensor, batch: Unroll
) -> Tensor | None:
    """What the trust region measures of ``policy`` [T, B, ...] at each row, [T, B]; None without one.

    ``points`` [S, K]: of continuous actions, see ``laser.gaussian_relevance``.
    """
    if not config.trust_region:
        return None
    policy, behaviour = policy.detach(), agent.behaviour_policy(batch)
    if config.trust_region_form == "platform":
        return agent.compare(categorical_kl, gaussian_kl, policy, behaviour)
    of_gaussians = partial(laser.gaussian_relevance, points=points, rho_bar=rho_bar)
    return agent.compare(partial(laser.relevance, rho_bar=rho_bar), of_gaussians, policy, behaviour)


def cloning_losses(
    agent: PolicyAgent, config: ReplayTermsConfig, policy: Tensor, value: Tensor, batch: Unroll, rows: Rows
) -> TensorDict:
    """Name of the option that is their cost -> loss [], of the cloning losses whose cost is not 0.

    policy: [T, B, ...] as the network gives it; value: [T, B] float.
    """
    losses, published = {}, config.cloning == "clear"
    if config.policy_cloning_cost:
        behaviour = agent.behaviour_policy(batch)
        if published:
            divergence = agent.compare(clear.policy_cloning, gaussian_kl, behaviour, policy)
        else:
            divergence = agent.compare(categorical_kl, gaussian_kl, policy, behaviour)
        losses["policy_cloning_cost"] = actor_critic.reduce(divergence, rows.cloned)
    if config.value_cloning_cost:
        # Before the difference: whatever stands in rows that do not count must not come near a gradient.
        noted = batch.extras["behaviour_value"].masked_fill(~rows.cloned, 0.0)
        if published:
            losses["value_cloning_cost"] = actor_critic.reduce(clear.value_cloning(noted, value), rows.cloned)
        else:
            losses["value_cloning_cost"] = clear.value_cloning_norm(noted, value, rows.cloned)
    return losses


@torch.no_grad()
def replay_statistics(config: ReplayTermsConfig, rows: Rows, distance: Tensor | None) -> TensorDict:
    """For the log: the share of rows that are replayed, and of the trust region which are kept, and their distance."""
    if not (config.keeps_policy or config.keeps_value or config.entropy_on == "online"):
        return {}
    online, replayed = rows.valid & ~rows.replayed, rows.valid & rows.replayed
    found = {"replayed_share": _mean(rows.replayed, rows.valid)}
    if distance is not None:
        for name, part in (("online", online), ("replayed", replayed)):
            found |= {f"kept_share_{name}": _mean(rows.learnt, part), f"distance_{name}": _mean(distance, part)}
        found["kept_share"] = _mean(rows.learnt, rows.valid)
    return found


def _mean(x: Tensor, rows: Tensor) -> Tensor:
    """Mean [] of ``x`` over ``rows``, both [T, B]; 0 where there is none."""
    return actor_critic.reduce(x.float(), rows, "mean")

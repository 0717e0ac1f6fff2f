"""IMPALA: an actor-critic trained off-policy with V-trace; and CLEAR and LASER, which are IMPALA with more terms.

Source: Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures"; loss: section 4.2; networks: figure 3; constants: its table of Atari hyperparameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offbeat.agents.joined_loss import Constants, joined_loss, joins
from offbeat.agents.joined_loss import Rows as PlainRows
from offbeat.agents.policy_agent import Network, NetworkOutput, PolicyAgent
from offbeat.agents.replay_terms import (
    ReplayTermsConfig,
    Rows,
    choose_rows,
    cloning_losses,
    policy_distance,
    replay_statistics,
)
from offbeat.algorithms import actor_critic
from offbeat.algorithms.laser import POINTS, normal_points
from offbeat.algorithms.vtrace import VTrace, vtrace
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import EnvSpec, LossOutput, TensorDict, Unroll

__all__ = ["Agent", "Config", "Network", "NetworkOutput"]


@dataclass(frozen=True)
class Config(ReplayTermsConfig):
    """IMPALA's network and loss. Batches and the optimiser are the learner's."""

    rho_bar: float = 1.0
    """Clip of the importance weights in V-trace's temporal differences, > 0.
    Source: Espeholt et al. 2018, section 4."""
    c_bar: float = 1.0
    """Clip of V-trace's trace coefficients, > 0, at most ``rho_bar``. Source: Espeholt et al. 2018, section 4."""
    pg_rho_bar: float = 1.0
    """Clip of the importance weights of the policy gradient, > 0. Source: the authors' code."""
    lambda_: float = 1.0
    """Decay of V-trace's traces, in [0, 1]. Source: Espeholt et al. 2018, remark 2."""
    reduction: Literal["sum", "mean"] = "sum"
    """Loss summed over all rows of a batch, as in IMPALA, or averaged over them."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if not 0.0 <= self.lambda_ <= 1.0:
            raise ValueError(f"lambda_={self.lambda_} is out of range; allowed: 0 to 1")
        for name in ("rho_bar", "c_bar", "pg_rho_bar"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        if self.c_bar > self.rho_bar:
            raise ValueError(f"c_bar={self.c_bar} is above rho_bar={self.rho_bar}; V-trace needs c_bar <= rho_bar")


class Agent(PolicyAgent):
    """IMPALA bound to one environment spec: see ``offbeat.agents.base.Agent`` for the methods' contract."""

    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """See ``PolicyAgent``."""
        super().__init__(config, spec, device, torso, keeps_value=config.keeps_value, keeps_policy=config.keeps_policy)
        terms = config.keeps_policy or config.keeps_value or config.entropy_on == "online"
        self._three_terms = self.discrete and not self._nvec and not terms
        self._points = torch.zeros(0)  # where the trust region looks at a box of actions
        if config.trust_region and config.trust_region_form == "laser" and not self.discrete:
            size = torch.Size(spec.action.shape).numel()
            self._points = normal_points(POINTS, size).to(self.device)

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """V-trace policy gradient + value loss + entropy bonus (Espeholt et al. 2018, section 4.2) + cloning losses.

        Rows that only carry a final observation count in no term; ``choose_rows`` says what else counts where.
        ``progress`` is not used.
        """
        config = self.config
        output = self.unrolled(batch)
        if (joined := self._joined(output, batch)) is not None:
            return joined
        policy, value = output.policy[:-1], output.value[:-1]
        log_prob, entropy = self._evaluate(policy, batch.action)
        log_ratio = log_prob.detach() - self._behaviour_log_prob(batch)
        distance = policy_distance(self, config, config.rho_bar, self._points, policy, batch)
        rows = choose_rows(config, batch, distance)
        targets = self._targets(log_ratio, value, output.value[-1], batch, rows)
        policy_loss = actor_critic.policy_gradient_loss(log_prob, targets.advantage, rows.learnt)
        baseline_loss = actor_critic.baseline_loss(value, targets.target, rows.learnt)
        entropy_loss = actor_critic.entropy_loss(entropy, rows.entropy)
        total = policy_loss + config.baseline_cost * baseline_loss + config.entropy_cost * entropy_loss
        cloned = cloning_losses(self, config, policy, value, batch, rows)
        for cost, loss in cloned.items():
            total = total + getattr(config, cost) * loss
        count = rows.valid.sum().clamp(min=1) if config.reduction == "mean" else None
        divisor = 1 if count is None else count
        metrics = {
            "policy_loss": policy_loss.detach() / divisor,
            "baseline_loss": baseline_loss.detach() / divisor,
            "entropy_loss": entropy_loss.detach() / divisor,
            **{cost.replace("_cost", "_loss"): loss.detach() / divisor for cost, loss in cloned.items()},
            **_statistics(log_ratio, value.detach(), entropy.detach(), targets, rows.valid, config.rho_bar),
            **replay_statistics(config, rows, distance),
        }
        return LossOutput(total, metrics, count=count)

    def _joined(self, output: NetworkOutput, batch: Unroll) -> LossOutput | None:
        """The loss in few steps where it has no terms but the three of the paper, and ``joins`` says so."""
        config = self.config
        if not self._three_terms or output.policy.dim() != 3:
            return None
        rows = PlainRows(batch.extras["behaviour_logits"], batch.action, batch.reward, batch.discount, batch.valid[:-1])
        if not joins(output.policy, output.value, rows):
            return None
        constants = Constants(*(getattr(config, name) for name in Constants._fields))
        total, metrics = joined_loss(output.policy, output.value, rows, constants)
        if config.reduction == "sum":
            return LossOutput(total, metrics)
        count = rows.valid.sum().clamp(min=1)
        losses = {name: metrics[name] / count for name in ("policy_loss", "baseline_loss", "entropy_loss")}
        return LossOutput(total, metrics | losses, count=count)

    def _targets(self, log_ratio: Tensor, value: Tensor, bootstrap_value: Tensor, batch: Unroll, rows: Rows) -> VTrace:
        """V-trace's, with the traces that the trust region lets pass."""
        config = self.config
        lambda_ = config.lambda_ if rows.traced is None else config.lambda_ * rows.traced.to(value.dtype)
        return vtrace(
            log_ratio,
            batch.discount,
            batch.reward,
            value,
            bootstrap_value,
            config.rho_bar,
            config.c_bar,
            config.pg_rho_bar,
            lambda_,
            keep=rows.corrected,
        )


@torch.no_grad()
def _statistics(
    log_ratio: Tensor, value: Tensor, entropy: Tensor, targets: VTrace, valid: Tensor, rho_bar: float
) -> TensorDict:
    """Means over valid rows, for the log; everything stays on the device."""
    weight = valid.float()
    count = weight.sum().clamp(min=1.0)
    ratio = log_ratio.masked_fill(~valid, 0.0).exp()
    residual = (targets.target - value).masked_fill(~valid, 0.0)
    target_mean = (targets.target * weight).sum() / count
    target_variance = ((targets.target - target_mean).square() * weight).sum() / count
    return {
        "entropy": (entropy * weight).sum() / count,
        "ratio_mean": (ratio * weight).sum() / count,
        "ratio_clipped_share": ((ratio > rho_bar).float() * weight).sum() / count,
        "value_mean": (value * weight).sum() / count,
        "target_mean": target_mean,
        "advantage_mean": targets.advantage.sum() / count,
        "explained_variance": 1.0 - (residual.square().sum() / count) / target_variance.clamp(min=1e-8),
        "valid_share": weight.mean(),
    }

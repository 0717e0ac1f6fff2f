"""IMPACT: PPO's clipped surrogate, asynchronous: a target policy stands between workers and learner.

Source: Luo et al. 2020, "IMPACT: Importance Weighted Asynchronous Architectures with Clipped Target Networks", section
3 and algorithm 1; constants: RLlib's APPO, by the same authors. Batches are used several times over: see
``offbeat.replay.circular``.

Differs from the paper: the target policy is evaluated in the loss, with the target network of now, not stored with the
batch when it comes in, so that a batch which outlives a renewal is judged by the newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from offbeat.agents.base import LearnerState
from offbeat.agents.policy_agent import Network, PolicyAgent, PolicyConfig
from offbeat.agents.target import Every, TargetNetwork
from offbeat.algorithms import actor_critic
from offbeat.algorithms.divergence import categorical_kl, gaussian_kl
from offbeat.algorithms.impact import adapted, ratio, surrogate
from offbeat.algorithms.vtrace import vtrace
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import EnvSpec, LossOutput, TensorDict, Unroll


@dataclass(frozen=True)
class Config(PolicyConfig):
    """IMPACT's network and loss. Batches and the optimiser are the learner's; how often a batch is used the sampler's.

    The loss is the mean over the rows of a batch.
    """

    rho: float = 2.0
    """Clip of the workers' weight against the target, mu / pi_t, > 0. Source: Luo et al. 2020."""
    clip: float = 0.4
    """How far the ratio may leave 1 before nothing is gained by it, epsilon, >= 0. Source: RLlib's APPO; 0.3 for
    discrete actions there."""
    lambda_: float = 1.0
    """Decay of V-trace's traces, in [0, 1]. Source: Espeholt et al. 2018, remark 2; 0.995 for continuous actions."""
    target_period: int = 16
    """Updates from one renewal of the target network to the next, >= 1. Source: Luo et al. 2020: from 1/8 of to 4 times
    the updates in which a full circular buffer is used up, N K; RLlib's APPO: twice that, of 8."""
    target_rate: float = 1.0
    """How far the target network then moves to the learner's, in (0, 1]; 1: it becomes a copy, as published."""
    kl_cost: float = 0.0
    """First weight of KL(pi_t || pi), >= 0; 0: there is no such term. At renewals of the target it is multiplied by 1.5
    where the divergence is above twice ``kl_target``, by 0.5 where it is below half of it. Source: 1 for continuous
    actions, RLlib's APPO."""
    kl_target: float = 0.04
    """Where that divergence should lie. Unit: nats, > 0. Source: RLlib's APPO for continuous actions."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        for name in ("rho", "kl_target"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        for name in ("clip", "kl_cost"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")
        if not 0.0 <= self.lambda_ <= 1.0:
            raise ValueError(f"lambda_={self.lambda_} is out of range; allowed: 0 to 1")
        if self.target_period < 1:
            raise ValueError(f"target_period={self.target_period} is out of range; allowed: 1 or above")
        if not 0.0 < self.target_rate <= 1.0:
            raise ValueError(f"target_rate={self.target_rate} is out of range; allowed: above 0, up to 1")


class AdaptiveCost:
    """The weight of the KL term, kept in the learner: see ``offbeat.agents.base.LearnerState``.

    Args:
        first: its first value, > 0.
        target: where the divergence should lie. Unit: nats.
        period: updates from one adaptation to the next.
        device: where losses are computed.
    """

    exact = False

    def __init__(self, first: float, target: float, period: int, device: torch.device) -> None:
        self.cost = torch.tensor(first, device=device)
        self.seen: Tensor | None = None
        """Mean divergence [] of the newest batch; the loss sets it."""
        self._target, self._every = target, Every(period)

    def trained(self, batch: Any, updates: int) -> None:
        """Adapt where the target network is renewed: right before that the policies are furthest apart."""
        if self._every.passed(updates) and self.seen is not None:
            self.cost = adapted(self.cost, self.seen, self._target)

    def state(self) -> TensorDict:
        """The weight."""
        return {"cost": self.cost.cpu()}

    def load_state(self, state: TensorDict) -> None:
        """Back to a saved weight."""
        self.cost = torch.as_tensor(state["cost"]).to(self.cost)


class Agent(PolicyAgent):
    """IMPACT bound to one environment spec: see ``offbeat.agents.base.Agent`` for the methods' contract."""

    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """See ``PolicyAgent``."""
        super().__init__(config, spec, device, torso)
        self._target = TargetNetwork(self.network, config.target_period, config.target_rate)
        self._kl: AdaptiveCost | None = None
        if config.kl_cost:
            self._kl = AdaptiveCost(config.kl_cost, config.kl_target, config.target_period, self.device)

    @property
    def target(self) -> Network:
        """The target network; a copy of the learner's at first."""
        return self._target.network

    def learner_states(self) -> Mapping[str, LearnerState]:
        """The target network, and the weight of the KL term where there is one."""
        states: dict[str, LearnerState] = {"target": self._target}
        return states if self._kl is None else {"kl": self._kl} | states

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Clipped surrogate + value loss - entropy + KL(pi_t || pi), the mean over transitions (Luo et al. 2020).

        Targets are V-trace's of pi_t, with the learner's own values. ``progress`` is not used.
        """
        config, valid = self.config, batch.valid[:-1]
        batch = replace(batch, inputs=replace(batch.inputs, observation=self.network.cast(batch.inputs.observation)))
        output = self.unrolled(batch)
        with torch.no_grad():
            reference = self._forward(batch.inputs, batch.core_state, network=self.target).policy[:-1]
            target_log_prob, _ = self._evaluate(reference, batch.action)
        policy, value = output.policy[:-1], output.value[:-1]
        log_prob, entropy = self._evaluate(policy, batch.action)
        behaviour = self._behaviour_log_prob(batch)
        targets = vtrace(
            target_log_prob - behaviour, batch.discount, batch.reward, value, output.value[-1],
            lambda_=config.lambda_, keep=valid,
        )  # fmt: skip
        # Before the ratio: whatever stands in rows that are no transitions must not come near an exponential.
        logs = [x.masked_fill(~valid, 0.0) for x in (log_prob, target_log_prob, behaviour)]
        r = ratio(logs[0], logs[1], logs[2], config.rho)
        gain = surrogate(r, targets.advantage, config.clip).sum()  # of rows that are not valid it is 0
        baseline_loss = actor_critic.baseline_loss(value, targets.target, valid)
        entropy_loss = actor_critic.entropy_loss(entropy, valid)
        kl = actor_critic.reduce(self.compare(categorical_kl, gaussian_kl, reference, policy), valid)
        total = -gain + config.baseline_cost * baseline_loss + config.entropy_cost * entropy_loss
        count = valid.sum().clamp(min=1)
        metrics = {
            "policy_loss": -gain.detach() / count,
            "baseline_loss": baseline_loss.detach() / count,
            "entropy_loss": entropy_loss.detach() / count,
            "kl": kl.detach() / count,
            **self._statistics(r, logs, value, targets.target, valid),
        }
        if self._kl is not None:
            total = total + self._kl.cost * kl
            self._kl.seen = metrics["kl"]
            metrics["kl_cost"] = self._kl.cost
        return LossOutput(total, metrics, count=count)

    @torch.no_grad()
    def _statistics(self, r: Tensor, logs: list[Tensor], value: Tensor, target: Tensor, valid: Tensor) -> TensorDict:
        """Means over valid rows, for the log; everything stays on the device. ``logs``: of pi, pi_t and mu."""
        apart = logs[0] - logs[2]
        mean = actor_critic.reduce(apart, valid, "mean")
        variance = actor_critic.reduce((apart - mean).square(), valid, "mean")
        clipped, weight = (r - 1.0).abs() > self.config.clip, logs[2] - logs[1]
        return {
            "log_ratio_mean": mean,
            "log_ratio_variance": variance,
            "ratio_mean": actor_critic.reduce(r, valid, "mean"),
            "clipped_share": actor_critic.reduce(clipped.float(), valid, "mean"),
            "weight_clipped_share": actor_critic.reduce((weight.exp() > self.config.rho).float(), valid, "mean"),
            "value_mean": actor_critic.reduce(value, valid, "mean"),
            "target_mean": actor_critic.reduce(target, valid, "mean"),
            "valid_share": valid.float().mean(),
        }

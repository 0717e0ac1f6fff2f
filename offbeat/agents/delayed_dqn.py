"""DQN for delayed decisions: a critic on what was there when the action took effect, a policy on what had been seen.

The critic learns the values of actions where they took effect, which is as easy as without a delay: rows of a delayed
environment hold that observation too (``delay.privileged``; where they do not, the critic reads what the policy reads,
which is right only without a delay). The policy's network is fitted to the critic's values, so
that it gives their expectation given the old observation and the actions on their way. It alone acts.

Source: the critic that knows more than the policy, Pinto et al. 2018, "Asymmetric Actor Critic"; for delays, Kim et al.
2023, "Belief Projection-Based Reinforcement Learning for Environments with Delayed Feedback", whose critic is on the
undelayed state too. Both are actor-critics; this is the same thought with the values of DQN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from offbeat.agents.dqn import td_loss
from offbeat.agents.q_agent import QAgent, QConfig, legal_actions
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.q_learning import double_q
from offbeat.networks.own_torso import TorsoFactory
from offbeat.networks.q_network import QNetwork
from offbeat.types import EnvSpec, Inputs, ItemSpec, LossOutput, TensorDict, Transition

NOW = "now_"
"""Keys of what there was when the action took effect begin so, see ``offbeat.envs.decisions``."""


@dataclass(frozen=True)
class Config(QConfig):
    """Options of both networks, which are alike, and of the losses."""

    loss: Literal["huber", "square"] = "huber"
    """Of the critic's TD errors: Huber's with threshold 1, or half the square."""
    bootstrap: Literal["policy", "critic"] = "policy"
    """Who chooses the action whose value is bootstrapped on: the delayed policy, as it will really act, or the critic,
    as if there were no delay."""
    fit: float = 1.0
    """Weight of the policy's loss beside the critic's, > 0."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if not self.fit > 0:
            raise ValueError(f"fit={self.fit} is out of range; allowed: above 0")


class WithCritic(QNetwork):
    """The policy's network, which acts, with the critic's beside it."""

    def __init__(self, config: QConfig, spec: EnvSpec, **own: Any) -> None:
        """``own``: as of ``QNetwork``. Where nothing is privileged the critic reads what the policy reads."""
        super().__init__(config, spec, **own)
        there = spec
        if spec.privileged:
            now = {key.removeprefix(NOW): spec.observation[key] for key in spec.privileged}
            there = replace(spec, observation=now, privileged=())
        self.critic = QNetwork(config, there, **own)


class Agent(QAgent):
    """DQN for delayed decisions, bound to one environment spec."""

    config: Config
    network_class = WithCritic

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the networks on ``device``; their initial weights come from torch's global generator.

        ``torso``: the user's own, of both, in place of the one that ``config`` names.
        """
        super().__init__(config, spec, device, ItemSpec("transition", n=config.n_step), torso)

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """``mean_i w_i (L(y_i - C(x_i, a_i)) + fit mean_a L(C(x_i, a) - Q(s_i, a)))`` with
        ``y = R + gamma^n C'(x_n, a*)``: C the critic at what there was (x), Q the policy at what was seen (s), and a*
        the best action of Q at s_n (``bootstrap = "policy"``) or of C at x_n.

        Priorities are the critic's absolute TD errors. ``progress`` is not used.
        """
        network: Any = self.network
        now, legal = self._now(batch.inputs), legal_actions(batch.inputs)
        values = self.forward(network.critic, now, {}).value[0]
        target = batch.reward + batch.discount * self._next_value(batch)
        taken = values.gather(-1, batch.action.long().unsqueeze(-1)).squeeze(-1)
        seen = self.forward(network, batch.inputs, {}).value[0]
        fit = functional.smooth_l1_loss(seen, values.detach(), reduction="none").mean(-1)
        each = td_loss(taken, target, self.config.loss) + self.config.fit * fit
        total = (each if batch.weight is None else each * batch.weight).sum()
        td = (target - taken).detach().abs()
        best = mask_illegal(seen.detach(), None if legal is None else legal[0]).amax(-1)
        metrics = {"q_mean": taken.detach().mean(), "q_max": best.mean(), "td_error": td.mean()}
        metrics["fit_error"] = (seen.detach() - values.detach()).abs().mean()
        return LossOutput(total, metrics, {"priority": td}, len(td))

    @torch.no_grad()
    def _next_value(self, batch: Transition) -> Tensor:
        """The value [B] of what each transition leads to, by the critic's target network."""
        online: Any = self.network
        target: Any = self.target
        now = self._now(batch.next_inputs)
        legal = legal_actions(now)
        legal = None if legal is None else legal[0]
        valued = self.forward(target.critic, now, {}).value[0]
        if self.config.bootstrap == "policy":
            preferred = self.forward(online, batch.next_inputs, {}).value[0]
        else:
            preferred = self.forward(online.critic, now, {}).value[0]
        return double_q(preferred, valued, legal)

    def _now(self, inputs: Inputs) -> Inputs:
        """What there was when the actions took effect, under its own keys; without a delay that is what was seen."""
        if not self.spec.privileged:
            return inputs
        found: TensorDict = {key.removeprefix(NOW): inputs.observation[key] for key in self.spec.privileged}
        return replace(inputs, observation=found)

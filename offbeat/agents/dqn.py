"""DQN with its usual companions: double Q-learning, dueling heads, n-step returns, prioritised or uniform replay.

Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van Hasselt et al. 2016 (double);
Wang et al. 2016 (dueling); Schaul et al. 2016 (priorities).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from offbeat.agents.q_agent import QAgent, QConfig, legal_actions
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.q_learning import double_q
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import EnvSpec, Inputs, ItemSpec, LossOutput, Transition


@dataclass(frozen=True)
class Config(QConfig):
    """DQN's network and loss. Batches and the optimiser are the learner's, replay has its own section."""

    loss: Literal["huber", "square"] = "huber"
    """Of TD errors: Huber's with threshold 1, as clipping the gradient (Mnih et al. 2015), or half the square."""


class Agent(QAgent):
    """DQN bound to one environment spec."""

    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names.
        """
        super().__init__(config, spec, device, ItemSpec("transition", n=config.n_step), torso)

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """``mean_i w_i L(y_i - Q(s_i, a_i))`` with ``y = R + gamma^n Q'(s_n, argmax_a Q(s_n, a))`` (Wang et al. 2016).

        Priorities are the absolute TD errors. ``progress`` is not used.
        """
        target = batch.reward + batch.discount * self._next_value(batch)
        there = self.there(batch.inputs)
        q = self.forward(self.network, there, {}).value[0]
        taken = q.gather(-1, batch.action.long().unsqueeze(-1)).squeeze(-1)
        error = td_loss(taken, target, self.config.loss)
        total = (error if batch.weight is None else error * batch.weight).sum()
        td = (target - taken).detach().abs()
        legal = legal_actions(there)
        best = mask_illegal(q.detach(), None if legal is None else legal[0]).amax(-1)
        metrics = {"q_mean": taken.detach().mean(), "q_max": best.mean(), "td_error": td.mean()}
        return LossOutput(total, metrics, {"priority": td}, len(td))

    @torch.no_grad()
    def _next_value(self, batch: Transition) -> Tensor:
        """The value [B] of the observation that each transition leads to."""
        there = self.there(batch.next_inputs)
        legal = legal_actions(there)
        legal = None if legal is None else legal[0]
        there = self.cast(there)
        valued = self.forward(self.target, there, {}).value[0]
        if not self.config.double:
            return mask_illegal(valued, legal).amax(-1)
        return double_q(self.preferred(batch.next_inputs, there), valued, legal)

    def there(self, inputs: Inputs) -> Inputs:
        """What actions are valued at: here what is seen."""
        return inputs

    def preferred(self, seen: Inputs, there: Inputs) -> Tensor:
        """The online network's values [B, A], of which the best action is bootstrapped on. ``there``: of ``seen``."""
        return self.forward(self.network, there, {}).value[0]


def td_loss(value: Tensor, target: Tensor, kind: Literal["huber", "square"]) -> Tensor:
    """Element by element, differentiable in ``value``: Huber's loss with threshold 1, or half the square."""
    if kind == "huber":
        return functional.smooth_l1_loss(value, target, reduction="none")
    return 0.5 * (target - value).square()

"""DQN for delayed decisions: values as if there were no delay, of what a forward model says will be there.

Rows of a delayed environment hold what was there when the action took effect (``delay.privileged``), so the values of
actions are learnt where they took effect, which is as easy as without a delay. A forward model learns to say what will
be there from the old observation and the actions on their way, and the agent takes the best action of that. Without a
delay nothing is privileged, there is no model, and the agent is DQN.

Source: Delayed-Q, Derman et al. 2021, "Acting in Delayed Environments with Non-Stationary Markov Policies", with a
model that is learnt and gives expectations instead of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from offbeat.agents.dqn import td_loss
from offbeat.agents.q_agent import QAgent, QConfig, legal_actions
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.q_learning import double_q
from offbeat.networks.forward_model import ForwardModel
from offbeat.networks.own_torso import TorsoFactory
from offbeat.networks.q_network import QNetwork, QOutput
from offbeat.types import CoreState, EnvSpec, Inputs, ItemSpec, LossOutput, TensorDict, Transition

NOW = "now_"
"""Keys of what there was when the action took effect begin so, see ``offbeat.envs.decisions``."""
HISTORY = "action_history"
"""The key of the actions before that, see there."""


@dataclass(frozen=True)
class Config(QConfig):
    """Options of the values and of the forward model."""

    loss: Literal["huber", "square"] = "huber"
    """Of TD errors: Huber's with threshold 1, or half the square."""
    bootstrap: Literal["policy", "critic"] = "policy"
    """Who chooses the action whose value is bootstrapped on: the delayed policy, as it will really act, or the values
    of what is really there, as if there were no delay."""
    model_width: int = 512
    """Neurons of the forward model's hidden layer, > 0."""
    model_rows: int = 64
    """Rows of a batch that train the forward model, at most, > 0."""
    model_weight: float = 1.0
    """Weight of the forward model's loss beside that of the values, > 0."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        for name in ("model_width", "model_rows", "model_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")


class ForeseeingNetwork(QNetwork):
    """Values of what is there; asked for those of something seen, it has the forward model say what will be there."""

    def __init__(self, config: Config, spec: EnvSpec, **own: Any) -> None:
        """``own``: as of ``QNetwork``."""
        there = spec
        if spec.privileged:
            now = {key.removeprefix(NOW): spec.observation[key] for key in spec.privileged}
            there = replace(spec, observation=now, privileged=())
        super().__init__(config, there, **own)
        self.model: ForwardModel | None = None
        if spec.privileged:
            if HISTORY not in spec.observation:
                raise ValueError("delayed_dqn needs the actions on their way; set delay.history to the delay or more, "
                                 'and delay.history_until to "publish"')  # fmt: skip
            self.model = ForwardModel(spec.features, there.features, HISTORY, config.model_width)

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
    ) -> QOutput:
        """Action values of T rows from what is seen; arguments as of ``Encoder.encode``."""
        if self.model is not None:
            observation = {**observation, **self.model(observation)}
        return self.there(observation, first, state, last_action, last_reward)

    def there(self, observation: TensorDict, *others: Any) -> QOutput:
        """The same from what is really there, under its own keys."""
        return super().forward(observation, *others)


class Agent(QAgent):
    """DQN for delayed decisions, bound to one environment spec."""

    config: Config
    network_class = ForeseeingNetwork
    network: ForeseeingNetwork

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names.
        """
        super().__init__(config, spec, device, ItemSpec("transition", n=config.n_step), torso)

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """``mean_i w_i L(y_i - Q(x_i, a_i)) + model_weight mean_j M_j`` with ``y = R + gamma^n Q'(x_n, a*)``: x what
        there was, M the forward model's losses, and a* the best action of Q at x_n, or at what the model said of it.

        Priorities are the absolute TD errors. ``progress`` is not used.
        """
        target = batch.reward + batch.discount * self._next_value(batch)
        values = self._values(self.network, batch.inputs)
        taken = values.gather(-1, batch.action.long().unsqueeze(-1)).squeeze(-1)
        error = td_loss(taken, target, self.config.loss)
        total = (error if batch.weight is None else error * batch.weight).sum()
        td = (target - taken).detach().abs()
        legal = legal_actions(self._now(batch.inputs))
        best = mask_illegal(values.detach(), None if legal is None else legal[0]).amax(-1)
        metrics = {"q_mean": taken.detach().mean(), "q_max": best.mean(), "td_error": td.mean()}
        model = self._model_loss(batch.inputs)
        if model is not None:
            total = total + self.config.model_weight * model * len(td)
            metrics["model_error"] = model.detach()
        return LossOutput(total, metrics, {"priority": td}, len(td))

    def _model_loss(self, inputs: Inputs) -> Tensor | None:
        """The forward model's mean loss over some of the rows; None without one."""
        model = self.network.model
        if model is None:
            return None
        rows = self.config.model_rows
        seen = {key: value[:, :rows] for key, value in inputs.observation.items()}
        return model.loss(seen, {key: seen[NOW + key] for key in model.there}).mean()

    @torch.no_grad()
    def _next_value(self, batch: Transition) -> Tensor:
        """The value [B] of what each transition leads to."""
        legal = legal_actions(self._now(batch.next_inputs))
        legal = None if legal is None else legal[0]
        valued = self._values(self.target, batch.next_inputs)
        if not self.config.double:
            return mask_illegal(valued, legal).amax(-1)
        if self.config.bootstrap == "policy":
            return double_q(self.forward(self.network, batch.next_inputs, {}).value[0], valued, legal)
        return double_q(self._values(self.network, batch.next_inputs), valued, legal)

    def _values(self, network: Any, inputs: Inputs) -> Tensor:
        """Action values [B, A] of what was there."""
        now = self._now(inputs)
        return network.there(now.observation, now.first, {}, now.last_action, now.last_reward).value[0]

    def _now(self, inputs: Inputs) -> Inputs:
        """What there was when the actions took effect, under its own keys; without a delay that is what was seen."""
        if not self.spec.privileged:
            return inputs
        found: TensorDict = {key.removeprefix(NOW): inputs.observation[key] for key in self.spec.privileged}
        return replace(inputs, observation=found)

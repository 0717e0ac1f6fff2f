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

from torch import Tensor

from offbeat.agents import dqn
from offbeat.networks.forward_model import ForwardModel
from offbeat.networks.q_network import QNetwork, QOutput
from offbeat.types import EnvSpec, Inputs, LossOutput, TensorDict, Transition

NOW = "now_"
"""Keys of what there was when the action took effect begin so, see ``offbeat.envs.decisions``."""
HISTORY = "action_history"
"""The key of the actions before that, see there."""


@dataclass(frozen=True)
class Config(dqn.Config):
    """Options of the values and of the forward model."""

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

    def forward(self, observation: TensorDict, *others: Any) -> QOutput:
        """As of ``QNetwork``, of what is seen. Without the actions on their way ``observation`` is what is there."""
        if self.model is not None and HISTORY in observation:
            observation = {**observation, **self.model(observation)}
        return super().forward(observation, *others)


class Agent(dqn.Agent):
    """DQN for delayed decisions, bound to one environment spec."""

    config: Config
    network_class = ForeseeingNetwork
    network: ForeseeingNetwork

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """DQN's at what there was, and ``model_weight mean_j M_j``, M the forward model's losses.

        The action that is bootstrapped on is the best of what the model says of the next observation (``bootstrap =
        "policy"``), or of what there was. Priorities are the absolute TD errors. ``progress`` is not used.
        """
        output = super().loss(batch, progress)
        model, rows = self.network.model, self.config.model_rows
        if model is not None:
            seen = {key: value[:, :rows] for key, value in batch.inputs.observation.items()}
            wrong = model.loss(seen, {key: seen[NOW + key] for key in model.there}).mean()
            output.total = output.total + self.config.model_weight * wrong * len(batch.action)
            output.metrics["model_error"] = wrong.detach()
        return output

    def there(self, inputs: Inputs) -> Inputs:
        """What there was when the actions took effect, under its own keys; without a delay that is what was seen."""
        if not self.spec.privileged:
            return inputs
        found: TensorDict = {key.removeprefix(NOW): inputs.observation[key] for key in self.spec.privileged}
        return replace(inputs, observation=found)

    def preferred(self, seen: Inputs, there: Inputs) -> Tensor:
        """Of what the model says of ``seen``, as the agent acts; or of what is really there."""
        return super().preferred(seen, seen if self.config.bootstrap == "policy" else there)

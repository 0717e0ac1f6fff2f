"""An agent from somebody else's package: linear Q-learning on transitions, with the public names of offbeat alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from offbeat.types import ActOutput, ArraySpec, EnvSpec, Inputs, ItemSpec, LossOutput, Transition


@dataclass(frozen=True)
class Config:
    """Its options."""

    discount: float = 0.9
    """Gamma, in [0, 1]."""
    epsilon: float = 0.2
    """Share of random actions, in [0, 1]."""
    n_step: int = 1
    """Steps of the returns, >= 1."""
    bias: bool = True
    """Values have a constant part."""


class Agent:
    """Values are linear in the observation."""

    wants_last = False

    def __init__(self, config: Config, spec: EnvSpec, device: Any = "cpu") -> None:
        self.config, self.spec, self.discount = config, spec, config.discount
        self.items = ItemSpec("transition", n=config.n_step)
        (self._key,) = spec.features
        size = int(np.prod(spec.features[self._key].shape))
        self.network = nn.Linear(size, spec.action.num_actions, config.bias).to(device)

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def row_extras(self) -> dict[str, ArraySpec]:
        """None."""
        return {}

    def exploration(self, stream: np.ndarray, num_streams: int, agent_steps: int) -> np.ndarray:
        """Always the same epsilon."""
        return np.full(len(stream), self.config.epsilon, np.float32)

    def act(self, inputs: Inputs, state: Any, generator: torch.Generator | None, greedy: bool = False) -> ActOutput:
        """Epsilon-greedy."""
        action = self._values(inputs).argmax(-1)
        if inputs.epsilon is not None and not greedy:
            drawn = torch.rand((2, len(action)), generator=generator)
            other = (drawn[1] * self.spec.action.num_actions).long()
            action = torch.where(drawn[0] < inputs.epsilon[0], other, action)
        return ActOutput(action, {}, {})

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """Half the squared TD error."""
        with torch.no_grad():
            target = batch.reward + batch.discount * self._values(batch.next_inputs).amax(-1)
        taken = self._values(batch.inputs).gather(-1, batch.action.long()[:, None]).squeeze(-1)
        error = (target - taken).detach().abs()
        total = 0.5 * (target - taken).square().sum()
        return LossOutput(total, {"td_error": error.mean()}, {"priority": error}, count=len(error))

    def _values(self, inputs: Inputs) -> torch.Tensor:
        values: torch.Tensor = self.network(inputs.observation[self._key][0].flatten(1).float())
        return values

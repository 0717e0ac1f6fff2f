"""One action for ever, 0 or what ``action`` says (or zeros), the first legal one where 0 is forbidden; learns nothing.

Shows what an environment does when left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from offbeat.networks.heads import legal_actions
from offbeat.types import UNROLL, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, Unroll


@dataclass(frozen=True)
class Config:
    """The no-op agent's only constant."""

    discount: float = 0.99
    """Gamma that actors write discounts with, in [0, 1]. No action depends on it."""
    action: int = 0
    """The action that does nothing, >= 0, where actions are numbered and there is no mask: 6 on the Game Boy. Source:
    the original's ``--default_action``."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        if self.action < 0:
            raise ValueError(f"action={self.action} is out of range; allowed: 0 or above")


class Agent:
    """Always takes one action (the first legal one where the environment has a mask), or the zero vector."""

    def __init__(self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu") -> None:
        """One unused weight stands in for a network. ValueError for an action that the environment has not."""
        choices = spec.action.choices
        if config.action and not (choices and config.action < min(choices)):
            allowed = f"0 to {min(choices) - 1}" if choices else "0, as its actions are not numbered"
            raise ValueError(f"agent.action={config.action} is no action of {spec.id}; allowed: {allowed}")
        self.config = config
        self.spec = spec
        self.network: nn.Module = nn.ParameterDict({"unused": nn.Parameter(torch.zeros(1))}).to(device)
        self.discount = config.discount
        self.wants_last, self.items = False, UNROLL

    def initial_state(self, batch: int) -> CoreState:
        """There is none."""
        return {}

    def row_extras(self) -> dict[str, ArraySpec]:
        """There are none."""
        return {}

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """The same action, zeros, or the first legal actions."""
        choices, legal = self.spec.action.choices, legal_actions(inputs.observation)
        if choices and legal is not None:
            first = [part.int().argmax(-1) for part in legal[0].split(choices, -1)]
            return ActOutput(first[0] if self.spec.action.kind == "discrete" else torch.stack(first, -1), {}, {})
        dtype = torch.int64 if choices else torch.float32
        shape = (inputs.shape[1], *self.spec.action.array.shape)
        return ActOutput(torch.full(shape, self.config.action, dtype=dtype, device=inputs.first.device), {}, {})

    def policy_name(self, greedy: bool) -> str:
        """Nothing is drawn."""
        return "greedy"

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Always 0, with zero gradients, so that every learner can run it."""
        loss = self.network.get_parameter("unused").sum() * 0.0
        return LossOutput(loss, {})

"""Uniformly random legal actions; learns nothing. A floor that any learner must beat, a load for runtime tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offbeat.algorithms.legal import draw_legal
from offbeat.networks.heads import legal_actions
from offbeat.types import UNROLL, ActionSpec, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, Unroll


@dataclass(frozen=True)
class Config:
    """The random agent's only constant."""

    discount: float = 0.99
    """Gamma that actors write discounts with, in [0, 1]. No action depends on it."""


class Agent:
    """Draws actions uniformly: from the legal choices, or from the box (unbounded components: standard normal)."""

    def __init__(self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu") -> None:
        """One unused weight stands in for a network."""
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

    @torch.no_grad()
    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Random actions, also if ``greedy``; same generator state, same actions."""
        device, legal = inputs.first.device, legal_actions(inputs.observation)
        choices = self.spec.action.choices
        if legal is not None and choices:
            uniform = torch.rand(len(choices), inputs.shape[1], generator=generator, device=device)
            drawn = [draw_legal(part, draws) for part, draws in zip(legal[0].split(choices, -1), uniform, strict=True)]
            return ActOutput(drawn[0] if self.spec.action.kind == "discrete" else torch.stack(drawn, -1), {}, {})
        return ActOutput(_draw(self.spec.action, inputs.shape[1], device, generator), {}, {})

    def policy_name(self, greedy: bool) -> str:
        """Actions are always drawn."""
        return "sampled"

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Always 0, with zero gradients, so that every learner can run it."""
        loss = self.network.get_parameter("unused").sum() * 0.0
        return LossOutput(loss, {})


def _draw(action: ActionSpec, batch: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    if action.kind == "discrete":
        return torch.randint(action.num_actions, (batch,), generator=generator, device=device)
    if action.kind == "multi_discrete":
        drawn = [torch.randint(count, (batch,), generator=generator, device=device) for count in action.nvec]
        return torch.stack(drawn, -1)
    shape = (batch, *action.shape)
    bounded = bool(action.low) and all(map(math.isfinite, (*action.low, *action.high)))
    if not bounded:
        return torch.randn(shape, generator=generator, device=device)
    low, high = (torch.tensor(b, device=device, dtype=torch.float32) for b in (action.low, action.high))
    if low.numel() > 1:
        low, high = low.reshape(action.shape), high.reshape(action.shape)
    return low + (high - low) * torch.rand(shape, generator=generator, device=device)

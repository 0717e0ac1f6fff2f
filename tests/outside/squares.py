"""A torso from somebody else's package: the squares of what is seen, through one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.types import ArraySpec, TensorDict


class Squares(nn.Module):
    """Observations, all joined, and their squares, to twelve features."""

    output_size = 12

    def __init__(self, specs: dict[str, ArraySpec]) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * sum(spec.zeros().size for spec in specs.values()), self.output_size)

    def forward(self, observation: TensorDict) -> Tensor:
        """Observations, key -> [T, B, ...], to features [T, B, 12]."""
        seen = torch.cat([value.float().flatten(2) for value in observation.values()], -1)
        return torch.tanh(self.layer(torch.cat([seen, seen.square()], -1)))

"""Weights in bfloat16 for acting: rounded when they change, not in every forward as autocast does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.networks.heads import Float32Linear


class RoundedWeights:
    """Gives the layers of ``network`` that autocast computes in bfloat16 weights in bfloat16, and keeps them current.

    Afterwards ``network`` can act under autocast, but neither train nor be saved. ``refresh`` copies what the float32
    weights are now; those are the memory that the parameters had before.

    Concerns convolutions and linear layers except ``Float32Linear``. In ``networks.torsos.ImageConv`` the weights are
    scaled after they were rounded, so its results may differ from the learner's by another rounding.
    """

    def __init__(self, network: nn.Module) -> None:
        self._exact: list[Tensor] = []
        self._rounded: list[Tensor] = []
        for layer in network.modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear) or isinstance(layer, Float32Linear):
                continue
            for name, parameter in list(layer.named_parameters(recurse=False)):
                exact = parameter.detach()
                layout = torch.channels_last if exact.ndim == 4 else torch.contiguous_format
                rounded = torch.empty_like(exact, dtype=torch.bfloat16, memory_format=layout)
                setattr(layer, name, nn.Parameter(rounded, requires_grad=False))
                self._exact.append(exact)
                self._rounded.append(rounded)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the float32 weights."""
        torch._foreach_copy_(self._rounded, self._exact)

"""Weights in bfloat16 for acting: rounded when they change, not in every forward as autocast does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.networks.convolutions import BlockConv
from offbeat.networks.heads import Float32Linear


class RoundedWeights:
    """Gives the layers of ``network`` that autocast computes in bfloat16 weights in bfloat16, and keeps them current.

    Afterwards ``network`` can act under autocast, but neither train nor be saved. ``refresh`` copies what the float32
    weights are now; those are the memory that the parameters had before.

    Concerns convolutions and linear layers except ``Float32Linear``. Convolutions over blocks keep their float32
    weights and get the blocks' weights prepared.
    """

    def __init__(self, network: nn.Module) -> None:
        self._exact: list[Tensor] = []
        self._rounded: list[Tensor] = []
        self._over_blocks: list[BlockConv] = []
        for layer in network.modules():
            if isinstance(layer, BlockConv) and layer.stride[0] > 1:
                self._over_blocks.append(layer)
            elif isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, Float32Linear):
                self._round(layer)
        self.refresh()

    def _round(self, layer: nn.Module) -> None:
        for name, parameter in list(layer.named_parameters(recurse=False)):
            exact = parameter.detach()
            layout = torch.channels_last if exact.ndim == 4 else torch.contiguous_format
            rounded = torch.empty_like(exact, dtype=torch.bfloat16, memory_format=layout)
            setattr(layer, name, nn.Parameter(rounded, requires_grad=False))
            self._exact.append(exact)
            self._rounded.append(rounded)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the float32 weights."""
        for rounded, exact in zip(self._rounded, self._exact, strict=True):
            rounded.copy_(exact)
        for layer in self._over_blocks:
            layer.prepared = layer.block_weight(torch.bfloat16).contiguous(memory_format=torch.channels_last)

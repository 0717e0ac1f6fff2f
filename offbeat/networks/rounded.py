"""Weights in bfloat16: rounded when they change, not in every forward as autocast does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.networks.heads import Float32Linear
from offbeat.networks.torsos import ImageConv


class RoundedWeights:
    """Gives the layers of ``network`` that autocast computes in bfloat16 weights in bfloat16, and keeps them current.

    Concerns convolutions and linear layers except ``Float32Linear``. The memory that the parameters had before holds
    the exact weights: save and change those, and call ``refresh``.

    For acting (``train=False``) the new weights have no gradient. In ``ImageConv`` they are scaled after they were
    rounded, so results may differ from the learner's by another rounding. For training ``ImageConv`` stays as it is,
    and results are those of autocast: a gradient in bfloat16 reaches the optimiser as it is, not cast.

    Attributes:
        exact: the float32 weights of each new parameter.
    """

    def __init__(self, network: nn.Module, train: bool = False) -> None:
        self.exact: dict[nn.Parameter, Tensor] = {}
        for layer in network.modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear) or isinstance(layer, Float32Linear):
                continue
            if train and isinstance(layer, ImageConv):
                continue
            for name, parameter in list(layer.named_parameters(recurse=False)):
                exact = parameter.detach()
                # The optimiser goes over weights and gradients in the order of the exact ones.
                layout = torch.channels_last if exact.ndim == 4 and not train else torch.contiguous_format
                rounded = torch.empty_like(exact, dtype=torch.bfloat16, memory_format=layout)
                parameter = nn.Parameter(rounded, requires_grad=train)
                setattr(layer, name, parameter)
                self.exact[parameter] = exact
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the float32 weights."""
        if self.exact:
            torch._foreach_copy_(list(self.exact), list(self.exact.values()))

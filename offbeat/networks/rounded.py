"""Weights in bfloat16: rounded when they change, not in every forward as autocast does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.networks.flat import flat_tensors
from offbeat.networks.heads import Float32Linear
from offbeat.networks.torsos import ImageConv


class RoundedWeights:
    """Gives the layers of ``network`` that autocast computes in bfloat16 weights in bfloat16, and keeps them current.

    Concerns convolutions and linear layers except ``Float32Linear``. The memory that the parameters had before holds
    the exact weights: save and change those, and call ``refresh``.

    For acting (``train=False``) the new weights have no gradient. In ``ImageConv`` they are scaled after they were
    rounded, so results may differ from the learner's by another rounding. For training ``ImageConv`` stays as it is,
    and results are those of autocast: a gradient in bfloat16 reaches the optimiser as it is, not cast.

    Args:
        network: flat already (see ``flatten_parameters``).
        train: whether the new weights are trained.

    Attributes:
        exact: the float32 weights of each new parameter.
    """

    def __init__(self, network: nn.Module, train: bool = False) -> None:
        self.exact: dict[nn.Parameter, Tensor] = {}
        places = {name: tensor.detach() for name, tensor in flat_tensors(network)}
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
        self._targets = [tensor.detach() for _, tensor in flat_tensors(network)]
        self._places = [(exact.storage_offset(), exact.shape) for exact in places.values()]
        self.refresh()

    def copy_(self, flat: Tensor) -> None:
        """Take over weights from another flat vector [P] at once; the network's own keeps what it had.

        That is one pass instead of two: the exact weights of rounded layers are not written down.
        """
        sources = [flat[start : start + shape.numel()].view(shape) for start, shape in self._places]
        torch._foreach_copy_(self._targets, sources)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the float32 weights."""
        if self.exact:
            torch._foreach_copy_(list(self.exact), list(self.exact.values()))

"""Weights in bfloat16: rounded when they change, not in every forward as autocast does."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from offbeat.errors import failure
from offbeat.networks.flat import flat_tensors
from offbeat.networks.heads import Float32Linear
from offbeat.networks.image_conv import ImageConv


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
        self._places = [(tensor.storage_offset(), tensor.shape) for _, tensor in flat_tensors(network)]
        layers = [layer for layer in network.modules() if _rounds(layer, train)]
        others = (layer for layer in network.modules() if layer not in layers)
        staying = {parameter for layer in others for parameter in layer.parameters(recurse=False)}
        made: dict[nn.Parameter, nn.Parameter] = {}  # weights that layers share are still shared afterwards
        for layer in layers:
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if parameter in staying:
                    continue
                if parameter not in made:
                    made[parameter] = _empty(parameter, train)
                    self.exact[made[parameter]] = parameter.detach()
                setattr(layer, name, made[parameter])
        self._targets = [tensor.detach() for _, tensor in flat_tensors(network)]
        self.refresh()

    def copy_(self, flat: Tensor) -> None:
        """Take over weights from another flat vector [P] at once; the network's own keeps what it had.

        That is one pass instead of two: the exact weights of rounded layers are not written down.
        """
        sources = [flat[start : start + shape.numel()].view(shape) for start, shape in self._places]
        _copy_all(self._targets, sources)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the float32 weights."""
        _copy_all([*self.exact], [*self.exact.values()])


def _copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Each of ``sources`` into its target, cast on the way; in one call where torch has that."""
    if targets and not missing(targets[0].device):
        torch._foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


@functools.cache
def missing(device: torch.device) -> str:
    """Why many tensors cannot be copied in one call, which torch does not promise to keep; empty if they can."""

    def agrees() -> bool:
        sources = [torch.linspace(-1, 1, 6, device=device).view(2, 3), torch.linspace(2, 3, 4, device=device)]
        targets = [torch.zeros_like(sources[0], dtype=torch.bfloat16), torch.zeros_like(sources[1])]
        torch._foreach_copy_(targets, sources)
        return all(torch.equal(target, source.to(target.dtype)) for target, source in zip(targets, sources))

    return failure(agrees)


def _rounds(layer: nn.Module, train: bool) -> bool:
    """Whether autocast computes ``layer`` in bfloat16 with weights that may be rounded beforehand."""
    if not isinstance(layer, nn.Conv2d | nn.Linear) or isinstance(layer, Float32Linear):
        return False
    return not (train and isinstance(layer, ImageConv))


def _empty(parameter: nn.Parameter, train: bool) -> nn.Parameter:
    """A place for ``parameter`` in bfloat16."""
    # The optimiser goes over weights and gradients in the order of the exact ones.
    layout = torch.channels_last if parameter.ndim == 4 and not train else torch.contiguous_format
    place = torch.empty_like(parameter, dtype=torch.bfloat16, memory_format=layout)
    return nn.Parameter(place, requires_grad=train and parameter.requires_grad)

"""Convolutions of one or two channels on a processor, where oneDNN takes several times as long as torch itself.

oneDNN works on blocks of 16 channels, of which all but one or two are then padding. Measured: 32 pictures of 40 x 40
pixels in float32, one channel in and one out, forward and backward on one core: 3.6 ms by oneDNN, 0.5 ms by torch.

Torch does not promise to keep the operation used here: it is tried once, and where it fails ``is_narrow`` says no.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.errors import failure

MOST = 2
"""Channels, in and out; with 4 both take as long, with 8 torch's own code takes longer."""


def is_narrow(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether ``layer`` is to be computed by ``narrow_conv`` for these images."""
    if max(layer.in_channels, layer.out_channels) > MOST or layer.groups != 1 or layer.dilation != (1, 1):
        return False
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    same = x.dtype == layer.weight.dtype and x.dtype in (torch.float32, torch.float64)
    return same and isinstance(layer.padding, tuple) and layer.padding_mode == "zeros" and not missing()


def narrow_conv(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``layer`` makes of x [B, C, H, W] with ``weight`` and ``bias``; only where ``is_narrow`` says so."""
    size = list(layer.kernel_size)
    found: Tensor = torch.ops.aten._slow_conv2d_forward(x, weight, size, bias, layer.stride, layer.padding)
    return found


@functools.cache
def missing() -> str:
    """Why this torch cannot compute them so; empty if it can."""
    return failure(_agrees)


def _agrees() -> bool:
    """Whether a small layer, and the way back through it, give what torch's public function gives."""
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        layer = nn.Conv2d(2, 1, 3, 2, 1).double()
        layer.weight.data.copy_((torch.arange(18.0).view(1, 2, 3, 3) * 5 % 7 - 3) / 4)
        x = ((torch.arange(60.0, dtype=torch.float64).view(1, 2, 6, 5) * 3 % 11 - 5) / 4).requires_grad_()
        results = []
        for y in (
            narrow_conv(layer, x, layer.weight, layer.bias),
            functional.conv2d(x, layer.weight, layer.bias, 2, 1),
        ):
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    return all(torch.allclose(ours, plain) for ours, plain in zip(*results, strict=True))

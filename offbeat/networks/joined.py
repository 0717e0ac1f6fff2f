"""Convolutions, the fully connected layer behind them and all their ReLUs as one step, in bfloat16 on a processor.

oneDNN applies a ReLU as it writes, where torch would go over the output once more. As one step of autograd, with
the way back written out, little but arithmetic is left, and rows that are not trained on need no second forward.
Results are those of the layers one by one under autocast, bit by bit. (ReLUs that overwrite the gradient on the way
back, which saves an array, made an update of 160 rows 2 ms slower, not faster.)

Torch does not promise to keep the operations used here: they are tried once, and where they fail ``joins`` says no.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.errors import failure

Geometry = tuple[tuple[list[int], list[int]], ...]
"""Stride and padding of each convolution."""


def joins(device: torch.device) -> bool:
    """Whether layers on ``device`` are now computed in bfloat16 by oneDNN, can be joined, and nobody traces them."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        return False
    rounded = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return rounded and onednn_bf16() and not missing()


@functools.cache
def onednn_bf16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor. On older ones (AVX2) it raises, and torch imitates it."""
    try:
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # torch does not promise to keep this question
        return False


@functools.cache
def missing() -> str:
    """Why this torch cannot join layers; empty if it can."""
    return failure(_agrees)


def _agrees() -> bool:
    """Whether a small convolution and a linear layer behind it, joined, give what they give one by one."""

    def spread(*shape: int) -> Tensor:  # multiples of 1/4: sums are exact, in any order
        values = torch.arange(math.prod(shape)) * 5 % 7 - 3
        return (values / 4).view(shape).to(torch.bfloat16)

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        x, factor = spread(3, 2, 6, 5), spread(3, 5)
        weights = [spread(*shape).requires_grad_() for shape in ((4, 2, 3, 3), (4,), (5, 36), (5,))]
        ours: Tensor = _Joined.apply(x, 2, (([2, 2], [1, 1]),), *weights)
        image = functional.relu(functional.conv2d(x, weights[0], weights[1], 2, 1))
        plain = functional.relu(functional.linear(channels_last_vector(image), weights[2], weights[3]))
        found = [ours, *torch.autograd.grad((ours * factor).sum(), weights)]
        known = [plain, *torch.autograd.grad((plain * factor)[:2].sum(), weights)]
    return all(torch.allclose(a, b, rtol=0.02, atol=0.02) for a, b in zip(found, known, strict=True))


def joined(
    x: Tensor,
    convolutions: list[tuple[nn.Conv2d, Tensor]],
    linear: nn.Linear | None = None,
    trained: int | None = None,
) -> Tensor:
    """ReLU of each layer in turn; only where ``joins`` says so.

    Args:
        x: [N, C, H, W].
        convolutions: each with the weights to use.
        linear: over the last image, flattened with its channels last.
        trained: gradients come from the first so many of the N rows only; None: from all. None reach ``x``.

    Returns:
        [N, C', H', W'], or [N, D] with ``linear``; bfloat16.
    """
    bf16 = torch.bfloat16
    geometry: Geometry = tuple((list(layer.stride), list(layer.padding)) for layer, _ in convolutions)  # type: ignore[arg-type]
    weights: list[Tensor] = []
    for layer, weight in convolutions:
        assert layer.bias is not None
        weights += [weight.to(bf16), layer.bias.to(bf16)]
    if linear is not None:
        weights += [linear.weight.to(bf16), linear.bias.to(bf16)]
    x = x.to(bf16)
    if not torch.is_grad_enabled():
        return _outputs(x, geometry, weights)[-1]
    output: Tensor = _Joined.apply(x, len(x) if trained is None else trained, geometry, *weights)
    return output


def _outputs(x: Tensor, geometry: Geometry, weights: list[Tensor]) -> list[Tensor]:
    """What each layer gives."""
    outputs = []
    for i, (stride, padding) in enumerate(geometry):
        weight, bias = weights[2 * i : 2 * i + 2]
        x = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, [1, 1], 1, "relu", [], None)
        outputs.append(x)
    if len(weights) > 2 * len(geometry):
        weight, bias = weights[-2:]
        outputs.append(torch.ops.mkldnn._linear_pointwise(channels_last_vector(x), weight, bias, "relu", [], None))
    return outputs


def channels_last_vector(x: Tensor) -> Tensor:
    """Images [N, C, H, W] as [N, H W C]: channels last in the vector too, so that neither it nor its gradient changes
    places in memory.
    """
    return x.permute(0, 2, 3, 1).flatten(1)


class _Joined(torch.autograd.Function):
    """``_outputs`` with the way back through the first ``trained`` rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, trained: int, geometry: Geometry, *weights: Tensor) -> Tensor:
        outputs = _outputs(x, geometry, list(weights))
        ctx.save_for_backward(*(tensor[:trained] for tensor in (x, *outputs)), *weights)
        ctx.geometry = geometry
        return outputs[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        geometry, saved = ctx.geometry, ctx.saved_tensors
        layers = len(saved) // 3  # an output, weights and a bias of each, and the input of the first
        inputs, outputs, weights = saved[:layers], saved[1 : layers + 1], saved[layers + 1 :]
        to_weights: list[Tensor] = []
        grad = torch.ops.aten.threshold_backward(grad[: len(inputs[0])], outputs[-1], 0)
        if layers > len(geometry):
            image = inputs[-1]
            to_weights = [grad.t() @ channels_last_vector(image), grad.sum(0)]
            rows, width, *sides = image.shape
            grad = (grad @ weights[-2]).view(rows, *sides, width).permute(0, 3, 1, 2)
            grad = torch.ops.aten.threshold_backward(grad, image, 0)
        for i, (stride, padding) in reversed(list(enumerate(geometry))):
            weight, wanted = weights[2 * i], [i > 0, True, True]
            grad, to_weight, to_bias = torch.ops.aten.convolution_backward(
                grad, inputs[i], weight, [len(weight)], stride, padding, [1, 1], False, [0, 0], 1, wanted
            )
            to_weights = [to_weight, to_bias, *to_weights]
            if i > 0:
                grad = torch.ops.aten.threshold_backward(grad, inputs[i], 0)
        return None, None, None, *to_weights

"""Optimiser steps on a processor in one pass over the flat vectors: clip, statistics and weights of each element.

The equations are those of ``torch.optim``, which takes five to ten passes; each pass over a few million floats costs as
much as the arithmetic of a hundred training rows.

Gradients are float32, or bfloat16 as the uint16 of their bits. Weights that layers keep in bfloat16 (``rounded``, bits
as well) are written in the same pass; nothing is where the vector is empty.

Each step also gives the largest magnitude among what it wrote, weights and statistics, as the bits of a float32: those
of larger magnitudes are larger numbers, and those of infinity and of what is no number are the largest.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload

from offbeat.algorithms.compiling import compiled, compiled_sum

NOTHING_ROUNDED = np.zeros(0, np.uint16)
"""For weights that no layer keeps in bfloat16."""


def _exact(value: Any) -> Any:
    """A float32 itself, or the float32 that the bits of a bfloat16 stand for; compiled code takes one of the below."""
    return (np.uint32(value) << np.uint32(16)).view(np.float32) if isinstance(value, np.uint16) else np.float32(value)


def _choose_exact(value: Any) -> Any:
    """For ``_exact`` by the type of its argument."""

    def itself(value: Any) -> Any:
        return value

    def widened(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    return itself if value == numba.types.float32 else widened


_register: Any = overload(_exact)
_register(_choose_exact)


@compiled
def _nearest(value: float) -> np.uint16:
    """Bits of the bfloat16 nearest to a finite float32, to the even one of two."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compiled
def _size(value: float) -> np.uint32:
    """Bits of the magnitude of a float32."""
    return np.uint32(np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF))


@compiled
def largest(values: np.ndarray) -> int:
    """Bits of the largest magnitude in ``values`` [P] float32; 0 if there are none."""
    most = np.uint32(0)
    for i in range(len(values)):
        most = max(most, _size(values[i]))
    return int(most)


def magnitude(bits: int) -> float:
    """The float32 that ``bits`` stand for."""
    return float(np.uint32(bits).view(np.float32))


@compiled_sum
def squares(grad: np.ndarray) -> float:
    """Sum of the squares of ``grad`` [P], float32 or bits of bfloat16."""
    total = np.float32(0.0)
    for i in range(len(grad)):
        g = _exact(grad[i])
        total += g * g
    return float(total)


@compiled
def rmsprop(
    weights: np.ndarray,
    grad: np.ndarray,
    square_avg: np.ndarray,
    buffer: np.ndarray,
    rounded: np.ndarray,
    constants: np.ndarray,
) -> int:
    """One RMSProp step in place; all vectors [P], ``buffer`` [0] without momentum. Gives the largest magnitude's bits.

    ``constants``: factor on the gradient, learning rate, decay, 1 - decay, epsilon, momentum; float32 [6].
    """
    scale, rate, decay, rest, epsilon, momentum = constants
    with_momentum, with_rounded = len(buffer) > 0, len(rounded) > 0
    # One loop without branches that depend on data, so that the compiler works on whole registers; whether anything
    # has become infinite is seen from the largest magnitude at the end, not asked of each element.
    most = np.uint32(0)
    for i in range(len(weights)):
        g = _exact(grad[i]) * scale
        mean = square_avg[i] * decay + g * g * rest
        square_avg[i] = mean
        step = g / (np.sqrt(mean) + epsilon)
        if with_momentum:
            step += buffer[i] * momentum
            buffer[i] = step
            most = max(most, _size(step))
        weight = weights[i] - rate * step
        weights[i] = weight
        most = max(most, _size(weight), _size(mean))
        if with_rounded:
            rounded[i] = _nearest(weight)
    return int(most)


@compiled
def adam(
    weights: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    rounded: np.ndarray,
    constants: np.ndarray,
) -> int:
    """One Adam step in place; all vectors [P]. Gives the largest magnitude's bits.

    ``constants``: factor on the gradient, learning rate over the first bias correction, beta1, 1 - beta1, beta2,
    1 - beta2, root of the second bias correction, epsilon; float32 [8].
    """
    scale, rate, beta1, rest1, beta2, rest2, correction, epsilon = constants
    with_rounded = len(rounded) > 0
    most = np.uint32(0)
    for i in range(len(weights)):
        g = _exact(grad[i]) * scale
        mean = exp_avg[i] * beta1 + g * rest1
        square = exp_avg_sq[i] * beta2 + g * g * rest2
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        weight = weights[i] - rate * mean / (np.sqrt(square) / correction + epsilon)
        weights[i] = weight
        most = max(most, _size(weight), _size(mean), _size(square))
        if with_rounded:
            rounded[i] = _nearest(weight)
    return int(most)

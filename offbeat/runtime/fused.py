"""Optimiser steps on a processor in one pass over the flat vectors: clip, statistics and weights of each element.

The equations are those of ``torch.optim``, which takes five to ten passes; each pass over a few million floats costs as
much as the arithmetic of a hundred training rows.
"""

from __future__ import annotations

import numpy as np

from offbeat.replay.kernels import compiled


@compiled
def rmsprop(
    weights: np.ndarray, grad: np.ndarray, square_avg: np.ndarray, buffer: np.ndarray, constants: np.ndarray
) -> None:
    """One RMSProp step in place; all vectors [P] float32, ``buffer`` [0] without momentum.

    ``constants``: factor on the gradient, learning rate, decay, 1 - decay, epsilon, momentum; float32 [6].
    """
    scale, rate, decay, rest, epsilon, momentum = constants
    with_momentum = len(buffer) > 0
    for i in range(len(weights)):
        g = grad[i] * scale
        mean = square_avg[i] * decay + g * g * rest
        square_avg[i] = mean
        step = g / (np.sqrt(mean) + epsilon)
        if with_momentum:
            step += buffer[i] * momentum
            buffer[i] = step
        weights[i] -= rate * step


@compiled
def adam(
    weights: np.ndarray, grad: np.ndarray, exp_avg: np.ndarray, exp_avg_sq: np.ndarray, constants: np.ndarray
) -> None:
    """One Adam step in place; all vectors [P] float32.

    ``constants``: factor on the gradient, learning rate over the first bias correction, beta1, 1 - beta1, beta2,
    1 - beta2, root of the second bias correction, epsilon; float32 [8].
    """
    scale, rate, beta1, rest1, beta2, rest2, correction, epsilon = constants
    for i in range(len(weights)):
        g = grad[i] * scale
        mean = exp_avg[i] * beta1 + g * rest1
        square = exp_avg_sq[i] * beta2 + g * g * rest2
        exp_avg[i] = mean
        exp_avg_sq[i] = square
        weights[i] -= rate * mean / (np.sqrt(square) / correction + epsilon)

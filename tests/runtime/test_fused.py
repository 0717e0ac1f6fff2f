"""Fused optimiser steps, each against the equations written with numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.runtime import fused

SIZE = 103
SCALE, RATE, EPSILON = 0.5, 0.01, 1e-3


def vectors(count: int) -> list[np.ndarray]:
    """Float32 vectors; the third on are not negative, as means of squares are."""
    rng = np.random.default_rng(0)
    made = [rng.standard_normal(SIZE).astype(np.float32) for _ in range(count)]
    return made[:2] + [np.abs(vector) for vector in made[2:]]


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_rmsprop(momentum: float) -> None:
    weights, grad, square, buffer = vectors(4)
    exact = [vector.astype(np.float64) for vector in (weights, grad, square, buffer)]
    constants = np.array([SCALE, RATE, 0.9, 0.1, EPSILON, momentum], np.float32)
    fused.rmsprop(weights, grad, square, buffer if momentum else buffer[:0], constants)
    g = exact[1] * SCALE
    mean = 0.9 * exact[2] + 0.1 * g * g
    step = g / (np.sqrt(mean) + EPSILON) + (momentum * exact[3] if momentum else 0.0)
    np.testing.assert_allclose(square, mean, rtol=1e-5)
    np.testing.assert_allclose(weights, exact[0] - RATE * step, rtol=1e-5, atol=1e-6)
    if momentum:
        np.testing.assert_allclose(buffer, step, rtol=1e-5)


def test_adam() -> None:
    weights, grad, mean, square = vectors(4)
    exact = [vector.astype(np.float64) for vector in (weights, grad, mean, square)]
    constants = np.array([SCALE, RATE, 0.8, 0.2, 0.95, 0.05, 0.3, EPSILON], np.float32)
    fused.adam(weights, grad, mean, square, constants)
    g = exact[1] * SCALE
    first, second = 0.8 * exact[2] + 0.2 * g, 0.95 * exact[3] + 0.05 * g * g
    np.testing.assert_allclose(mean, first, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(square, second, rtol=1e-5)
    np.testing.assert_allclose(
        weights, exact[0] - RATE * first / (np.sqrt(second) / 0.3 + EPSILON), rtol=1e-5, atol=1e-6
    )

"""Fused optimiser steps, each against the equations written with numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
    fused.rmsprop(weights, grad, square, buffer if momentum else buffer[:0], fused.NOTHING_ROUNDED, constants)
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
    fused.adam(weights, grad, mean, square, fused.NOTHING_ROUNDED, constants)
    g = exact[1] * SCALE
    first, second = 0.8 * exact[2] + 0.2 * g, 0.95 * exact[3] + 0.05 * g * g
    np.testing.assert_allclose(mean, first, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(square, second, rtol=1e-5)
    np.testing.assert_allclose(
        weights, exact[0] - RATE * first / (np.sqrt(second) / 0.3 + EPSILON), rtol=1e-5, atol=1e-6
    )


def bits(tensor: torch.Tensor) -> np.ndarray:
    """A bfloat16 tensor as uint16."""
    return tensor.view(torch.uint16).numpy()


@pytest.mark.parametrize("step", ["rmsprop", "adam"])
def test_gradients_in_bfloat16_and_weights_rounded_in_the_same_pass(step: str) -> None:
    weights, grad, first, second = vectors(4)
    half = torch.from_numpy(grad).bfloat16()
    constants = np.array([SCALE, RATE, 0.9, 0.1, EPSILON, 0.0, 1.0, EPSILON], np.float32)
    slots = (first, first[:0]) if step == "rmsprop" else (first, second)
    kernel, values = (fused.rmsprop, constants[:6]) if step == "rmsprop" else (fused.adam, constants)
    copies = [array.copy() for array in (weights, *slots)]
    kernel(copies[0], half.float().numpy(), *copies[1:], fused.NOTHING_ROUNDED, values)
    rounded = np.zeros(SIZE, np.uint16)
    kernel(weights, bits(half), *slots, rounded, values)
    for got, expected in zip((weights, *slots), copies, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(rounded, bits(torch.from_numpy(weights).bfloat16()))


def test_rounding_is_to_the_nearest_and_to_the_even_of_two() -> None:
    values = torch.tensor([1.0, 1.00390625, 1.01171875, 1.003906369, -1.00390625, 3e38, 1e-39, 0.0, -0.0])
    weights, zeros = values.numpy().copy(), np.zeros(len(values), np.float32)
    rounded = np.zeros(len(values), np.uint16)
    constants = np.array([1.0, 0.0, 0.9, 0.1, EPSILON, 0.0], np.float32)
    fused.rmsprop(weights, zeros, zeros.copy(), zeros[:0], rounded, constants)
    np.testing.assert_array_equal(rounded, bits(values.bfloat16()))


def test_squares() -> None:
    grad = torch.linspace(-3, 5, 1003)
    expected = float(grad.double().square().sum())
    assert fused.squares(grad.numpy()) == pytest.approx(expected, rel=1e-6)
    half = grad.bfloat16()
    assert fused.squares(bits(half)) == pytest.approx(float(half.double().square().sum()), rel=1e-6)
    assert fused.squares(grad[:0].numpy()) == 0.0


@pytest.mark.parametrize("step", ["rmsprop", "momentum", "adam"])
def test_steps_tell_the_largest_magnitude_that_they_wrote(step: str) -> None:
    weights, grad, first, second = vectors(4)
    constants = np.array([SCALE, RATE, 0.9, 0.1, EPSILON, 0.7, 1.0, EPSILON], np.float32)
    written = {"rmsprop": (weights, first), "momentum": (weights, first, second), "adam": (weights, first, second)}[
        step
    ]
    for array in written:
        array[len(array) // 2] = -50.0 if array is weights else 50.0
        kernel, values = (fused.adam, constants) if step == "adam" else (fused.rmsprop, constants[:6])
        bits = kernel(weights, grad, first, second[: SIZE * (step != "rmsprop")], fused.NOTHING_ROUNDED, values)
        assert fused.magnitude(bits) == max(np.abs(array).max() for array in written)
        array[len(array) // 2] = 0.0
    weights[3] = np.nan
    assert not np.isfinite(fused.magnitude(fused.largest(weights)))
    assert fused.largest(weights[:0]) == 0

"""Compiled loops compute what their Python does, divisions by zero and sums included."""

from __future__ import annotations

import numpy as np

from offbeat.algorithms.compiling import compiled, compiled_sum


def shares(values: np.ndarray, total: float) -> np.ndarray:
    """Each of ``values`` by ``total``."""
    found = np.empty_like(values)
    for i in range(len(values)):
        found[i] = values[i] / total
    return found


def added(values: np.ndarray) -> float:
    """The sum of ``values``."""
    total = 0.0
    for i in range(len(values)):
        total += values[i]
    return total


def test_a_loop_is_as_it_is_written_and_divides_by_zero_as_numpy_does() -> None:
    values = np.array([1.0, -2.0, 0.0])
    assert compiled(shares)(values, 4.0).tolist() == [0.25, -0.5, 0.0]
    assert [str(one) for one in compiled(shares)(values, 0.0)] == ["inf", "-inf", "nan"]


def test_a_sum_may_be_taken_in_another_order_and_is_always_the_same() -> None:
    values = np.random.default_rng(0).normal(size=1001)
    once = compiled_sum(added)(values)
    assert once == compiled_sum(added)(values)
    np.testing.assert_allclose(once, values.sum(), rtol=1e-12)

"""What brings a gradient over the beginning of an unroll, by itself; the cores have tests of their own."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks.traced import ALIGNED, aligned, carry_over


def test_carries_stay_and_gradients_go_by_the_sensitivities():
    torch.manual_seed(0)
    carry = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    parameters = {"W": torch.randn(4, 5, requires_grad=True), "v": torch.randn(4, requires_grad=True)}
    shapes = {"a.W": (7, 4, 5), "a.v": (7, 4), "b.v": (7, 4)}
    trace = {name: torch.randn(shape) for name, shape in shapes.items()}
    at = [5, -1, 0]
    after = carry_over(carry, parameters, trace, at, {"b.W": ("a.W", -2.0)})
    assert all(torch.equal(after[name], carry[name]) for name in carry)
    weight = {name: torch.randn(3, 4) for name in carry}
    sum((after[name] * weight[name]).sum() for name in carry).backward()
    trace["b.W"] = -2.0 * trace["a.W"]
    for name, parameter in parameters.items():
        expected = torch.zeros_like(parameter)
        for part, grad in weight.items():
            for b, row in enumerate(at):
                if row >= 0:
                    for unit in range(4):
                        expected[unit] += grad[b, unit] * trace[f"{part}.{name}"][row, unit]
        torch.testing.assert_close(parameter.grad, expected)


def test_a_trace_that_was_changed_before_the_gradient_is_noticed():
    parameter = torch.ones(2, requires_grad=True)
    trace = {"a.v": torch.ones(1, 2)}
    after = carry_over({"a": torch.ones(1, 2)}, {"v": parameter}, trace, [0])
    trace["a.v"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        after["a"].sum().backward()


def test_rows_are_aligned():
    like = torch.zeros(1, dtype=torch.float64)
    for width in (1, ALIGNED, ALIGNED + 1):
        made = aligned(like, 3, 4, width)
        assert made.shape == (3, 4, width)
        assert made.dtype == torch.float64
        assert made.stride(1) % ALIGNED == 0
        assert not made.any()
    assert aligned(like, 3, 5).shape == (3, 5)

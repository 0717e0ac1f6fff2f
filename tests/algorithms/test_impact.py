"""IMPACT's ratio and surrogate: worked numbers with gradients, the formulas written out, extremes; adaptive KL."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from offbeat.algorithms.impact import adapted, ratio, surrogate
from offbeat.algorithms.vtrace import vtrace
from tests.algorithms.worked import near, table

MU, TARGET, PI = [0.5, 0.1, 0.6, 0.3, 0.3], [0.4, 0.4, 0.2, 0.1, 0.3], [0.6, 0.2, 0.3, 0.3, 0.1]
ADVANTAGE = table([1, -0.5, 2, -1, 1.5])


def logs() -> tuple[Tensor, Tensor, Tensor]:
    """log pi, log pi_t, log mu."""
    return table(PI).log().requires_grad_(), table(TARGET).log().requires_grad_(), table(MU).log().requires_grad_()


def test_worked_numbers() -> None:
    pi, target, mu = logs()
    r = ratio(pi, target, mu, 2.0)
    near(r, table([1.5, 0.5, 1, 2, 0.333333333]), 1e-9)
    s = surrogate(r, ADVANTAGE, 0.4)
    near(s, table([1.4, -0.3, 2, -2, 0.5]), 1e-9)
    near(-s.mean(), -0.32, 1e-9)
    s.mean().backward()
    near(pi.grad, table([0, 0, 0.4, -0.4, 0.1]), 1e-9)  # type: ignore[arg-type]
    assert target.grad is None and mu.grad is None


def test_the_worked_weight_of_v_trace() -> None:
    """rho_t = min(1, pi_t / mu), seen through one-step targets of reward 1 and value 0."""
    zero = torch.zeros(1, 5, dtype=torch.float64)
    _, target, mu = (x.detach() for x in logs())
    out = vtrace((target - mu)[None], zero, zero + 1, zero, zero[0])
    near(out.target[0], table([0.8, 1, 0.333333333, 0.333333333, 1]), 1e-9)


@pytest.mark.parametrize("rho", [0.5, 1.0, 2.0])
def test_ratio_and_surrogate_are_the_printed_formulas(rho: float) -> None:
    generator = torch.Generator().manual_seed(0)
    pi, target, mu = (torch.rand(50, generator=generator, dtype=torch.float64) + 0.01 for _ in range(3))
    advantage = torch.randn(50, generator=generator, dtype=torch.float64)
    r = ratio(pi.log(), target.log(), mu.log(), rho)
    s = surrogate(r, advantage, 0.2)
    for i in range(50):
        printed = min(mu[i] / target[i], rho) * pi[i] / mu[i]
        near(r[i], float(printed), 1e-12)
        clipped = min(max(printed, 0.8), 1.2)
        near(s[i], float(min(printed * advantage[i], clipped * advantage[i])), 1e-12)


def test_the_target_alone_is_ppo_with_the_target_as_old_policy() -> None:
    """Where the workers' weight is not clipped, R = pi / pi_t, whatever mu was."""
    pi, target, mu = (x.detach() for x in logs())
    near(ratio(pi, target, mu, 1e9), (pi - target).exp(), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_that_underflow(dtype: torch.dtype) -> None:
    log_prob = torch.tensor([-1000.0, -1000.0], dtype=dtype)
    r = ratio(log_prob, torch.tensor([-1000.0, -2000.0], dtype=dtype), torch.tensor([-1500.0, -1000.0], dtype=dtype))
    torch.testing.assert_close(r, torch.tensor([1.0, 2.0], dtype=dtype), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("divergence", "factor"), [(0.0201, 1.5), (0.0199, 1.0), (0.0051, 1.0), (0.0049, 0.5)])
def test_the_coefficient_of_the_divergence_adapts(divergence: float, factor: float) -> None:
    found = adapted(torch.tensor(0.8), torch.tensor(divergence, requires_grad=True), 0.01)
    assert not found.requires_grad and found.dtype == torch.float32
    assert found.item() == pytest.approx(0.8 * factor)


def test_errors_name_argument_expected_and_got() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"target_log_prob: expected shape \[2, 3\], got \[3\]"):
        ratio(x, x[0], x)
    with pytest.raises(ValueError, match=r"behaviour_log_prob: expected shape \[2, 3\], got \[2\]"):
        ratio(x, x, x[:, 0])
    with pytest.raises(ValueError, match=r"rho: expected a number above 0, got 0"):
        ratio(x, x, x, 0.0)
    with pytest.raises(ValueError, match=r"advantage: expected shape \[2, 3\], got \[3\]"):
        surrogate(x, x[0], 0.2)
    with pytest.raises(ValueError, match=r"clip: expected 0 or above, got nan"):
        surrogate(x, x, math.nan)

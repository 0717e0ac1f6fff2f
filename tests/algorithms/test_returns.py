"""Value rescaling against exact arithmetic, n-step targets against a loop."""

from __future__ import annotations

from decimal import Decimal, getcontext

import pytest
import torch

from offbeat.algorithms.returns import n_step_target, rescale, unrescale

getcontext().prec = 60


def exact_rescale(x: float, epsilon: float) -> float:
    size = abs(Decimal(x))
    result = (size + 1).sqrt() - 1 + Decimal(epsilon) * size
    return float(result.copy_sign(Decimal(x)))


def exact_unrescale(x: float, epsilon: float) -> float:
    size, e = abs(Decimal(x)), Decimal(epsilon)
    root = ((1 + 4 * e * (size + 1 + e)).sqrt() - 1) / (2 * e)
    return float((root * root - 1).copy_sign(Decimal(x)))


POINTS = [0.0, 1e-12, -1e-7, 1e-4, -0.01, 0.3, -1.0, 2.5, -40.0, 1e3, -1e5, 3e6, 1e12]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0])
def test_rescaling_is_exact_to_a_few_units_in_the_last_place(dtype, epsilon):
    x = torch.tensor(POINTS, dtype=dtype)
    tolerance = 8 * torch.finfo(dtype).eps
    forward = torch.tensor([exact_rescale(item, epsilon) for item in x.tolist()], dtype=dtype)
    backward = torch.tensor([exact_unrescale(item, epsilon) for item in x.tolist()], dtype=dtype)
    torch.testing.assert_close(rescale(x, epsilon), forward, rtol=tolerance, atol=0)
    torch.testing.assert_close(unrescale(x, epsilon), backward, rtol=tolerance, atol=0)


def test_rescaling_inverts():
    x = torch.linspace(-500, 500, 1001, dtype=torch.float64)
    torch.testing.assert_close(unrescale(rescale(x)), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rescale(unrescale(x, 0.0), 0.0), x, rtol=1e-12, atol=1e-12)


def test_rescaling_differentiates_everywhere():
    x = torch.tensor([-3.0, -1e-3, 0.4, 70.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rescale, (x,))
    assert torch.autograd.gradcheck(unrescale, (x,))
    extremes = torch.tensor([0.0, 1e30, -1e30], requires_grad=True)
    (slope,) = torch.autograd.grad(rescale(extremes).sum(), extremes)
    torch.testing.assert_close(slope, torch.tensor([0.501, 0.001, 0.001]))
    (slope,) = torch.autograd.grad(unrescale(extremes).sum(), extremes)
    assert slope.isfinite().all()
    torch.testing.assert_close(slope[0].item(), 1 / 0.501)


def slow_n_step(reward, discount, bootstrap, n, cut):
    length, batch = reward.shape
    target = torch.zeros_like(reward)
    for b in range(batch):
        for t in range(length):
            total, product, k = 0.0, 1.0, t
            while True:
                total += product * reward[k, b].item()
                product *= discount[k, b].item()
                if k - t + 1 == n or k == length - 1 or cut[k, b]:
                    break
                k += 1
            target[t, b] = total + product * bootstrap[k, b].item()
    return target


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_n_step_target_equals_a_loop(n):
    generator = torch.Generator().manual_seed(n)
    reward, bootstrap = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    discount = 0.9 * (torch.rand(6, 5, generator=generator) > 0.2).double()
    cut = torch.rand(6, 5, generator=generator) > 0.8
    expected = slow_n_step(reward, discount, bootstrap, n, cut)
    torch.testing.assert_close(n_step_target(reward, discount, bootstrap, n, cut), expected)
    expected = slow_n_step(reward, discount, bootstrap, n, torch.zeros_like(cut))
    torch.testing.assert_close(n_step_target(reward, discount, bootstrap, n), expected)


def test_n_step_target_is_detached_and_checks_its_arguments():
    ones = torch.ones(3, 2, requires_grad=True)
    assert not n_step_target(ones, ones, ones, 2).requires_grad
    with pytest.raises(ValueError, match=r"bootstrap: expected shape \[3, 2\], got \[2, 2\]"):
        n_step_target(ones, ones, ones[:2], 2)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        n_step_target(ones, ones, ones, 0)

"""Q-learning targets against slow transcriptions of the papers, worked examples, and what must never happen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from offbeat.algorithms.q_learning import (
    categorical_projection,
    double_q,
    dueling,
    expected_value,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_legal(*shape: int, seed: int = 0) -> Tensor:
    """Random masks; in the first place nothing is legal."""
    legal = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    legal[..., 0] |= ~legal.any(-1)
    legal.view(-1, shape[-1])[0] = False
    return legal


@DTYPES
@pytest.mark.parametrize("masked", [False, True])
def test_double_q_is_the_targets_value_of_the_onlines_choice(dtype: torch.dtype, masked: bool) -> None:
    online, target = normal(4, 3, 5, dtype=dtype), normal(4, 3, 5, dtype=dtype, seed=1)
    legal = some_legal(4, 3, 5) if masked else None
    value = double_q(online, target, legal)
    assert value.dtype == dtype
    for i in range(4):
        for j in range(3):
            allowed = list(range(5))
            if legal is not None and legal[i, j].any():
                allowed = [a for a in range(5) if legal[i, j, a]]
            best = max(allowed, key=lambda a, i=i, j=j: online[i, j, a].item())
            assert value[i, j] == target[i, j, best]


def test_double_q_of_the_worked_example() -> None:
    d = torch.float64
    online, target = torch.tensor([1.5, 2.75, 2.5], dtype=d), torch.tensor([3, 1.2, 4], dtype=d)
    assert double_q(online, target) == 1.2
    y = 1 + 0.99 * 0 + 0.99**2 * -1 + 0.99**3 * double_q(online, target)
    assert y.item() == pytest.approx(1.1842588, abs=1e-12)


def test_double_q_carries_no_gradient() -> None:
    assert not double_q(normal(2, 3).requires_grad_(), normal(2, 3).requires_grad_()).requires_grad


def test_dueling_of_the_worked_example() -> None:
    d = torch.float64
    q = dueling(torch.tensor([1.5], dtype=d), torch.tensor([0.2, -0.4, 1, 0.6], dtype=d))
    torch.testing.assert_close(q, torch.tensor([1.35, 0.75, 2.15, 1.75], dtype=d), rtol=0, atol=1e-12)


@DTYPES
@pytest.mark.parametrize("atoms", [0, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_dueling_takes_the_mean_over_legal_actions(dtype: torch.dtype, atoms: int, masked: bool) -> None:
    tail = (atoms,) if atoms else ()
    value, advantage = normal(2, 3, 1, *tail, dtype=dtype), normal(2, 3, 5, *tail, dtype=dtype, seed=1)
    legal = some_legal(2, 3, 5) if masked else None
    q = dueling(value, advantage, legal, atoms=atoms > 0)
    assert (q.dtype, q.shape) == (dtype, advantage.shape)
    for i in range(2):
        for j in range(3):
            allowed = list(range(5))
            if legal is not None and legal[i, j].any():
                allowed = [a for a in range(5) if legal[i, j, a]]
            mean = sum(advantage[i, j, a] for a in allowed) / len(allowed)
            for a in range(5):
                torch.testing.assert_close(q[i, j, a], (value[i, j] + advantage[i, j, a] - mean).reshape(tail))


def test_dueling_is_differentiable_in_both_streams() -> None:
    value, advantage = normal(3, 1).requires_grad_(), normal(3, 4).requires_grad_()
    dueling(value, advantage)[:, 0].sum().backward()
    assert value.grad is not None and advantage.grad is not None
    assert torch.equal(value.grad, torch.ones_like(value))
    torch.testing.assert_close(advantage.grad[0], torch.tensor([0.75, -0.25, -0.25, -0.25], dtype=torch.float64))


def algorithm_1(support: Tensor, probs: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """Bellemare et al. 2017 as printed, one atom at a time; mass on an exact hit (l = u) is kept."""
    z = support.tolist()
    gap = (z[-1] - z[0]) / (len(z) - 1)
    out = torch.zeros_like(probs)
    for i in range(len(reward)):
        for j in range(len(z)):
            moved = min(max(reward[i].item() + discount[i].item() * z[j], z[0]), z[-1])
            b = min(max((moved - z[0]) / gap, 0.0), len(z) - 1.0)
            low, high = math.floor(b), math.ceil(b)
            if low == high:
                out[i, low] += probs[i, j]
            else:
                out[i, low] += probs[i, j] * (high - b)
                out[i, high] += probs[i, j] * (b - low)
    return out


@DTYPES
@pytest.mark.parametrize(("low", "high", "atoms"), [(-10.0, 10.0, 51), (0.0, 200.0, 51), (-1.0, 0.5, 2), (3.0, 4.0, 7)])
def test_the_projection_is_algorithm_1_and_keeps_the_mass(
    dtype: torch.dtype, low: float, high: float, atoms: int
) -> None:
    support = torch.linspace(low, high, atoms, dtype=dtype)
    probs = normal(64, atoms, dtype=dtype).softmax(-1)
    reward = (high - low) * normal(64, dtype=dtype, seed=1)
    discount = 0.99 * (torch.arange(64) % 3 > 0).to(dtype)
    projected = categorical_projection(support, probs, reward, discount)
    assert projected.dtype == dtype
    assert (projected >= 0).all()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(projected.sum(-1), probs.sum(-1), rtol=0, atol=tolerance)
    exact = algorithm_1(support.double(), probs.double(), reward.double(), discount.double())
    torch.testing.assert_close(projected.double(), exact, rtol=0, atol=5 * tolerance * (1 if atoms < 9 else 10))


@DTYPES
@pytest.mark.parametrize("reward", [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 100.0])
@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_atoms_that_hit_the_support_exactly_keep_all_their_mass(
    dtype: torch.dtype, reward: float, discount: float
) -> None:
    """A terminal reward of 0 with the support [-2, 2] is such a case: the printed algorithm loses all of it."""
    support = torch.linspace(-2, 2, 5, dtype=dtype)
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.25, 0.15]], dtype=dtype)
    got = categorical_projection(support, probs, torch.tensor([reward]).to(dtype), torch.tensor([discount]).to(dtype))
    expected = torch.zeros_like(probs)
    for j in range(5):
        place = min(max(reward + discount * (j - 2), -2), 2) + 2
        expected[0, int(place)] += probs[0, j]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7)


def test_the_projection_keeps_the_mean_of_what_stays_within_the_support() -> None:
    support = torch.linspace(-10, 10, 21, dtype=torch.float64)
    probs = normal(8, 21).softmax(-1)
    reward, discount = 0.3 * normal(8, seed=2), torch.full((8,), 0.9, dtype=torch.float64)
    projected = categorical_projection(support, probs, reward, discount)
    torch.testing.assert_close(expected_value(support, projected), reward + 0.9 * expected_value(support, probs))


@DTYPES
def test_expected_value_is_the_sum_over_atoms(dtype: torch.dtype) -> None:
    support, probs = torch.linspace(-1, 3, 6, dtype=dtype), normal(2, 4, 6, dtype=dtype).softmax(-1)
    value = expected_value(support, probs)
    assert value.dtype == dtype
    slow = [[sum(z * p for z, p in zip(support.tolist(), row, strict=True)) for row in rows] for rows in probs.tolist()]
    torch.testing.assert_close(value, torch.tensor(slow, dtype=dtype))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: double_q(torch.zeros(2, 3), torch.zeros(2, 4)), r"q_target: expected shape \[2, 3\], got \[2, 4\]"),
        (
            lambda: double_q(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3, dtype=torch.bool)),
            r"legal: expected shape \[2, 3\], got \[3\]",
        ),
        (lambda: dueling(torch.zeros(2), torch.zeros(2, 3)), r"value: expected shape \[2, 1\], got \[2\]"),
        (
            lambda: dueling(torch.zeros(2, 1), torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool)),
            r"legal: expected shape \[2, 3\], got \[2, 4\]",
        ),
        (
            lambda: dueling(torch.zeros(2, 1, 5), torch.zeros(2, 3, 4), atoms=True),
            r"value: expected shape \[2, 1, 4\], got \[2, 1, 5\]",
        ),
        (
            lambda: categorical_projection(torch.zeros(4), torch.zeros(2, 5), torch.zeros(2), torch.zeros(2)),
            r"support: expected shape \[5\], got \[4\]",
        ),
        (
            lambda: categorical_projection(torch.zeros(5), torch.zeros(2, 5), torch.zeros(3), torch.zeros(2)),
            r"reward: expected shape \[2\], got \[3\]",
        ),
        (
            lambda: categorical_projection(torch.zeros(5), torch.zeros(2, 5), torch.zeros(2), torch.zeros(2, 1)),
            r"discount: expected shape \[2\], got \[2, 1\]",
        ),
        (
            lambda: categorical_projection(torch.zeros(5), torch.zeros(5), torch.zeros(1), torch.zeros(1)),
            r"probs: expected 2 axes \[B, Z\], got shape \[5\]",
        ),
        (
            lambda: categorical_projection(torch.zeros(1), torch.ones(2, 1), torch.zeros(2), torch.zeros(2)),
            "support: expected at least 2 atoms, got 1",
        ),
    ],
)
def test_shape_errors_name_argument_expected_and_got(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

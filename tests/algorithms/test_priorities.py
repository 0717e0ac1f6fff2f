"""Exploration ladder, importance weights and priorities of sequences: slow transcriptions and worked examples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from offbeat.algorithms.priorities import epsilon_ladder, importance_weights, max_mean

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (8, {0: 0.4, 1: 0.16, 2: 0.064, 3: 0.0256, 4: 0.01024, 5: 0.004096, 6: 0.0016384, 7: 0.00065536}),
        (4, {0: 0.4, 1: 0.04715560318, 2: 0.005559127279, 3: 0.00065536}),
        (360, {0: 0.4, 1: 0.3929169058, 90: 0.08011708827, 180: 0.01604686958, 359: 0.00065536}),
        (2400, {1: 0.3989319769, 1200: 0.01616923191, 2399: 0.00065536}),
        (1, {0: 0.4}),
    ],
)
def test_the_ladder_of_the_paper(count: int, expected: dict[int, float]) -> None:
    ladder = epsilon_ladder(count)
    assert (ladder.shape, ladder.dtype) == ((count,), torch.float64)
    for index, epsilon in expected.items():
        assert ladder[index].item() == pytest.approx(epsilon, rel=1e-9)
    for index in range(count):
        slow = 0.4 ** (1 + 7 * index / (count - 1)) if count > 1 else 0.4
        assert ladder[index].item() == pytest.approx(slow, rel=1e-12)


def test_the_mean_of_a_long_ladder_and_its_ends() -> None:
    assert epsilon_ladder(2400).mean().item() == pytest.approx(0.06231863, rel=1e-6)
    assert epsilon_ladder(3, 0.0).tolist() == [0.0, 0.0, 0.0]
    assert epsilon_ladder(3, 1.0).tolist() == [1.0, 1.0, 1.0]
    assert epsilon_ladder(3, 0.5, 0.0).tolist() == [0.5, 0.5, 0.5]


P = double(0.1, 0.5, 1, 2, 4)


@pytest.mark.parametrize(
    ("alpha", "beta", "batch", "reference", "expected"),
    [
        (0.6, 0.4, (0, 2, 4), None, (1, 0.5754399373, 0.4125775590)),
        (0.6, 0.4, (1, 2, 4), None, (1, 0.8467453124, 0.6070974422)),
        (0.6, 0.4, (1, 2, 4), 1.8343978979, (0.6795903431, 0.5754399373, 0.4125775590)),
        (0.6, 0.4, range(5), 1.0, (1.8343978979, 1.2466390968, 1.0555858114, 0.8938123376, 0.7568314070)),
        (0.9, 0.6, range(5), None, (1, 0.4193302545, 0.2884031503, 0.1983552969, 0.1364230028)),
    ],
)
def test_importance_weights_of_the_worked_examples(alpha, beta, batch, reference, expected) -> None:
    probability = P**alpha / (P**alpha).sum()
    weights = importance_weights(probability[list(batch)], 5, beta, reference)
    torch.testing.assert_close(weights, double(*expected), rtol=0, atol=1e-9)


@DTYPES
@pytest.mark.parametrize("reference", [None, 2.5])
def test_importance_weights_are_the_papers(dtype: torch.dtype, reference: float | None) -> None:
    probability = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) + 1e-3
    weights = importance_weights(probability, 100, 0.7, reference)
    assert weights.dtype == dtype
    slow = [(1 / 100 * 1 / p) ** 0.7 for p in probability.tolist()]
    divisor = max(slow) if reference is None else reference
    torch.testing.assert_close(weights, torch.tensor([w / divisor for w in slow], dtype=dtype))


def test_beta_zero_corrects_nothing_and_one_corrects_fully() -> None:
    probability = double(0.1, 0.2, 0.7)
    assert importance_weights(probability, 3, 0.0).tolist() == [1, 1, 1]
    weighted = importance_weights(probability, 3, 1.0) * probability
    torch.testing.assert_close(weighted, weighted[:1].expand(3))


def test_max_mean_of_the_worked_examples() -> None:
    td = double(0.5, -0.1, 2, 0, -0.3)[:, None]
    every = torch.ones(5, 1, dtype=torch.bool)
    assert max_mean(td, every, 0.9).item() == pytest.approx(1.858, abs=1e-12)
    assert max_mean(td, every, 0.9).item() ** 0.9 == pytest.approx(1.7463896091, abs=1e-9)
    three = every.clone()
    three[3:] = False
    assert max_mean(td, three, 0.9).item() == pytest.approx(1.8866666667, abs=1e-9)
    assert max_mean(td, three, 0.9).item() ** 0.9 == pytest.approx(1.7706211960, abs=1e-9)


@DTYPES
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.9, 1.0])
def test_max_mean_counts_masked_steps_alone(dtype: torch.dtype, eta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    td = torch.randn(6, 5, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.rand(6, 5, generator=generator) > 0.4
    mask[:, 0], mask[:, 1] = False, True
    td[0, 0] = torch.nan  # nothing of what is not masked may be seen
    got = max_mean(td, mask, eta)
    assert got.dtype == dtype
    for b in range(5):
        sizes = [abs(td[t, b].item()) for t in range(6) if mask[t, b]]
        slow = eta * max(sizes) + (1 - eta) * sum(sizes) / len(sizes) if sizes else 0.0
        assert got[b].item() == pytest.approx(slow, rel=1e-5)


def test_nothing_carries_a_gradient() -> None:
    assert not importance_weights(double(0.5).requires_grad_(), 2, 0.4).requires_grad
    td = double(0.5)[None].requires_grad_()
    assert not max_mean(td, torch.ones(1, 1, dtype=torch.bool), 0.9).requires_grad


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: epsilon_ladder(0), "num_actors: expected at least 1, got 0"),
        (lambda: epsilon_ladder(2, 1.5), "base: expected 0 to 1, got 1.5"),
        (lambda: epsilon_ladder(2, 0.4, -1.0), "alpha: expected 0 or above, got -1.0"),
        (lambda: importance_weights(torch.ones(2, 1), 2, 0.4), r"probability: expected 1 axes \[B\], got shape"),
        (lambda: importance_weights(torch.ones(2), 0, 0.4), "size: expected at least 1, got 0"),
        (lambda: importance_weights(torch.ones(2), 2, -0.4), "beta: expected 0 or above, got -0.4"),
        (lambda: importance_weights(torch.ones(2), 2, 0.4, 0.0), "reference: expected above 0, got 0.0"),
        (lambda: max_mean(torch.ones(2), torch.ones(2) > 0, 0.9), r"td_error: expected 2 axes \[T, B\]"),
        (
            lambda: max_mean(torch.ones(2, 3), torch.ones(3, 2) > 0, 0.9),
            r"mask: expected shape \[2, 3\], got \[3, 2\]",
        ),
        (lambda: max_mean(torch.ones(2, 3), torch.ones(2, 3) > 0, 1.1), "eta: expected 0 to 1, got 1.1"),
    ],
)
def test_errors_name_argument_expected_and_got(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()

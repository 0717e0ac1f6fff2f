"""Divergences against sums written out, integrals and torch's own; probabilities of 0; shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from offbeat.algorithms.divergence import categorical_kl, gaussian_kl, log_probs, over_components
from tests.algorithms.worked import BEHAVIOUR_LOGITS, FORWARD, LOGITS, REVERSE, near, table


def written_out(p: list[float], q: list[float]) -> float:
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True) if one > 0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_numbers_in_both_directions() -> None:
    near(categorical_kl(BEHAVIOUR_LOGITS, LOGITS), FORWARD)
    near(categorical_kl(LOGITS, BEHAVIOUR_LOGITS), REVERSE)
    near(categorical_kl(table([0.9, 0.1]).log(), table([0.1, 0.9]).log()), 1.757779662)


def test_a_divergence_is_its_sum() -> None:
    logits, other = 3 * random(20, 5), 3 * random(20, 5, seed=1)
    expected = [written_out(p, q) for p, q in zip(logits.softmax(-1).tolist(), other.softmax(-1).tolist())]
    torch.testing.assert_close(categorical_kl(logits, other), table(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("never", [-1e30, -math.inf])
def test_an_action_that_is_never_taken_adds_nothing_and_gets_no_gradient(never: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([0.3, -0.2, never], dtype=dtype, requires_grad=True)
    other = torch.tensor([0.1, 0.5, never], dtype=dtype)
    found = categorical_kl(logits, other)
    torch.testing.assert_close(found, categorical_kl(logits[:2], other[:2]))
    assert categorical_kl(logits.detach(), torch.tensor([0.1, 0.5, 0.0], dtype=dtype)).isfinite()
    assert categorical_kl(torch.tensor([0.1, 0.5, 0.0], dtype=dtype), other) > 1e29, "where q is 0 and p is not"
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient.isfinite().all() and gradient[2] == 0
    assert log_probs(logits).isfinite().all()


def test_gaussians_as_torch_has_them() -> None:
    mean, log_std, other_mean, other_log_std = (random(7, 3, seed=seed) for seed in range(4))
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(other_mean, other_log_std.exp())).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_std, other_mean, other_log_std), expected)


def test_gaussians_that_are_nearly_the_same() -> None:
    """In float32 the difference of squares would have no digit left."""
    mean, log_std = torch.zeros(2), torch.tensor([1.0, -4.0])
    found = gaussian_kl(mean, log_std + 1e-3, mean, log_std)
    torch.testing.assert_close(found, torch.tensor(2e-6), rtol=2e-3, atol=0)
    assert gaussian_kl(mean, log_std, mean, log_std) == 0


def test_components_add_up_to_the_divergence_of_all_their_products() -> None:
    logits, other = random(4, 5), random(4, 5, seed=1)
    first, second = (x[:, :2].log_softmax(-1)[:, :, None] for x in (logits, other))
    third, fourth = (x[:, 2:].log_softmax(-1)[:, None, :] for x in (logits, other))
    expected = categorical_kl((first + third).flatten(1), (second + fourth).flatten(1))
    torch.testing.assert_close(over_components(categorical_kl, logits, other, (2, 3)), expected)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"other: expected shape \[2, 3\], got \[2, 4\]"):
        categorical_kl(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"other: expected shape \[2, 5\], got \[1, 5\]"):
        over_components(categorical_kl, torch.zeros(2, 5), torch.zeros(1, 5), (2, 3))
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"other_log_std: expected shape \[2, 3\], got \[3\]"):
        gaussian_kl(x, x, x, torch.zeros(3))

"""LASER's implied policy and relevance: worked numbers, the paper's text written out, limits; Gaussians against
integrals.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from offbeat.algorithms.divergence import gaussian_kl
from offbeat.algorithms.laser import POINTS, gaussian_relevance, implied_policy, normal_points, relevance
from offbeat.algorithms.vtrace import vtrace
from tests.algorithms import worked
from tests.algorithms.worked import near, table


def logits_of(*probabilities: float) -> Tensor:
    return table(probabilities).log()[None, None]


def written_out(pi: list[float], mu: list[float], rho_bar: float) -> tuple[list[float], float]:
    """The implied policy and the relevance of one state, as the paper prints them."""
    least = [min(rho_bar * m, p) for p, m in zip(pi, mu, strict=True)]
    implied = [value / sum(least) for value in least]
    return implied, sum(p * math.log(p / q) for p, q in zip(pi, implied, strict=True))


def test_worked_numbers() -> None:
    near(relevance(worked.LOGITS, worked.BEHAVIOUR_LOGITS), worked.RELEVANCE)
    pi, mu = logits_of(0.9, 0.1), logits_of(0.1, 0.9)
    near(implied_policy(pi, mu), table([[[0.5, 0.5]]]), 1e-12)
    near(relevance(pi, mu), table([[0.368064207]]), 1e-9)


def test_the_counter_example_picks_the_wrong_action() -> None:
    """LASER's: what the policy gradient is proportional to, min(1, mu / pi) Q, is largest elsewhere."""
    pi, mu, q = table([0.5, 0.5]), table([0.9, 0.1]), table([2.0, 5.0])
    implied = implied_policy(pi.log()[None, None], mu.log()[None, None])[0, 0]
    seen = implied / implied.max() * q
    torch.testing.assert_close(seen, table([2.0, 1.0]))
    assert seen.argmax() != q.argmax()


@pytest.mark.parametrize("rho_bar", [0.5, 1.0, 2.0])
def test_it_is_the_papers_formula(rho_bar: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, behaviour = (2 * torch.randn(2, 30, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    implied, beta = implied_policy(logits, behaviour, rho_bar), relevance(logits, behaviour, rho_bar)
    for t in range(2):
        for b in range(30):
            known = written_out(logits[t, b].softmax(-1).tolist(), behaviour[t, b].softmax(-1).tolist(), rho_bar)
            near(implied[t, b], table(known[0]), 1e-12)
            near(beta[t, b], known[1], 1e-12)


def test_where_nothing_is_clipped_the_policy_itself_is_evaluated() -> None:
    logits, behaviour = worked.LOGITS, worked.BEHAVIOUR_LOGITS
    for rho_bar in (None, 1e9):
        near(implied_policy(logits, behaviour, rho_bar), logits.softmax(-1), 1e-12)
        near(relevance(logits, behaviour, rho_bar), torch.zeros(3, 2), 1e-12)
    near(relevance(logits, logits), torch.zeros(3, 2), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [300.0, 1e30])
def test_policies_without_an_action_in_common(far: float, dtype: torch.dtype) -> None:
    """All products underflow. What is left is even between the two, as it is in the limit."""
    pi, mu = torch.tensor([[[0.0, far]]], dtype=dtype), torch.tensor([[[far, 0.0]]], dtype=dtype)
    torch.testing.assert_close(implied_policy(pi, mu), torch.tensor([[[0.5, 0.5]]], dtype=dtype))
    torch.testing.assert_close(relevance(pi, mu), torch.tensor([[math.log(2)]], dtype=dtype))


def test_illegal_actions_play_no_part() -> None:
    pi, mu = (torch.cat([x, torch.full((3, 2, 1), -1e30)], -1) for x in (worked.LOGITS, worked.BEHAVIOUR_LOGITS))
    near(relevance(pi.double(), mu.double()), worked.RELEVANCE)
    assert not implied_policy(pi, mu)[..., -1].any()


def test_float32_is_as_good_as_it_can_be_and_never_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 10_000, 6, generator=generator)
    behaviour = logits + 1e-3 * torch.randn(1, 10_000, 6, generator=generator)
    found = relevance(logits, behaviour)
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), relevance(logits.double(), behaviour.double()), rtol=0, atol=1e-6)


def test_it_is_of_the_state_and_carries_no_gradient() -> None:
    logits = worked.LOGITS.clone().requires_grad_()
    assert not relevance(logits, worked.BEHAVIOUR_LOGITS).requires_grad


@pytest.mark.parametrize("b", [0.1, 0.3])
def test_the_mask_in_v_trace(b: float) -> None:
    """The worked example's targets and advantages: the last row of the replayed stream is rejected."""
    w = worked
    keep = relevance(w.LOGITS, w.BEHAVIOUR_LOGITS) < b
    assert keep.tolist() == [[True, True], [True, True], [True, False]]
    log_pi, log_mu = (x.log_softmax(-1).gather(-1, w.ACTION[..., None])[..., 0] for x in (w.LOGITS, w.BEHAVIOUR_LOGITS))
    out = vtrace(log_pi - log_mu, w.DISCOUNT, w.REWARD, w.VALUE, w.BOOTSTRAP_VALUE, keep=keep)
    near(out.target[:, 1], table([0.80255370, 1.396, 0.4]))
    near(out.advantage[:, 1], table([0.60255370, 1.496, 0.0]))
    near(out.target[:, 0], table([0.09102767, -0.91815387, -1.0]))
    near(0.5 * (out.target - w.VALUE).square().sum(), 2.446122088, 1e-9)
    near(-(log_pi * out.advantage).sum(), -0.591543233, 1e-9)


def integrated(mean: float, std: float, other_mean: float, other_std: float, rho_bar: float) -> float:
    """The relevance of two Gaussians in one dimension, by a sum over a fine grid."""
    a = torch.linspace(-60, 60, 2_000_001, dtype=torch.float64)
    pi = torch.distributions.Normal(mean, std).log_prob(a)
    mu = torch.distributions.Normal(other_mean, other_std).log_prob(a)
    least = torch.minimum(mu + math.log(rho_bar), pi)
    implied = least - (least.logsumexp(0) + math.log(float(a[1] - a[0])))
    return float((pi.exp() * (pi - implied)).sum() * (a[1] - a[0]))


@pytest.mark.parametrize("rho_bar", [1.0, 2.0])
@pytest.mark.parametrize("other", [(0.3, 1.0), (-1.0, 0.7), (0.5, 2.0), (2.0, 0.5)])
def test_gaussians_agree_with_the_integral(other: tuple[float, float], rho_bar: float) -> None:
    expected = integrated(0.0, 1.0, *other, rho_bar)
    arguments = table([0.0]), table([1.0]).log(), table([other[0]]), table([other[1]]).log()
    many = gaussian_relevance(*arguments, normal_points(2**14, 1), rho_bar)
    torch.testing.assert_close(many, table(expected), rtol=0.01, atol=1e-3)
    few = gaussian_relevance(*arguments, normal_points(POINTS, 1), rho_bar)
    torch.testing.assert_close(few, table(expected), rtol=0.1, atol=0.02)


def test_gaussians_of_many_dimensions_agree_with_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    size = 6
    mean, log_std, other_mean, other_log_std = (
        0.3 * torch.randn(5, size, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    a = mean + log_std.exp() * torch.randn(200_000, 5, size, generator=generator, dtype=torch.float64)
    pi, mu = (
        torch.distributions.Normal(m, s.exp()).log_prob(a).sum(-1)
        for m, s in ((mean, log_std), (other_mean, other_log_std))
    )
    y = (pi - mu).clamp(min=0)
    expected = y.mean(0) + (-y).exp().mean(0).log()
    found = gaussian_relevance(mean, log_std, other_mean, other_log_std, normal_points(POINTS, size))
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.02)
    unclipped = gaussian_relevance(mean, log_std, other_mean, other_log_std, normal_points(POINTS, size), None)
    assert torch.equal(unclipped, torch.zeros(5, dtype=torch.float64))
    assert (found < gaussian_kl(mean, log_std, other_mean, other_log_std)).all(), "it is less than KL(pi || mu)"


def test_points_are_the_same_each_time_and_spread_like_a_normal() -> None:
    torch.manual_seed(1)
    points = normal_points(POINTS, 17)
    torch.manual_seed(2)
    assert torch.equal(points, normal_points(POINTS, 17))
    torch.testing.assert_close(points.mean(0), torch.zeros(17))
    torch.testing.assert_close(points.square().mean(0), torch.ones(17))
    within = (points.abs() < 1).float().mean(0)
    torch.testing.assert_close(within, torch.full((17,), 0.683), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: implied_policy(x, x[..., :2]), r"behaviour_logits: expected shape \[3, 2, 3\], got \[3, 2, 2\]"),
        (lambda x: relevance(x[0], x), r"logits: expected 3 axes \[T, B, A\], got shape \[2, 3\]"),
        (lambda x: relevance(x, x, 0.0), r"rho_bar: expected a number above 0, got 0"),
        (
            lambda x: gaussian_relevance(x, x, x[0], x, normal_points(4, 3)),
            r"behaviour_mean: expected shape \[3, 2, 3\]",
        ),
        (
            lambda x: gaussian_relevance(x, x, x, x, normal_points(4, 2)),
            r"points: expected shape \[4, 3\], got \[4, 2\]",
        ),
    ],
)
def test_errors_name_argument_expected_and_got(call, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=text):
        call(worked.LOGITS)

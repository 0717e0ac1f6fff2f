"""LASER's trust region: which states of replayed experience V-trace may still learn from.

Source: Schmitt, Hessel, Simonyan 2020, "Off-Policy Actor-Critic with Shared Experience Replay", section 4. Implied
policy (there pi-tilde; Espeholt et al. 2018, eq. 2, as a distribution) -> ``implied_policy``; behaviour relevance
beta(pi, mu, s) -> ``relevance``. A row counts where ``relevance < b``: hand that mask to ``vtrace`` as ``keep``, and to
every loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes
from offbeat.algorithms.divergence import log_probs

POINTS = 128
"""Points at which ``gaussian_relevance`` looks at an action space, where an agent asks for it."""


def implied_policy(logits: Tensor, behaviour_logits: Tensor, rho_bar: float | None = 1.0) -> Tensor:
    """The policy whose values V-trace learns: ``min(rho_bar mu(a), pi(a)) / sum_b min(rho_bar mu(b), pi(b))``.

    Args:
        logits: [T, B, A] float, of pi, the policy that is trained.
        behaviour_logits: [T, B, A] float, of mu, the policy that acted.
        rho_bar: V-trace's clip, > 0; None: unclipped, and pi itself is evaluated.

    Returns:
        Probabilities [T, B, A] float.

    Raises:
        ValueError: a shape differs (the message names the argument, expected and got), or ``rho_bar`` is not above 0.

    Also where pi and mu have no action in common, so that all products underflow: it is taken from their logarithms.
    """
    return _log_implied(logits, behaviour_logits, rho_bar).exp()


@torch.no_grad()
def relevance(logits: Tensor, behaviour_logits: Tensor, rho_bar: float | None = 1.0) -> Tensor:
    """``beta = KL(pi || implied policy)``, of the state alone: a test of the sampled action would be biased.

    Arguments and errors as of ``implied_policy``.

    Returns:
        [T, B] float, nats, 0 or above, without gradients; 0: V-trace evaluates pi itself.
    """
    implied = _log_implied(logits, behaviour_logits, rho_bar)
    log_pi = log_probs(logits)
    return (log_pi.exp() * (log_pi - implied)).sum(-1).clamp(min=0.0)


@torch.no_grad()
def gaussian_relevance(
    mean: Tensor,
    log_std: Tensor,
    behaviour_mean: Tensor,
    behaviour_log_std: Tensor,
    points: Tensor,
    rho_bar: float | None = 1.0,
) -> Tensor:
    """``relevance`` of diagonal Gaussians, at S points in place of the integral over actions.

    With ``u(a) = log pi(a) - log mu(a)`` and ``y = max(0, u - log rho_bar)``, ``beta = E_pi[y] + log E_pi[exp(-y)]``;
    of both expectations the mean over the points ``a = mean + std z``. ``u`` is quadratic in z, so that all rows cost
    two products of matrices. The same points always give the same number, which is 0 or above.

    Args:
        mean: [..., D] float, of pi.
        log_std: [..., D] float, of pi.
        behaviour_mean: [..., D] float, of mu.
        behaviour_log_std: [..., D] float, of mu.
        points: [S, D] float, z, spread like a standard normal: see ``normal_points``.
        rho_bar: V-trace's clip, > 0; None: unclipped.

    Returns:
        [...] float, nats, without gradients.

    Raises:
        ValueError: a shape differs, or ``rho_bar`` is not above 0.
    """
    log_bar = _log_bar(rho_bar)
    check_shapes(tuple(mean.shape), log_std=log_std, behaviour_mean=behaviour_mean, behaviour_log_std=behaviour_log_std)
    check_shapes((len(points), mean.shape[-1]), points=points)
    shift, ratio = (mean - behaviour_mean) * (-behaviour_log_std).exp(), (log_std - behaviour_log_std).exp()
    z = points.to(shift.dtype)
    constant = (behaviour_log_std - log_std + 0.5 * shift.square()).sum(-1, keepdim=True)
    u = constant + (shift * ratio) @ z.T + (0.5 * (ratio.square() - 1.0)) @ z.square().T  # [..., S]
    y = (u - log_bar).clamp(min=0.0)
    return y.mean(-1) + (-y).logsumexp(-1) - math.log(len(points))


def normal_points(count: int, size: int) -> Tensor:
    """Points [count, size] float32 that are spread like a standard normal, more evenly than random ones; always the
    same: scrambled Sobol points with their mirror images, of mean 0 and variance 1. ``count``: even, 4 or above.
    """
    engine: Any = torch.quasirandom.SobolEngine  # torch has no types for it
    half: Tensor = engine(size, scramble=True, seed=0).draw(count // 2, dtype=torch.float64)
    normal = torch.special.ndtri(half.clamp(1e-9, 1 - 1e-9))
    normal /= normal.square().mean(0).sqrt()
    return torch.cat([normal, -normal]).float()


def _log_implied(logits: Tensor, behaviour_logits: Tensor, rho_bar: float | None) -> Tensor:
    """Logarithms [T, B, A] of the implied policy's probabilities."""
    log_bar = _log_bar(rho_bar)
    check_axes("T, B, A", logits=logits)
    check_shapes(tuple(logits.shape), behaviour_logits=behaviour_logits)
    return log_probs(torch.minimum(log_bar + log_probs(behaviour_logits), log_probs(logits)))


def _log_bar(rho_bar: float | None) -> float:
    if rho_bar is not None and not rho_bar > 0:
        raise ValueError(f"rho_bar: expected a number above 0, got {rho_bar:g}")
    return math.inf if rho_bar is None else math.log(rho_bar)

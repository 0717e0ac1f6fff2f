"""Kullback-Leibler divergences of policies, and logarithms of probabilities that stay finite.

Policies are plain tensors, as in ``actor_critic``: logits [..., A], or mean and log_std [..., D]. Sums over actions are
taken in log space; an action of probability 0 under the first policy adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_shapes

OfLogits: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From logits [..., A] of two policies to a number for each state [...]."""


def log_probs(logits: Tensor) -> Tensor:
    """``log softmax(logits)`` [..., A], whose least value is the least finite number: 0 times it is 0."""
    found = logits.log_softmax(-1)
    return found.clamp(min=torch.finfo(found.dtype).min)


def categorical_kl(logits: Tensor, other: Tensor) -> Tensor:
    """``KL(p || q) = sum_a p(a) (log p(a) - log q(a))`` in nats; differentiable in both.

    Args:
        logits: [..., A] float, of p.
        other: [..., A] float, of q.

    Returns:
        [...] float.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(tuple(logits.shape), other=other)
    log_p = log_probs(logits)
    return (log_p.exp() * (log_p - log_probs(other))).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians in nats; differentiable in all four.

    ``sum_d log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2``, with standard deviations s and means m.

    Args:
        mean: [..., D] float, of p.
        log_std: [..., D] float, of p.
        other_mean: [..., D] float, of q.
        other_log_std: [..., D] float, of q.

    Returns:
        [...] float, summed over D.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(tuple(mean.shape), log_std=log_std, other_mean=other_mean, other_log_std=other_log_std)
    log_ratio = log_std - other_log_std
    shift = (mean - other_mean) * (-other_log_std).exp()
    # expm1: of nearly equal spreads the difference of two large parts would be left.
    return 0.5 * (shift.square() + torch.expm1(2 * log_ratio) - 2 * log_ratio).sum(-1)


def over_components(divergence: OfLogits, logits: Tensor, other: Tensor, choices: tuple[int, ...]) -> Tensor:
    """The sum of ``divergence`` over the components of an action, which are drawn independently.

    logits, other: [..., sum(choices)] float, those of each component one after the other. Returns [...]. ValueError
    where the shapes differ.
    """
    check_shapes(tuple(logits.shape), other=other)
    parts = zip(torch.split(logits, list(choices), -1), torch.split(other, list(choices), -1), strict=True)
    return torch.stack([divergence(one, another) for one, another in parts]).sum(0)

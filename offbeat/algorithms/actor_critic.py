"""Actor-critic losses, and log-probabilities and entropies of the two kinds of policy.

Espeholt et al. 2018, section 4.2: policy gradient -> ``policy_gradient_loss``, baseline -> ``baseline_loss``, entropy
bonus -> ``entropy_loss``. Policies are plain tensors: logits [..., A], or mean and log_std [..., D].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_shapes

Reduction = Literal["sum", "mean"]
"""``sum``: over all rows that the mask keeps (as IMPALA does); ``mean``: that sum over the number of kept rows."""


def categorical_log_prob(logits: Tensor, action: Tensor) -> Tensor:
    """``log softmax(logits)[action]``. logits: [..., A] float; action: [...] int64 in [0, A). Returns [...]."""
    check_shapes(tuple(logits.shape[:-1]), action=action)
    return logits.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy ``-sum_a pi(a) log pi(a)`` of logits [..., A] in nats, [...]."""
    log_probs = logits.log_softmax(-1)
    # Probability 0 (a logit of -inf) adds nothing; without the clamp it would be 0 * -inf.
    log_probs = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    return -(log_probs.exp() * log_probs).sum(-1)


def multi_categorical_log_prob(logits: Tensor, action: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Log-probability of actions whose components are drawn independently, summed over them.

    logits: [..., sum(choices)] float, those of each component one after the other; action: [..., K] int64. Returns
    [...]. ValueError where the shapes differ.
    """
    check_shapes((*logits.shape[:-1], len(choices)), action=action)
    parts = zip(torch.split(logits, list(choices), -1), action.unbind(-1), strict=True)
    return torch.stack([categorical_log_prob(part, chosen) for part, chosen in parts]).sum(0)


def multi_categorical_entropy(logits: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Entropy of independent components, the sum of theirs: logits [..., sum(choices)] to nats [...]."""
    return torch.stack([categorical_entropy(part) for part in torch.split(logits, list(choices), -1)]).sum(0)


def multi_categorical_mode(logits: Tensor, choices: tuple[int, ...]) -> Tensor:
    """The most probable choice of each component: logits [..., sum(choices)] to int64 [..., K]."""
    return torch.stack([part.argmax(-1) for part in torch.split(logits, list(choices), -1)], -1)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density of ``action`` under independent Gaussians. All [..., D] float. Returns [...], summed over D."""
    check_shapes(tuple(mean.shape), log_std=log_std, action=action)
    scaled = (action - mean) * (-log_std).exp()
    return -(0.5 * scaled.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Differential entropy ``sum_d (log_std_d + log(2 pi e) / 2)`` of log_std [..., D] in nats, [...]."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def reduce(x: Tensor, mask: Tensor | None = None, reduction: Reduction = "sum") -> Tensor:
    """Sum or mean of ``x`` over the rows that ``mask`` (bool, same shape; None: all) keeps; 0 if it keeps none."""
    check_shapes(tuple(x.shape), mask=mask)
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction: expected 'sum' or 'mean', got {reduction!r}")
    total = x.sum() if mask is None else x.masked_fill(~mask, 0.0).sum()
    if reduction == "sum":
        return total
    return total / (max(x.numel(), 1) if mask is None else mask.sum().clamp(min=1))


def policy_gradient_loss(
    log_prob: Tensor, advantage: Tensor, mask: Tensor | None = None, reduction: Reduction = "sum"
) -> Tensor:
    """``-sum log pi(a_t) adv_t``; the advantage is held constant.

    Args:
        log_prob: [T, B] float, log pi(a_t) of the policy that is trained.
        advantage: [T, B] float.
        mask: [T, B] bool, rows that count; None: all.
        reduction: see ``Reduction``.

    Returns:
        [] float.
    """
    check_shapes(tuple(log_prob.shape), advantage=advantage)
    return reduce(-log_prob * advantage.detach(), mask, reduction)


def baseline_loss(value: Tensor, target: Tensor, mask: Tensor | None = None, reduction: Reduction = "sum") -> Tensor:
    """``0.5 sum (target_t - value_t)^2``; the target is held constant. All [T, B]; returns []."""
    check_shapes(tuple(value.shape), target=target)
    return reduce(0.5 * (target.detach() - value).square(), mask, reduction)


def entropy_loss(entropy: Tensor, mask: Tensor | None = None, reduction: Reduction = "sum") -> Tensor:
    """``-sum H(pi_t)``: minimising it keeps the policy from settling too early. entropy: [T, B]; returns []."""
    return reduce(-entropy, mask, reduction)

"""What prioritised, distributed Q-learning adds: exploration ladder, importance weights, priorities of sequences.

Schaul et al. 2016, "Prioritized Experience Replay", section 3.4 -> ``importance_weights``; Horgan et al. 2018,
"Distributed Prioritized Experience Replay" (Ape-X), section 4.1 -> ``epsilon_ladder``; Kapturowski et al. 2019,
"Recurrent Experience Replay in Distributed Reinforcement Learning" (R2D2), section 2.3 -> ``max_mean``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes


def epsilon_ladder(num_actors: int, base: float = 0.4, alpha: float = 7.0) -> Tensor:
    """``epsilon_i = base ** (1 + alpha i / (N - 1))`` for i = 0 .. N - 1 (Horgan et al. 2018); N = 1: ``base``.

    Args:
        num_actors: N, >= 1.
        base: epsilon of the most exploring actor, in [0, 1].
        alpha: how steeply the others explore less, >= 0.

    Returns:
        [N] float64.

    Raises:
        ValueError: an argument is out of range.
    """
    if num_actors < 1:
        raise ValueError(f"num_actors: expected at least 1, got {num_actors}")
    if not 0.0 <= base <= 1.0:
        raise ValueError(f"base: expected 0 to 1, got {base}")
    if not alpha >= 0.0:
        raise ValueError(f"alpha: expected 0 or above, got {alpha}")
    place = torch.arange(num_actors, dtype=torch.float64) / max(1, num_actors - 1)
    return torch.tensor(base, dtype=torch.float64) ** (1.0 + alpha * place)


@torch.no_grad()
def importance_weights(probability: Tensor, size: int, beta: float, reference: float | None = None) -> Tensor:
    """``w_i = (N P(i)) ** -beta``, divided by the largest (Schaul et al. 2016, section 3.4).

    Args:
        probability: [B] float, P(i) with which each item was drawn, > 0.
        size: N, items that could have been drawn, >= 1.
        beta: strength of the correction, >= 0; 1 corrects fully.
        reference: weight to divide by; None: the batch's largest.

    Returns:
        [B] without gradients.

    Raises:
        ValueError: a shape or an argument is out of range.
    """
    check_axes("B", probability=probability)
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    if not beta >= 0.0:
        raise ValueError(f"beta: expected 0 or above, got {beta}")
    if reference is not None and not reference > 0.0:
        raise ValueError(f"reference: expected above 0, got {reference}")
    weight = (size * probability) ** -beta
    return weight / (weight.max() if reference is None else reference)


@torch.no_grad()
def max_mean(td_error: Tensor, mask: Tensor, eta: float) -> Tensor:
    """``eta max_t |d_t| + (1 - eta) mean_t |d_t|`` over masked steps (Kapturowski et al. 2019, section 2.3).

    ``replay/scan.py`` has the same for priorities before anything was trained on.

    Args:
        td_error: [T, B] float.
        mask: [T, B] bool, steps that count: trained on, neither burn-in nor padding.
        eta: share of the largest, in [0, 1].

    Returns:
        [B] without gradients; 0 for a sequence without steps.

    Raises:
        ValueError: a shape differs or ``eta`` is out of range.
    """
    check_axes("T, B", td_error=td_error)
    check_shapes(tuple(td_error.shape), mask=mask)
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta: expected 0 to 1, got {eta}")
    size = torch.where(mask, td_error.abs(), torch.zeros_like(td_error))
    mean = size.sum(0) / mask.sum(0).clamp(min=1)
    return eta * size.amax(0) + (1.0 - eta) * mean

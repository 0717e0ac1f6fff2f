"""Returns: value rescaling and n-step targets.

Pohlen et al. 2018, "Observe and Look Further", proposition A.2 -> ``rescale``, ``unrescale``; Sutton & Barto 2018,
eq. 7.1 -> ``n_step_target``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes


def rescale(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """``h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x``, differentiable (Pohlen et al. 2018).

    Args:
        x: float, any shape.
        epsilon: slope that keeps the inverse Lipschitz, >= 0.

    Returns:
        As ``x``. Computed as ``x / (sqrt(|x| + 1) + 1) + epsilon x``, which loses no digits near 0.
    """
    return x / ((x.abs() + 1.0).sqrt() + 1.0) + epsilon * x


def unrescale(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """The inverse of ``rescale``, differentiable (Pohlen et al. 2018, proposition A.2).

    With ``q = sqrt(1 + 4 epsilon (|x| + 1 + epsilon))`` and ``u = 2 |x| / (q + 1 + 2 epsilon)`` it is
    ``sign(x) u (u + 2)``: the textbook form without its two subtractions of nearly equal numbers, which cost float32
    up to three digits at ``epsilon = 1e-3``. Also right for ``epsilon = 0``.

    Args:
        x: float, any shape.
        epsilon: as given to ``rescale``, >= 0.

    Returns:
        As ``x``.
    """
    q = (1.0 + 4.0 * epsilon * (x.abs() + 1.0 + epsilon)).sqrt()
    u = 2.0 * x / (q + 1.0 + 2.0 * epsilon)  # signed; a division, whose gradient does not overflow for large x
    return u * (u.abs() + 2.0)


@torch.no_grad()
def n_step_target(reward: Tensor, discount: Tensor, bootstrap: Tensor, n: int, cut: Tensor | None = None) -> Tensor:
    """N-step returns, shorter at the end of the block and at a cut (Sutton & Barto 2018, eq. 7.1).

    ``target_t = r_t + g_t r_{t+1} + ... + (g_t ... g_{t+m-1}) bootstrap_{t+m-1}`` with ``m = n``, or fewer where the
    block ends or where ``cut[t + m - 1]`` is set.

    Args:
        reward: [T, B] float, from action t.
        discount: [T, B] float in [0, 1], gamma (1 - terminated).
        bootstrap: [T, B] float; ``bootstrap[t]`` is the value of the observation that follows action t.
        n: steps, >= 1.
        cut: [T, B] bool, True where the episode was truncated after action t; None: nowhere.

    Returns:
        [T, B] without gradients.

    Raises:
        ValueError: a shape differs, or ``n < 1``.
    """
    check_axes("T, B", reward=reward)
    check_shapes(tuple(reward.shape), discount=discount, bootstrap=bootstrap, cut=cut)
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    target = reward + discount * bootstrap
    for _ in range(min(n, reward.shape[0]) - 1):
        following = torch.cat([target[1:], bootstrap[-1:]])
        if cut is not None:
            following = torch.where(cut, bootstrap, following)
        target = reward + discount * following
    return target

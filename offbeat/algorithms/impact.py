"""IMPACT's surrogate: PPO's clipped objective, with a target policy between workers and learner.

Source: Luo et al. 2020, "IMPACT: Importance Weighted Asynchronous Architectures with Clipped Target Networks",
section 3: the ratio R and the objective, in the form of RLlib's APPO, by the same authors -> ``ratio``, ``surrogate``.
The adaptive coefficient of its KL term (Schulman et al. 2017, section 4, with RLlib's numbers) -> ``adapted``.

mu: the worker's policy, which acted; pi_t: the target policy, a copy of the learner's from some updates ago; pi: the
learner's, which is trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_shapes


def ratio(log_prob: Tensor, target_log_prob: Tensor, behaviour_log_prob: Tensor, rho: float = 2.0) -> Tensor:
    """``R = min(mu / pi_t, rho) pi / mu``, which is ``pi / max(pi_t, mu / rho)``.

    Args:
        log_prob: [...] float, log pi(a_t).
        target_log_prob: [...] float, log pi_t(a_t); held constant.
        behaviour_log_prob: [...] float, log mu(a_t); held constant.
        rho: clip of the workers' weight against the target, > 0.

    Returns:
        [...] float, differentiable in ``log_prob``.

    Raises:
        ValueError: a shape differs (the message names the argument, expected and got), or ``rho`` is not above 0.
    """
    check_shapes(tuple(log_prob.shape), target_log_prob=target_log_prob, behaviour_log_prob=behaviour_log_prob)
    if not rho > 0:
        raise ValueError(f"rho: expected a number above 0, got {rho:g}")
    below = torch.maximum(target_log_prob.detach(), behaviour_log_prob.detach() - math.log(rho))
    return (log_prob - below).exp()


def surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """``min(R A, clip(R, 1 - eps, 1 + eps) A)``, to be maximised.

    Args:
        ratio: [...] float, R >= 0.
        advantage: [...] float, A; held constant.
        clip: eps, 0 or above.

    Returns:
        [...] float, differentiable in ``ratio``: not where R lies outside and A asks for more of it.

    Raises:
        ValueError: a shape differs (the message names the argument, expected and got), or ``clip`` is below 0.
    """
    check_shapes(tuple(ratio.shape), advantage=advantage)
    if not clip >= 0:
        raise ValueError(f"clip: expected 0 or above, got {clip:g}")
    advantage = advantage.detach()
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def adapted(coefficient: Tensor, divergence: Tensor, target: float) -> Tensor:
    """The coefficient of the KL term, adapted: 1.5 k if KL > 2 target, 0.5 k if KL < 0.5 target, else k.

    Args:
        coefficient: [] float, k > 0.
        divergence: [] float, the mean of KL(pi_t || pi) in nats.
        target: where it should lie, > 0.

    Returns:
        [] float, without gradients.
    """
    coefficient, divergence = coefficient.detach(), divergence.detach()
    factor = torch.where(divergence > 2.0 * target, 1.5, torch.where(divergence < 0.5 * target, 0.5, 1.0))
    return coefficient * factor.to(coefficient.dtype)

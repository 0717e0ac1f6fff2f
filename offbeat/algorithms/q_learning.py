"""Q-learning targets: double Q-learning, the categorical projection, and expected values of categorical returns.

van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning" -> ``double_q``; Bellemare et al. 2017,
"A Distributional Perspective on Reinforcement Learning", algorithm 1 -> ``categorical_projection``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes
from offbeat.algorithms.legal import mask_illegal


@torch.no_grad()
def double_q(q_online: Tensor, q_target: Tensor, legal: Tensor | None = None) -> Tensor:
    """The target network's value of the action that the online network prefers (van Hasselt et al. 2016, eq. 4).

    ``Q(s, argmax_a Q(s, a; theta); theta')``

    Args:
        q_online: [..., A] float, of theta.
        q_target: [..., A] float, of theta'.
        legal: [..., A] bool, actions that may be taken; None: all. Where none is, all count.

    Returns:
        [...] without gradients.

    Raises:
        ValueError: a shape differs.
    """
    check_shapes(tuple(q_online.shape), q_target=q_target, legal=legal)
    best = mask_illegal(q_online, legal).argmax(-1, keepdim=True)
    return q_target.gather(-1, best).squeeze(-1)


def dueling(value: Tensor, advantage: Tensor, legal: Tensor | None = None, atoms: bool = False) -> Tensor:
    """``Q = V + A - mean_a A`` (Wang et al. 2016, eq. 9), differentiable.

    Args:
        value: [..., 1] float, or [..., 1, Z] with ``atoms``.
        advantage: [..., A] float, or [..., A, Z].
        legal: [..., A] bool: the mean is taken over legal actions only; None, or none legal: over all.
        atoms: both are logits of distributions over Z atoms.

    Returns:
        As ``advantage``.
    """
    axis = advantage.dim() - 1 - int(atoms)
    check_shapes((*advantage.shape[:axis], 1, *advantage.shape[axis + 1 :]), value=value)
    if legal is None:
        return value + advantage - advantage.mean(axis, keepdim=True)
    check_shapes(tuple(advantage.shape[: axis + 1]), legal=legal)
    weight = (legal | ~legal.any(-1, keepdim=True)).to(advantage.dtype)
    weight = weight.reshape(*weight.shape, *([1] * (advantage.dim() - weight.dim())))
    mean = (advantage * weight).sum(axis, keepdim=True) / weight.sum(axis, keepdim=True)
    return value + advantage - mean


@torch.no_grad()
def categorical_projection(support: Tensor, probs: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """Project the distribution of ``reward + discount * z`` back onto ``support`` (Bellemare et al. 2017, algorithm 1).

    Each atom's mass goes to its two neighbours in proportion to nearness; mass beyond an end goes to that end; an atom
    that hits the support exactly keeps all of its mass there (the algorithm as printed drops it).

    Args:
        support: [Z] float, evenly spaced, increasing, Z >= 2.
        probs: [B, Z] float, probabilities of the next state's atoms.
        reward: [B] float, n-step sums included.
        discount: [B] float, 0 where the episode ended.

    Returns:
        [B, Z] without gradients; each row sums to what ``probs`` sums to.

    Raises:
        ValueError: a shape differs, or the support has fewer than two atoms.
    """
    check_axes("Z", support=support)
    check_axes("B, Z", probs=probs)
    batch, atoms = probs.shape
    check_shapes((atoms,), support=support)
    check_shapes((batch,), reward=reward, discount=discount)
    if atoms < 2:
        raise ValueError(f"support: expected at least 2 atoms, got {atoms}")
    low, high = support[0], support[-1]
    moved = (reward[:, None] + discount[:, None] * support).clamp(low, high)
    place = (moved - low) * ((atoms - 1) / (high - low))  # in atoms
    place = place.clamp(0, atoms - 1)  # rounding may lead past the ends
    left = place.floor().clamp(max=atoms - 2)
    share = place - left  # of the right neighbour; 1 at the last atom
    index = left.long()
    projected = torch.zeros_like(probs)
    projected.scatter_add_(1, index, probs * (1 - share))
    projected.scatter_add_(1, index + 1, probs * share)
    return projected


def expected_value(support: Tensor, probs: Tensor) -> Tensor:
    """``sum_z z p(z)``: [...] from ``support`` [Z] and ``probs`` [..., Z]; differentiable."""
    return (support * probs).sum(-1)

"""Attentive and elite replay: how many candidates are drawn, how far each is from now, which of them are trained on.

Sun et al. 2020, "Attentive Experience Replay" (AAAI 34:5900): draw more than are needed, keep those most like the
present, and need fewer extra draws as training goes on. The four strategies and the distances are those of the platform
github.com/parralplex/elite_buffer_vtrace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes

Slot = TypeVar("Slot")

DISTANCES = ("ln_norm", "cosine", "kl")
"""Names of ``distance``."""
STRATEGIES = (1, 2, 3, 4)
"""Numbers of ``select``'s strategies."""
TINY = 1e-6
"""Least product of two lengths that a cosine is divided by."""


def multiplier(call: int, initial: float, steps: int, alpha: float) -> float:
    """``lambda_k = max(1, lambda_0 - k (lambda_0 - 1) / (S alpha))``: candidates per item that is needed.

    ``int(lambda_k * n)`` candidates are drawn for n items. From call ``S alpha`` on it is 1, which is uniform replay.

    Args:
        call: k, 1 at the first draw.
        initial: lambda_0, >= 1; the larger, the greedier.
        steps: S, >= 1. Unit: draws.
        alpha: annealing factor, > 0.

    Raises:
        ValueError: an argument is out of range.
    """
    if call < 1:
        raise ValueError(f"call: expected at least 1, got {call}")
    if not initial >= 1.0:
        raise ValueError(f"initial: expected 1 or above, got {initial}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if not alpha > 0.0:
        raise ValueError(f"alpha: expected above 0, got {alpha}")
    return max(1.0, initial - call * (initial - 1.0) / (steps * alpha))


def select(
    strategy: int, slots: Sequence[Slot], distances: Sequence[float], counters: Sequence[int], n: int
) -> list[Slot]:
    """``n`` of the drawn candidates. With U distinct ones in ascending order of distance (ties as drawn), q = U // n:

    1. upwards from the nearest, each as often as it was drawn;
    2. the nearest of each of n groups of q: those at 0, q, 2 q, ...;
    3. the n that were used least (ties: the nearest);
    4. of each of n groups of q the one that was used least (ties: the nearest).

    Args:
        strategy: 1 to 4.
        slots: [m] names of the candidates; equal ones were drawn more than once.
        distances: [m] of each candidate; equal slots have equal ones. NaN counts as farthest.
        counters: [m] how often each was used before.
        n: 1 <= n <= m.

    Returns:
        [n] of ``slots``.

    Differs from the platform: where U < n its strategies 2 and 4 divide by zero and 3 never ends. Here all distinct
    candidates are taken, and then, in the same order, those that were drawn more than once, once more for each draw.

    Raises:
        ValueError: the lengths differ, or an argument is out of range.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected 1, 2, 3 or 4, got {strategy}")
    if not len(slots) == len(distances) == len(counters):
        raise ValueError(
            f"slots, distances, counters: expected equal lengths, got {len(slots)}, {len(distances)}, {len(counters)}"
        )
    if not 1 <= n <= len(slots):
        raise ValueError(f"n: expected 1 to {len(slots)}, the number of slots, got {n}")
    drawn: dict[Slot, int] = {}  # by first draw
    far: dict[Slot, float] = {}
    used: dict[Slot, int] = {}
    for slot, distance_, counter in zip(slots, distances, counters):
        drawn[slot] = drawn.get(slot, 0) + 1
        far[slot] = float("inf") if distance_ != distance_ else float(distance_)
        used[slot] = int(counter)
    nearest = sorted(drawn, key=lambda slot: far[slot])
    if strategy == 1:
        return [slot for slot in nearest for _ in range(drawn[slot])][:n]
    order = sorted(nearest, key=lambda slot: used[slot]) if strategy == 3 else nearest
    if len(order) < n:
        again = [slot for slot in order for _ in range(drawn[slot] - 1)]
        return [*order, *again][:n]
    if strategy == 3:
        return order[:n]
    size = len(order) // n
    groups = [order[start : start + size] for start in range(0, size * n, size)]
    if strategy == 2:
        return [group[0] for group in groups]
    return [min(group, key=lambda slot: used[slot]) for group in groups]


@torch.no_grad()
def distance(name: str, x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """How far apart two descriptions of the same rows are, for each of M items.

    ``ln_norm``: ``(sum_tf |x - y|^p)^(1/p)``; ``cosine``: ``1 - x.y / (|x| |y|)`` over all rows at once; ``kl``:
    ``sum_t KL(softmax(x_t) || softmax(y_t))``. A row that is zero in both adds nothing to any of them.

    Args:
        name: ``ln_norm``, ``cosine`` or ``kl``.
        x: [M, T, F] float, under the weights of now.
        y: [M, T, F] float, what it is compared with.
        p: of ``ln_norm``, >= 1.

    Returns:
        [M] without gradients, >= 0.

    Differs from the platform: it takes the cosine itself, a similarity, for the distance.

    Raises:
        ValueError: a shape differs or an argument is out of range.
    """
    if name not in DISTANCES:
        raise ValueError(f"name: expected one of {', '.join(DISTANCES)}, got {name!r}")
    if not p >= 1.0:
        raise ValueError(f"p: expected 1 or above, got {p}")
    check_axes("M, T, F", x=x)
    check_shapes(tuple(x.shape), y=y)
    if name == "kl":
        log_x, log_y = x.log_softmax(-1), y.log_softmax(-1)
        return (log_x.exp() * (log_x - log_y)).sum((1, 2)).clamp(min=0.0)
    x, y = x.flatten(1), y.flatten(1)
    if name == "ln_norm":
        return _length(x - y, p)
    lengths = _length(x) * _length(y)
    return (1.0 - (x * y).sum(1) / lengths.clamp(min=TINY)).clamp(min=0.0)


def _length(x: Tensor, p: float = 2.0) -> Tensor:
    """p-norms [M] of x [M, N]."""
    length: Tensor = torch.linalg.vector_norm(x, p, dim=1)
    return length


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two lists [M] of numbers: Pearson's of their ranks, equal numbers share theirs.

    Returns:
        In [-1, 1]; NaN where M < 2 or all numbers of one list are equal.

    Raises:
        ValueError: a shape differs.
    """
    check_axes("M", one=one)
    check_shapes(tuple(one.shape), other=other)
    if len(one) < 2:
        return float("nan")
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale else float("nan")


def _ranks(values: Tensor) -> Tensor:
    """[M] float64 ranks from 0; equal values have the mean of theirs."""
    _, group, size = torch.unique(values, return_inverse=True, return_counts=True)
    after = size.cumsum(0)
    mean: Tensor = ((after - size).double() + (size.double() - 1.0) / 2.0)[group]
    return mean

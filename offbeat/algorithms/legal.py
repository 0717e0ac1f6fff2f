"""Masks of actions: which may be taken, the best of them, one drawn among them.

Where no action is legal (an observation that ends a game may say so), all count as legal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_shapes

FORBIDDEN = -1e30
"""Value or logit of actions that are not allowed: finite, so that bf16, sums and products with 0 survive it."""


def mask_illegal(q: Tensor, legal: Tensor | None, choices: tuple[int, ...] = ()) -> Tensor:
    """``q`` [..., A], values or logits, with those of illegal actions far below all others; differentiable.

    ``legal``: [..., A] bool, None: all are. Where none is, ``q`` itself. ``choices``: A is made of so many choices of
    each component of an action; empty: there is one.
    """
    if legal is None:
        return q
    if len(choices) > 1:
        parts = zip(torch.split(q, list(choices), -1), torch.split(legal, list(choices), -1), strict=True)
        return torch.cat([mask_illegal(values, allowed) for values, allowed in parts], -1)
    return q.masked_fill(~legal & legal.any(-1, keepdim=True), FORBIDDEN)


def draw_legal(legal: Tensor, uniform: Tensor) -> Tensor:
    """A legal action each, all of them equally likely.

    Args:
        legal: [..., A] bool; where none is, all are.
        uniform: [...] float, drawn from [0, 1).

    Returns:
        [...] int64: of n legal actions the ``floor(n * uniform)``-th.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(tuple(legal.shape[:-1]), uniform=uniform)
    legal = legal | ~legal.any(-1, keepdim=True)
    count = legal.sum(-1)
    place = torch.minimum((uniform * count).long(), count - 1)  # rounding may lead to the count itself
    return (legal.cumsum(-1) > place.unsqueeze(-1)).int().argmax(-1)

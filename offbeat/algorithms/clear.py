"""Behavioural cloning of what is replayed: the two losses of CLEAR.

Source: Rolnick et al. 2019, "Experience Replay for Continual Learning", section 3: L_policy-cloning ->
``policy_cloning``, L_value-cloning -> ``value_cloning``. The variant of the V-trace
platform ``parralplex/elite_buffer_vtrace``: ``KL(pi || mu)``, which is ``divergence.categorical_kl``, and
``value_cloning_norm``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes
from offbeat.algorithms.divergence import categorical_kl


def policy_cloning(behaviour_logits: Tensor, logits: Tensor) -> Tensor:
    """``KL(mu || pi) = sum_a mu(a|s_t) log(mu(a|s_t) / pi(a|s_t))``: keep doing what was done.

    Args:
        behaviour_logits: [T, B, A] float, of mu, the policy that acted; held constant.
        logits: [T, B, A] float, of pi, the policy that is trained.

    Returns:
        [T, B] float, nats; differentiable in ``logits``.

    Raises:
        ValueError: a shape differs; the message names the argument, expected and got.
    """
    check_axes("T, B, A", behaviour_logits=behaviour_logits)
    check_shapes(tuple(behaviour_logits.shape), logits=logits)
    return categorical_kl(behaviour_logits.detach(), logits)


def value_cloning(behaviour_value: Tensor, value: Tensor) -> Tensor:
    """``(V(s_t) - V_mu(s_t))^2``: keep valuing states as they were valued.

    Args:
        behaviour_value: [T, B] float, the value at acting time; held constant.
        value: [T, B] float, the value that is trained.

    Returns:
        [T, B] float; differentiable in ``value``.

    Raises:
        ValueError: a shape differs; the message names the argument, expected and got.
    """
    check_axes("T, B", behaviour_value=behaviour_value)
    check_shapes(tuple(behaviour_value.shape), value=value)
    return (value - behaviour_value.detach()).square()


def value_cloning_norm(behaviour_value: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """``sqrt(sum_{t, b} (V - V_mu)^2)`` over the rows that ``mask`` keeps, the platform's form.

    Args:
        behaviour_value: [T, B] float, the value at acting time; held constant.
        value: [T, B] float, the value that is trained.
        mask: [T, B] bool; None: all rows.

    Returns:
        [] float; differentiable in ``value``, with gradient 0 where all differences are 0.

    Raises:
        ValueError: a shape differs; the message names the argument, expected and got.

    Differs from the paper: not squared, so that the gradient is the same however large the differences are, and shared
    by all rows of the batch. Norms of shards do not add up to that of the whole.
    """
    check_axes("T, B", behaviour_value=behaviour_value)
    check_shapes(tuple(behaviour_value.shape), value=value, mask=mask)
    difference = value - behaviour_value.detach()
    if mask is not None:
        difference = difference.masked_fill(~mask, 0.0)
    norm: Tensor = torch.linalg.vector_norm(difference)
    return norm

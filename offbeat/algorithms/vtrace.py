"""V-trace: off-policy corrected value targets and policy-gradient advantages.

Source: Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures", section 4. Eq. 1 (targets; here in the recursive form of remark 1) and the advantage of section 4.2
-> ``vtrace``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from offbeat.algorithms.checks import check_axes, check_shapes


class VTrace(NamedTuple):
    """Targets ``v_s`` for the value and advantages for the policy gradient, both [T, B] and detached."""

    target: Tensor  # [T, B]
    advantage: Tensor  # [T, B]


@torch.no_grad()
def vtrace(
    log_ratio: Tensor,
    discount: Tensor,
    reward: Tensor,
    value: Tensor,
    bootstrap_value: Tensor,
    rho_bar: float | None = 1.0,
    c_bar: float | None = 1.0,
    pg_rho_bar: float | None = 1.0,
    lambda_: float | Tensor = 1.0,
    keep: Tensor | None = None,
) -> VTrace:
    """V-trace targets and advantages (Espeholt et al. 2018, eq. 1).

    With ``ratio = exp(log_ratio)``, ``rho = min(rho_bar, ratio)``, ``c = lambda_ min(c_bar, ratio)`` and ``V_T`` the
    bootstrap value::

        delta_t = rho_t (r_t + g_t V_{t+1} - V_t)
        v_t     = V_t + delta_t + g_t c_t (v_{t+1} - V_{t+1}),      v_T = V_T
        adv_t   = min(pg_rho_bar, ratio_t) (r_t + g_t v_{t+1} - V_t)

    Args:
        log_ratio: [T, B] float, ``log pi(a_t) - log mu(a_t)``: target policy over behaviour policy.
        discount: [T, B] float in [0, 1], ``g_t = gamma (1 - terminated)`` of the step that action t began.
        reward: [T, B] float, from action t.
        value: [T, B] float, ``V(observation_t)``.
        bootstrap_value: [B] float, ``V(observation_T)``.
        rho_bar: clip of the correction, > 0; it sets the fixed point. None: unclipped.
        c_bar: clip of the traces, > 0, at most ``rho_bar``; it sets speed and variance. None: unclipped.
        pg_rho_bar: clip of the advantage's correction, > 0. None: unclipped.
        lambda_: decay of the traces in [0, 1], a number, or [T, B] float: one of each row's.
        keep: [T, B] bool. Where False (the row of a final observation, or a row masked by LASER), the target is the
            row's own value, no trace passes and the advantage is 0. None: all rows are kept.

    Returns:
        ``VTrace(target, advantage)``, both [T, B] in the dtype of ``value``, without gradients.

    Raises:
        ValueError: a shape differs; the message names the argument, expected and got.

    Differs from the paper: ``pg_rho_bar`` is apart from ``rho_bar`` (as in the authors' code), ``keep``.
    """
    check_axes("T, B", log_ratio=log_ratio)
    shape = tuple(log_ratio.shape)
    check_shapes(shape, discount=discount, reward=reward, value=value, keep=keep)
    check_shapes(shape[1:], bootstrap_value=bootstrap_value)
    if isinstance(lambda_, Tensor):
        check_shapes(shape, lambda_=lambda_)
    if shape[0] == 0:
        return VTrace(value.detach().clone(), value.detach().clone())

    ratio = log_ratio.exp()
    trace = discount * _clip(ratio, c_bar) * lambda_
    next_value = torch.cat([value[1:], bootstrap_value[None]])
    delta = _clip(ratio, rho_bar) * (reward + discount * next_value - value)
    if keep is not None:
        # masked_fill, not a product: a ratio of a meaningless row may be infinite.
        trace = trace.masked_fill(~keep, 0.0)
        delta = delta.masked_fill(~keep, 0.0)

    deltas, traces = delta.unbind(), trace.unbind()
    correction = deltas[-1]  # v_t - V_t
    corrections = [correction]
    for t in range(shape[0] - 2, -1, -1):
        correction = torch.addcmul(deltas[t], traces[t], correction)
        corrections.append(correction)
    corrections.reverse()

    target = value + torch.stack(corrections)
    next_target = torch.cat([target[1:], bootstrap_value[None]])
    advantage = _clip(ratio, pg_rho_bar) * (reward + discount * next_target - value)
    if keep is not None:
        advantage = advantage.masked_fill(~keep, 0.0)
    return VTrace(target, advantage)


def _clip(ratio: Tensor, bar: float | None) -> Tensor:
    """``min(bar, ratio)``; None: ``ratio`` itself."""
    return ratio if bar is None else ratio.clamp(max=bar)

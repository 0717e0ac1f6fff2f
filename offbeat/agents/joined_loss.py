"""IMPALA's loss in few steps on a processor: V-trace, the gradients of its three terms and its numbers in one loop.

Small networks are trained on some hundred rows at a time. Sixty operations of autograd on so few numbers cost several
times as much as the arithmetic. Here what autograd would do is written out, operation by operation in the same order,
so that gradients are the same bit by bit; ``missing`` tries that once. Logarithms and powers of e are torch's own. What
is told to the log is added up in another order, and may differ in the last digits.

Source: Espeholt et al. 2018, eq. 1 and section 4.2; see ``algorithms.vtrace`` and ``algorithms.actor_critic``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba.extending import intrinsic
from torch import Tensor

from offbeat.algorithms import actor_critic
from offbeat.algorithms.compiling import compiled
from offbeat.algorithms.vtrace import vtrace
from offbeat.errors import failure

LEAST = float(np.finfo(np.float32).min)
"""Logarithms of probabilities below this count as this in the entropy, as of ``actor_critic.categorical_entropy``."""
NUMBERS = (
    "policy_loss", "baseline_loss", "entropy_loss", "entropy", "ratio_mean", "ratio_clipped_share", "value_mean",
    "target_mean", "advantage_mean", "explained_variance", "valid_share",
)  # fmt: skip
"""What is told to the log: sums of the three losses, and means over the valid rows."""


class Constants(NamedTuple):
    """What the loss is made with; see ``impala.Config``."""

    rho_bar: float
    c_bar: float
    pg_rho_bar: float
    lambda_: float
    baseline_cost: float
    entropy_cost: float


class Rows(NamedTuple):
    """What the loss needs of T rows of B streams, without gradients. Row T is that of the bootstrap value."""

    behaviour_logits: Tensor  # [T, B, A] float32
    action: Tensor  # [T, B] int64
    reward: Tensor  # [T, B] float32
    discount: Tensor  # [T, B] float32
    valid: Tensor  # [T, B] bool: rows that count, in every term and in V-trace


def joins(policy: Tensor, value: Tensor, rows: Rows) -> bool:
    """Whether the loss of logits ``policy`` [T + 1, B, A] and ``value`` [T + 1, B] can be had by ``joined_loss``.

    Float32 on a processor, where a gradient is wanted, all of the right shape, and not while a compiler looks on.
    """
    if torch.compiler.is_compiling() or policy.device.type != "cpu" or not (policy.requires_grad and len(policy) > 1):
        return False
    lead = (policy.shape[0] - 1, policy.shape[1])
    floats = (policy, value, rows.behaviour_logits, rows.reward, rows.discount)
    fits = rows.behaviour_logits.shape == (*lead, policy.shape[2]) and value.shape == policy.shape[:2]
    fits = fits and all(one.shape == lead for one in rows[1:]) and all(one.dtype == torch.float32 for one in floats)
    return fits and rows.action.dtype == torch.int64 and rows.valid.dtype == torch.bool and not missing()


def joined_loss(policy: Tensor, value: Tensor, rows: Rows, constants: Constants) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss [] of IMPALA, summed over rows, with the way back to ``policy`` and ``value``; and ``NUMBERS``, each [].

    Args:
        policy: [T + 1, B, A] float32, logits; the last row has no action.
        value: [T + 1, B] float32, the last one to bootstrap from.
        rows: what was done.
        constants: clips, decay and weights.
    """
    with torch.no_grad():
        log_probs = policy.detach()[:-1].log_softmax(-1)
        behaviour = rows.behaviour_logits.log_softmax(-1)
        log_ratio = torch.empty_like(rows.reward, memory_format=torch.contiguous_format)
        action, found = _array(rows.action), np.empty(len(NUMBERS), np.float32)
        _log_ratios(_array(log_probs), _array(behaviour), action, log_ratio.numpy())
        by_action, by_entropy = torch.empty_like(log_probs), torch.empty_like(log_probs)
        to_policy, to_value = torch.zeros_like(policy), torch.zeros_like(value)
        total = _derive(
            log_probs.numpy(),
            log_probs.clamp(min=LEAST).exp().numpy(),
            action,
            log_ratio.exp().numpy(),
            _array(rows.discount),
            _array(rows.reward),
            _array(value.detach()),
            _array(rows.valid),
            np.array(constants, np.float32),
            by_action.numpy(),
            by_entropy.numpy(),
            to_value.numpy(),
            found,
        )
        back = torch.ops.aten._log_softmax_backward_data
        by_action = back(by_action, log_probs, -1, torch.float32)
        torch.add(by_action, back(by_entropy, log_probs, -1, torch.float32), out=to_policy[:-1])
    loss: Tensor = _Known.apply(policy, value, total, to_policy, to_value)
    return loss, dict(zip(NUMBERS, torch.from_numpy(found).unbind(), strict=True))


class _Known(torch.autograd.Function):
    """A number whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, policy: Tensor, value: Tensor, total: float, to_policy: Tensor, to_value: Tensor) -> Tensor:
        ctx.known = to_policy, to_value
        return policy.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_policy, to_value = ctx.known
        if float(grad) != 1.0:
            to_policy, to_value = grad * to_policy, grad * to_value
        return to_policy, to_value, None, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy()


def _choose_fused(typing: Any, *kinds: Any) -> tuple[Any, Any]:
    """``a * b + c`` of float32, rounded once, as ``torch.addcmul`` has it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return numba.types.float32(*[numba.types.float32] * len(kinds)), generate


def _of_three(choose: Any) -> Any:
    """What compiled code calls, with three arguments."""
    return intrinsic(lambda typing, a, b, c: choose(typing, a, b, c))


_fused: Any = _of_three(_choose_fused)


@compiled
def _log_ratios(log_probs: np.ndarray, behaviour: np.ndarray, action: np.ndarray, found: np.ndarray) -> None:
    """Log-probability of each action less that by which it was drawn, [T, B], from those of all, [T, B, A]."""
    for t in range(found.shape[0]):
        for b in range(found.shape[1]):
            found[t, b] = log_probs[t, b, action[t, b]] - behaviour[t, b, action[t, b]]


@compiled
def _below(value: float, bar: float) -> float:
    """``min(bar, value)``; what is no number stays so."""
    return bar if value > bar else value


@compiled
def _derive(
    log_probs: np.ndarray,
    probs: np.ndarray,
    action: np.ndarray,
    ratio: np.ndarray,
    discount: np.ndarray,
    reward: np.ndarray,
    value: np.ndarray,
    valid: np.ndarray,
    constants: np.ndarray,
    by_action: np.ndarray,
    by_entropy: np.ndarray,
    to_value: np.ndarray,
    found: np.ndarray,
) -> float:
    """V-trace backwards through the rows, and with each row's target and advantage its gradients. Gives the loss.

    ``by_action``, ``by_entropy``: [T, B, A], gradients of the policy's loss and of the entropy's by ``log_probs``;
    ``to_value``: [T + 1, B], of the value's loss, the last row left as it is. ``found``: ``NUMBERS``.
    """
    steps, width, _choices = log_probs.shape
    rho_bar, c_bar, pg_rho_bar, decay, baseline_cost, entropy_cost = constants
    zero, half, two = np.float32(0), np.float32(0.5), np.float32(2)
    correction, next_target = np.zeros(width, np.float32), value[steps].copy()
    sums = np.zeros(11, np.float64)
    for t in range(steps - 1, -1, -1):
        for b in range(width):
            v, keep, r, g = value[t, b], valid[t, b], ratio[t, b], discount[t, b]
            trace, delta, advantage = zero, zero, zero
            if keep:
                trace = g * _below(r, c_bar) * decay
                delta = _below(r, rho_bar) * (reward[t, b] + g * value[t + 1, b] - v)
                advantage = _below(r, pg_rho_bar) * (reward[t, b] + g * next_target[b] - v)
            correction[b] = delta if t == steps - 1 else _fused(trace, correction[b], delta)
            target = v + correction[b]
            next_target[b] = target
            off = target - v
            counts = np.float32(1) if keep else zero
            to_value[t, b] = -((counts * baseline_cost * half) * (two * off))
            a = action[t, b]
            entropy = _entropy_back(log_probs[t, b], probs[t, b], counts * entropy_cost, by_entropy[t, b])
            by_action[t, b, :] = zero
            by_action[t, b, a] = zero + -(counts * advantage)
            if keep:
                _add(sums, log_probs[t, b, a], float(advantage), off, entropy, r, r > rho_bar, v, target)
    _tell(sums, steps * width, found)
    return float(sums[1] + baseline_cost * sums[2] - entropy_cost * sums[3])


@compiled
def _entropy_back(log_probs: np.ndarray, probs: np.ndarray, bonus: float, found: np.ndarray) -> float:
    """Into ``found`` [A]: ``bonus`` times the gradient of minus the entropy of one row by ``log_probs`` [A].

    Gives the entropy.
    """
    entropy, least = 0.0, np.float32(LEAST)
    for k in range(len(probs)):
        p, log_p = probs[k], max(log_probs[k], least)
        entropy -= p * log_p
        found[k] = bonus * p + (bonus * log_p) * p if log_probs[k] >= least else np.float32(0)
    return entropy


@compiled
def _add(
    sums: np.ndarray,
    log_prob: float,
    advantage: float,
    off: float,
    entropy: float,
    ratio: float,
    clipped: bool,
    value: float,
    target: float,
) -> None:
    """Add a row that counts to what is told of all of them. ``off``: its target less its value."""
    sums[0] += 1.0
    sums[1] -= log_prob * advantage
    sums[2] += 0.5 * off * off
    sums[3] += entropy
    sums[4] += ratio
    sums[5] += 1.0 if clipped else 0.0
    sums[6] += value
    sums[7] += target
    sums[8] += advantage
    sums[9] += np.float64(target) * target
    sums[10] += np.float64(off) * off


@compiled
def _tell(sums: np.ndarray, rows: int, found: np.ndarray) -> None:
    """``NUMBERS`` of so many ``rows``, of which some count, from the sums over those."""
    count = max(sums[0], 1.0)
    mean = sums[7] / count
    variance = max(sums[9] / count - mean * mean, 1e-8)
    found[0], found[1], found[2] = sums[1], sums[2], -sums[3]
    for i in range(3, 9):
        found[i] = sums[i] / count
    found[9] = 1.0 - sums[10] / count / variance
    found[10] = sums[0] / rows


def plain_loss(policy: Tensor, value: Tensor, rows: Rows, constants: Constants) -> Tensor:
    """The same by autograd: what ``joined_loss`` is measured by."""
    logits, values, (behaviour, action, reward, discount, valid) = policy[:-1], value[:-1], rows
    log_prob, entropy = actor_critic.categorical_log_prob(logits, action), actor_critic.categorical_entropy(logits)
    log_ratio = log_prob.detach() - actor_critic.categorical_log_prob(behaviour, action)
    bars = constants[:4]
    targets = vtrace(log_ratio, discount, reward, values.detach(), value[-1].detach(), *bars, keep=valid)
    policy_loss = actor_critic.policy_gradient_loss(log_prob, targets.advantage, valid)
    baseline_loss = actor_critic.baseline_loss(values, targets.target, valid)
    entropy_loss = actor_critic.entropy_loss(entropy, valid)
    return policy_loss + constants.baseline_cost * baseline_loss + constants.entropy_cost * entropy_loss


@functools.cache
def missing() -> str:
    """Why this torch or this numba does not give the gradients of autograd, bit by bit; empty if they do."""

    def agrees() -> bool:
        generator = torch.Generator().manual_seed(5)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            for width, choices in ((33, 2), (19, 7)):
                lead = (5, width)
                policy = (3 * torch.randn(6, width, choices, generator=generator)).requires_grad_()
                value = torch.randn(6, width, generator=generator).requires_grad_()
                drawn = [torch.randn(*lead, generator=generator) for _ in range(3)]
                rows = Rows(
                    3 * torch.randn(*lead, choices, generator=generator),
                    torch.randint(choices, lead, generator=generator),
                    drawn[0],
                    0.99 * (drawn[1] < 1),
                    drawn[2] < 1,
                )
                constants = Constants(1.0, 0.9, 1.1, 0.95, 0.3, 0.007)
                ours, _ = joined_loss(policy, value, rows, constants)
                known = plain_loss(policy, value, rows, constants)
                pairs = zip(*(torch.autograd.grad(one, [policy, value]) for one in (ours, known)), strict=True)
                if not all(torch.equal(one, other) for one, other in pairs) or not torch.allclose(ours, known):
                    return False
        return True

    return failure(agrees)

"""Rewards by the running magnitude of what they add up to, kept in the network beside its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.networks.normaliser import EPSILON, MOST_ROWS
from offbeat.types import Batch, Sequence, TensorDict, Transition

LEAST = 1e-3
"""Of what is left of a return after each step, at least: a discount of 1 without ends would add up for ever."""


class RewardScale(nn.Module):
    """Divides the rewards that are trained on by the running root mean square of the return so far.

    The return so far is ``R_t = r_t + discount_{t-1} R_{t-1}``, 0 before an episode (as PPO's implementations have it,
    Engstrom et al. 2020, who divide by the standard deviation; that of rewards that are nearly constant is next to
    nothing). Unrolls that follow one another carry it on; of sequences that were drawn out of order it begins anew in
    each. Transitions hold no return. Where rewards have mean ``m`` and variance ``v``, discounts the mean ``g`` and the
    mean square ``h``, ends of episodes included, and all are independent, its mean square is
    ``(v + m^2 (1 + g) / (1 - g)) / (1 - h)``, the fixed point of the line above squared. The mean is not taken off
    rewards: that would change what is best to do. Scores, ``last_reward`` and initial priorities keep the rewards of
    the environment.

    Args:
        clip: largest magnitude of a reward that comes out, > 0.
    """

    exact = False
    grows = True
    rows: Tensor
    mean: Tensor
    variance: Tensor
    discount: Tensor
    discount_square: Tensor

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = clip
        for name in ("rows", "mean", "variance", "discount", "discount_square"):
            self.register_buffer(name, torch.tensor(float(name == "variance")))
        self._next, self._carry = np.zeros(0, np.int64), np.zeros(0)

    @torch.no_grad()
    def scaled(self, batch: Batch) -> Batch:
        """Take in the rewards of ``batch``, and give the same batch with those divided and clipped."""
        self._take_in(self._returns(batch), batch.discount if isinstance(batch, Transition) else torch.zeros(1))
        reward = (batch.reward / self.magnitude()).clamp(-self.clip, self.clip)
        return replace(batch, reward=reward.to(batch.reward.dtype))

    def magnitude(self) -> float:
        """What rewards are divided by."""
        mean, variance, discount, square = map(float, (self.mean, self.variance, self.discount, self.discount_square))
        growth = (1.0 + discount) / max(1.0 - discount, LEAST)
        return float((variance + mean**2 * growth) / max(1.0 - square, LEAST) + EPSILON) ** 0.5

    def _returns(self, batch: Batch) -> np.ndarray:
        """The returns so far in the rows that are trained on, [n] float64; of transitions their rewards."""
        reward = batch.reward.double().cpu().numpy()
        if isinstance(batch, Transition):
            return reward
        replayed = np.zeros(reward.shape[1], bool) if batch.replayed is None else batch.replayed.cpu().numpy()
        fresh = ~replayed if not isinstance(batch, Sequence) else np.zeros_like(replayed)
        stream, row = batch.stream.cpu().numpy(), batch.row.cpu().numpy()
        discount = batch.discount.double().cpu().numpy()
        so_far, returns = self._carried(stream, row, fresh), np.empty_like(reward)
        for t in range(len(reward)):
            returns[t] = reward[t] + so_far
            so_far = discount[t] * returns[t]
        order = np.argsort(row, kind="stable")  # of several unrolls of one stream the newest is carried on
        order = order[fresh[order]]
        self._next[stream[order]], self._carry[stream[order]] = row[order] + len(reward), so_far[order]
        counted = batch.mask if isinstance(batch, Sequence) else batch.valid[:-1]
        use = fresh if fresh.any() else np.ones_like(fresh)
        return returns[:, use][counted.cpu().numpy()[:, use]]

    def _carried(self, stream: np.ndarray, row: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """What earlier unrolls of each stream left, discounted; 0 where another row was to follow them."""
        more = int(stream.max()) + 1 - len(self._next)
        if more > 0:
            self._next = np.concatenate([self._next, np.full(more, -1)])
            self._carry = np.concatenate([self._carry, np.zeros(more)])
        return np.where(fresh & (self._next[stream] == row), self._carry[stream], 0.0)

    def _take_in(self, returns: np.ndarray, discount: Tensor) -> None:
        if not len(returns) or not np.isfinite(returns).all():
            return
        rows, mean, variance = (float(buffer) for buffer in (self.rows, self.mean, self.variance))
        share, off = len(returns) / (rows + len(returns)), float(returns.mean()) - mean
        self.variance.fill_(variance * (1 - share) + float(returns.var()) * share + off**2 * share * (1 - share))
        self.mean.fill_(mean + off * share)
        self.discount.lerp_(discount.mean(), share)
        self.discount_square.lerp_(discount.square().mean(), share)
        self.rows.fill_(min(rows + len(returns), MOST_ROWS))

    def trained(self, batch: Batch, updates: int) -> None:
        """Its numbers moved before the update."""

    def state(self) -> TensorDict:
        """``streams`` [S, 2] float64: the row that is to follow, and the return so far; the rest is in the network."""
        return {"streams": torch.from_numpy(np.stack([self._next, self._carry], 1))}

    def load_state(self, state: TensorDict) -> None:
        """Back to a saved ``state``."""
        following, carry = np.array(state["streams"]).T
        self._next, self._carry = following.astype(np.int64), carry.copy()

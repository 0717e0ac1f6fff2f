"""A sum tree: weights that change, sums that follow, and draws in proportion, all in O(log n) and compiled.

Every inner node has eight children, which are one cache line, and is the sum of them in their order. So the whole tree
is a function of its leaves: rebuilt from saved leaves it is the same bit for bit, and rounding never builds up.
"""

from __future__ import annotations

import numpy as np

from offbeat.algorithms.compiling import compiled

FANOUT = 8
"""Children of an inner node."""


class SumTree:
    """Weights >= 0 of ``size`` leaves, all 0 at first."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        self.size = size
        levels = [-(-size // FANOUT) * FANOUT]
        while levels[-1] > FANOUT:
            levels.append(-(-(levels[-1] // FANOUT) // FANOUT) * FANOUT)
        self._start = np.concatenate([[0], np.cumsum(levels)]).astype(np.int64)
        self._nodes = np.zeros(int(self._start[-1]))
        self._nonzero = np.zeros(1, np.int64)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._nodes[self._start[-2] :].sum())

    @property
    def count(self) -> int:
        """Leaves whose weight is not 0."""
        return int(self._nonzero[0])

    @property
    def leaves(self) -> np.ndarray:
        """The weights, [size] float64; not to be written to."""
        return self._nodes[: self.size]

    def set(self, index: np.ndarray, weight: np.ndarray) -> None:
        """New weights [n] of the leaves ``index`` [n] int64; where one is named twice the later weight counts.

        Raises ValueError for a weight that is negative or not finite, IndexError for a leaf that does not exist;
        nothing is changed then.
        """
        index, weight = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(weight, np.float64)
        if index.shape != weight.shape or index.ndim != 1:
            raise ValueError(f"weight: expected shape {list(index.shape)} as index, one axis; got {list(weight.shape)}")
        if not len(index):
            return
        if index.min() < 0 or index.max() >= self.size:
            raise IndexError(f"index: expected 0 to {self.size - 1}, got {index.min()} to {index.max()}")
        if not (np.isfinite(weight) & (weight >= 0)).all():
            wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
            raise ValueError(f"weight: expected finite and at least 0, got {weight[wrong[0]]} at {wrong[0]}")
        _set(self._nodes, self._start, self._nonzero, index, weight)

    def find(self, target: np.ndarray) -> np.ndarray:
        """The leaves [n] int64 in which the running sum of weights passes ``target`` [n], each in [0, ``total``).

        A leaf of weight 0 is never found. Raises ValueError if all weights are 0.
        """
        if not self.count:
            raise ValueError("a sum tree whose weights are all 0 has nothing to draw")
        found = np.empty(len(target), np.int64)
        _find(self._nodes, self._start, np.ascontiguousarray(target, np.float64), found)
        return found

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``n`` leaves [n] int64, stratified: one from each of ``n`` equal parts of the sum of weights."""
        return self.find((np.arange(n) + rng.random(n)) * (self.total / n))

    def load(self, leaves: np.ndarray) -> None:
        """Replace all weights by ``leaves`` [size]."""
        self._nodes[:] = 0
        self._nonzero[:] = 0
        used = np.flatnonzero(leaves)
        self.set(used, leaves[used])


@compiled
def _set(nodes: np.ndarray, start: np.ndarray, nonzero: np.ndarray, index: np.ndarray, weight: np.ndarray) -> None:
    """Write leaves, then sum their ancestors anew, level by level: the sums of a level do not wait for each other."""
    for i in range(len(index)):
        at = index[i]
        nonzero[0] += (weight[i] != 0.0) - (nodes[at] != 0.0)
        nodes[at] = weight[i]
    width = 1
    for level in range(1, len(start) - 1):
        width *= FANOUT
        before = -1
        for i in range(len(index)):
            at = index[i] // width
            if at == before:  # leaves that were drawn together come in order
                continue
            before = at
            child = start[level - 1] + at * FANOUT
            total = 0.0
            for k in range(FANOUT):
                total += nodes[child + k]
            nodes[start[level] + at] = total


@compiled
def _find(nodes: np.ndarray, start: np.ndarray, target: np.ndarray, found: np.ndarray) -> None:
    """Descend to the leaf of each target; rounding may carry a target past its node's last child with a weight."""
    for i in range(len(target)):
        left, at = target[i], 0
        for level in range(len(start) - 2, -1, -1):
            child = start[level] + at * FANOUT
            chosen = 0
            for k in range(FANOUT):
                weight = nodes[child + k]
                if weight > 0.0:  # never a leaf without weight, even where rounding leaves something over at the end
                    chosen = k
                    if left < weight:
                        break
                    left -= weight
            at = at * FANOUT + chosen
        found[i] = at

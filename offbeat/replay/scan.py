"""Finding items among the rows that arrived, and their initial priorities, in one compiled pass."""

from __future__ import annotations

import math

import numpy as np

from offbeat.algorithms.compiling import compiled
from offbeat.replay.streams import StreamStore
from offbeat.types import ItemSpec


def scan_streams(
    store: StreamStore,
    items: ItemSpec,
    seen: np.ndarray,
    low: np.ndarray,
    new_low: np.ndarray,
    head: np.ndarray,
    from_actor: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Leaves that change and their priorities: -1 for rows that expire, NaN where a priority is not finite.

    Rows [``seen``, ``head``) are looked at as far as their items are complete, rows [``low``, ``new_low``) expire; all
    are [num_streams] int64, and ``seen`` and ``low`` are moved on. With ``from_actor`` a priority is what the actor's
    Q values give: the n-step TD error of a transition, for a sequence the mixture by ``items.eta`` (Kapturowski et al.
    2019, section 2.3); else it is 0.
    """
    seen[:] = np.maximum(seen, new_low)  # rows that expired before anybody looked
    count = int((head - seen).sum() + (new_low - low).sum())
    leaf, priority = np.empty(count, np.int64), np.empty(count)
    nothing = np.zeros(1, np.float32)
    q, q_max = (store.column(f"extras/{name}") if from_actor else nothing for name in ("q", "q_max"))
    valid, age, reward, discount = (store.column(name) for name in ("valid", "age", "reward", "discount"))
    numbers = np.array([store.layout.ring, items.span, items.trained, items.n, items.period, from_actor], np.int64)
    real = np.array([items.eta if items.kind == "sequence" else 1.0, items.rescale])
    used = _scan(seen, low, new_low, head, valid, age, reward, discount, q, q_max, numbers, real, leaf, priority)
    return leaf[:used], priority[:used]


@compiled
def _scan(
    seen: np.ndarray,
    low: np.ndarray,
    new_low: np.ndarray,
    head: np.ndarray,
    valid: np.ndarray,
    age: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    q: np.ndarray,
    q_max: np.ndarray,
    numbers: np.ndarray,
    real: np.ndarray,
    leaf: np.ndarray,
    priority: np.ndarray,
) -> int:
    ring, span, trained, n, period, from_actor = numbers
    used = 0
    for stream in range(len(head)):
        base = stream * ring
        for row in range(low[stream], new_low[stream]):
            leaf[used], priority[used] = base + row % ring, -1.0
            used += 1
        low[stream] = max(low[stream], new_low[stream])
        row = seen[stream]
        while row < head[stream]:
            at = base + row % ring
            if valid[at] and age[at] % period == 0:
                end = 1  # rows to the episode's final observation, or to the last row that is needed
                while end < span and row + end < head[stream] and valid[base + (row + end) % ring]:
                    end += 1
                if row + end >= head[stream]:
                    break  # not complete yet: ``seen`` stays here, and the next scan looks at it again
                size = 0.0
                if from_actor:
                    size = _priority(
                        base, ring, row, min(trained, end), end, n, reward, discount, q, q_max, real[0], real[1]
                    )
                leaf[used], priority[used] = at, size
                used += 1
            row += 1
        seen[stream] = row
    return used


@compiled
def _priority(
    base: int,
    ring: int,
    row: int,
    trained: int,
    end: int,
    n: int,
    reward: np.ndarray,
    discount: np.ndarray,
    q: np.ndarray,
    q_max: np.ndarray,
    eta: float,
    epsilon: float,
) -> float:
    """The priority of an item from the values that its actor saw; NaN where that is not finite.

    What ``algorithms.priorities.max_mean`` is for the learner's errors, in compiled code.
    """
    largest, total = 0.0, 0.0
    for t in range(trained):
        value, factor, step = 0.0, 1.0, t
        while step < t + n and step < end and factor != 0.0:
            at = base + (row + step) % ring
            value += factor * reward[at]
            factor *= discount[at]
            step += 1
        if factor != 0.0:  # neither terminated nor cut: the episode goes on behind the n steps
            ahead = np.float64(q_max[base + (row + step) % ring])
            value += factor * (_unrescale(ahead, epsilon) if epsilon >= 0.0 else ahead)
        if epsilon >= 0.0:
            value = _rescale(value, epsilon)
        error = abs(value - q[base + (row + t) % ring])
        if not np.isfinite(error):
            return np.nan
        largest = max(largest, error)
        total += error
    return eta * largest + (1.0 - eta) * total / trained


@compiled
def _rescale(x: float, epsilon: float) -> float:
    """``algorithms.returns.rescale`` of one number."""
    return x / (math.sqrt(abs(x) + 1.0) + 1.0) + epsilon * x


@compiled
def _unrescale(x: float, epsilon: float) -> float:
    """``algorithms.returns.unrescale`` of one number."""
    u = 2.0 * x / (math.sqrt(1.0 + 4.0 * epsilon * (abs(x) + 1.0 + epsilon)) + 1.0 + 2.0 * epsilon)
    return u * (abs(u) + 2.0)

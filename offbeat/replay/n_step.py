"""Sums of the rewards of n steps, of a whole batch in one compiled pass over the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offbeat.algorithms.compiling import compiled
from offbeat.replay.rings import Rings


@dataclass
class Steps:
    """What ``n`` steps from some rows [B] come to, and where they end."""

    reward: np.ndarray  # [B] float32, the discounted sum
    discount: np.ndarray  # [B] float32, the product
    steps: np.ndarray  # [B] int64, taken
    low: np.ndarray  # [B] int64, the oldest row that a reader of the first observation needs
    ok: np.ndarray  # [B] bool; False: don't use
    row: np.ndarray  # [2, B] int64, absolute: the first row, and the one that is bootstrapped from
    at: np.ndarray  # [2, B] int64, the same, as places in the flattened rings
    age: np.ndarray  # [2, B] int64, their rows since the episode's first


def take_steps(store: Rings, stream: np.ndarray, row: np.ndarray, n: int, history: int) -> Steps:
    """Up to ``n`` steps from ``row`` [B] of ``stream`` [B], both int64.

    The sum stops at termination and at an episode's final observation. Not ok where ``row`` or the ``history`` rows
    before it in its episode are not in the window, where it is no transition, or its steps are not complete.
    """
    count = len(row)
    taken = Steps(
        reward=np.empty(count, np.float32),
        discount=np.empty(count, np.float32),
        steps=np.empty(count, np.int64),
        low=np.empty(count, np.int64),
        ok=np.empty(count, bool),
        row=np.empty((2, count), np.int64),
        at=np.empty((2, count), np.int64),
        age=np.empty((2, count), np.int64),
    )
    head = np.ascontiguousarray(store.heads(stream), np.int64)  # before everything else: rows below it are complete
    stream, row = np.ascontiguousarray(stream, np.int64), np.ascontiguousarray(row, np.int64)
    valid, age, reward, discount = (store.column(name) for name in ("valid", "age", "reward", "discount"))
    numbers = np.array([store.layout.ring, store.layout.capacity, n, history], np.int64)
    sums = taken.reward, taken.discount, taken.steps, taken.low, taken.ok
    _take_steps(stream, row, head, valid, age, reward, discount, numbers, *sums, taken.row, taken.at, taken.age)
    return taken


@compiled
def _take_steps(
    stream: np.ndarray,
    row: np.ndarray,
    head: np.ndarray,
    valid: np.ndarray,
    age: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    numbers: np.ndarray,
    total: np.ndarray,
    product: np.ndarray,
    steps: np.ndarray,
    low: np.ndarray,
    ok: np.ndarray,
    rows: np.ndarray,
    at: np.ndarray,
    ages: np.ndarray,
) -> None:
    ring, capacity, n, history = numbers
    for b in range(len(row)):
        oldest, place = max(head[b] - capacity, 0), row[b] % ring
        base = min(max(stream[b], 0), len(age) // ring - 1) * ring  # compiled code checks no bounds: a stranger's index
        here = base + place
        low[b] = row[b] - min(np.int64(age[here]), history)
        fine = row[b] >= oldest and low[b] >= oldest and row[b] < head[b] and valid[here]
        # 32 bits, in this order: the same bits as an array of such sums
        value, factor, step, then = np.float32(0), np.float32(1), 0, here
        going = valid[here]
        while going and step < n:
            now = then
            step += 1
            place = place + 1 if place + 1 < ring else 0  # a division per step would cost more than all the rest
            then = base + place
            fine = fine and row[b] + step <= head[b]
            value += factor * reward[now]
            factor *= discount[now]
            going = discount[now] != 0 and valid[then]
        total[b], product[b], steps[b], ok[b] = value, factor, step, fine
        rows[0, b], rows[1, b], at[0, b], at[1, b] = row[b], row[b] + step, here, then
        ages[0, b], ages[1, b] = age[here], age[then]

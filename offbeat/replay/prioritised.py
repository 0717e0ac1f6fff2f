"""Prioritised replay: which rows of the streams start an item, how much each weighs, and draws in proportion.

An item is a transition or a sequence of one episode; its name is (stream, row) of the first row that is trained on.
Weights are ``priority ** alpha`` (Schaul et al. 2016, eq. 1) in a sum tree with one leaf per row of the rings, so
that an item's leaf is where its row lies. ``alpha = 0`` is uniform replay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from offbeat.algorithms.priorities import importance_weights
from offbeat.replay.rate_limiter import held
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection, check_least, window_of
from offbeat.replay.scan import scan_streams
from offbeat.replay.streams import StreamStore
from offbeat.replay.sum_tree import SumTree
from offbeat.types import ArrayDict, ItemSpec

DRAWS = ("transition", "sequence")


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Items in proportion to priorities (Schaul et al. 2016), for agents that train on transitions or sequences."""

    kind: Literal["prioritised"] = "prioritised"
    """Which sampler."""
    window: int = 0
    """Newest rows (all streams together) that may be drawn; 0: all that are kept. Unit: agent steps."""
    min_rows: int = 0
    """Rows that must be stored before the first batch. Unit: agent steps."""
    alpha: float = 0.6
    """Exponent of priorities; 0: uniform. Source: Horgan et al. 2018."""
    beta: float = 0.4
    """Exponent of importance weights at the start. Source: Horgan et al. 2018."""
    final_beta: float = 0.4
    """Exponent of importance weights at the end of the run, straight in between. Schaul et al. 2016 go up to 1."""
    priority_floor: float = 1e-6
    """Least priority of an item, so that none is never drawn."""
    initial_priority: Literal["actor", "max"] = "max"
    """Priority of new items: TD errors from the actor's own Q values (Horgan et al. 2018), or the largest so far."""


def make(config: Config, place: Place) -> Prioritised:
    """The sampler that ``config`` describes. ValueError where sizes cannot work."""
    check_least(place.store, config.min_rows)

    def beta() -> float:
        return config.beta + (config.final_beta - config.beta) * place.progress()

    return Prioritised(
        place.store,
        place.items,
        place.rng,
        alpha=config.alpha,
        beta=beta,
        floor=config.priority_floor,
        window_rows=config.window,
        last=place.last,
        from_actor=config.initial_priority == "actor",
        source=place.index,
    )


@dataclass
class Draw(Selection):
    """Items that were drawn, the probability of each, and among how many it was drawn."""

    probability: np.ndarray  # [n] float64
    size: int


class Prioritised(Sampler):
    """Items of one store, found as rows arrive and forgotten as they expire. One process owns it.

    Args:
        store: the streams.
        items: what an item is.
        rng: of the draws.
        alpha: exponent of priorities, >= 0; at 0 feedback is not looked at.
        beta: gives the exponent of the importance weights, >= 0.
        floor: least priority, so that no item is never drawn, >= 0.
        window_rows: newest rows of all streams together whose items can be drawn; 0: all kept rows.
        last: items are read with last actions and rewards.
        from_actor: new items get the priority that the rows' ``q`` and ``q_max`` give; else the largest seen so far.
        source: index of this sampler in a mixture.
    """

    def __init__(
        self,
        store: StreamStore,
        items: ItemSpec,
        rng: np.random.Generator,
        *,
        alpha: float,
        beta: Callable[[], float] = lambda: 0.0,
        floor: float = 1e-6,
        window_rows: int = 0,
        last: bool = False,
        from_actor: bool = False,
        source: int = 0,
    ) -> None:
        layout = store.layout
        self.margin = items.burn_in + layout.history(last) + layout.block
        self.window = window_of(store, window_rows)
        need = items.reach + layout.history(last) + layout.block
        if self.window < need:
            raise ValueError(
                f"prioritised replay: a window of {self.window * layout.num_streams} rows is {self.window} rows per "
                f"stream, one item with its history needs {need}; keep {need * layout.num_streams} or more"
            )
        if from_actor and not {"q", "q_max"} <= set(layout.extras):
            raise ValueError(
                f"priorities from actors need the extras q and q_max, but rows have {sorted(layout.extras) or 'none'}"
            )
        self.items, self.alpha, self.floor, self.source = items, alpha, floor, source
        self.tree = SumTree(layout.num_streams * layout.ring)
        self.dropped_updates = 0
        """Priorities that came for items that had expired."""
        self.rejected = 0
        """Initial priorities that were not finite."""
        self.rebuilt = 0
        """Items whose priority was found anew, as of new ones, because what the loss had found was lost with another
        sampler that this one took the place of."""
        self._store, self._rng, self._from_actor, self._beta = store, rng, from_actor, beta
        self._highest, self._rebuilds = 1.0, False
        self._head = np.zeros(layout.num_streams, np.int64)  # rows known
        self._seen = np.zeros(layout.num_streams, np.int64)  # rows below it have their leaf
        self._low = np.zeros(layout.num_streams, np.int64)  # rows below it have lost it

    @property
    def size(self) -> int:
        """Items that can be drawn, as of the last ``sync``."""
        return self.tree.count

    def sync(self) -> None:
        """Take in the rows that came and let those go that expire."""
        head = self._store.heads(np.arange(self._store.layout.num_streams))
        if (head == self._head).all():
            return
        self._head = head
        low = np.maximum(head - self.window + self.margin, 0)
        leaf, priority = scan_streams(self._store, self.items, self._seen, self._low, low, head, self._from_actor)
        fresh = priority >= 0
        self.rejected += int(np.isnan(priority).sum())
        if self._from_actor:
            # NaN: not finite; such an item weighs as little as one can
            weight = np.where(fresh | np.isnan(priority), self._weight(np.nan_to_num(priority).clip(0)), 0.0)
        else:
            weight = np.where(fresh, self._weight(np.array(self._highest)), 0.0)
        self.tree.set(leaf, weight)
        if self._rebuilds:
            self.rebuilt, self._rebuilds = self.rebuilt + self.tree.count, False

    def ready(self, count: int) -> bool:
        """Whether there is an item."""
        self.sync()
        return self.size > 0

    def missing(self, count: int) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        if self.size:
            return ""
        stored = int(self._store.stored.sum())
        return f"a complete {self.items.kind} with a priority above 0; {stored} rows are stored{held(self._store)}"

    def select(self, n: int) -> Draw | None:
        """``n`` items, with replacement, stratified; None if there are none."""
        self.sync()
        if not self.tree.count:
            return None
        leaf = self.tree.draw(n, self._rng)
        ring = self._store.layout.ring
        stream = leaf // ring
        newest = self._head[stream] - 1
        row = newest - (newest - leaf) % ring
        probability = self.tree.leaves[leaf] / self.tree.total
        return Draw(stream, row, np.full(n, self.source, np.int64), probability, self.tree.count)

    def weights(self, selection: Draw) -> np.ndarray | None:
        """Importance weights of what was drawn, the largest of them 1 (Schaul et al. 2016, section 3.4)."""
        weight = importance_weights(torch.from_numpy(selection.probability), selection.size, self._beta())
        return weight.float().numpy()

    def feedback(self, stream: np.ndarray, row: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
        """New priorities, where there are any."""
        if self.alpha > 0 and "priority" in found:
            self.update(stream, row, found["priority"])

    def update(self, stream: np.ndarray, row: np.ndarray, priority: np.ndarray) -> None:
        """New priorities [B] of items (stream [B], row [B]); those of expired items are dropped and counted.

        Raises ValueError, changing nothing, where a priority is negative or not finite.
        """
        priority = np.asarray(priority, np.float64)
        fine = np.isfinite(priority) & (priority >= 0)
        if not fine.all():
            wrong = int(np.flatnonzero(~fine)[0])
            raise ValueError(
                f"priority: expected finite and at least 0, got {priority[wrong]} for row {row[wrong]} of stream "
                f"{stream[wrong]}"
            )
        alive = (row >= self._low[stream]) & (row < self._seen[stream])
        self.dropped_updates += int((~alive).sum())
        if not alive.any():
            return
        self._highest = max(self._highest, float(priority[alive].max()))
        leaf = self._store.locate(stream[alive], row[alive])
        self.tree.set(leaf, self._weight(priority[alive]))

    def stats(self) -> dict[str, float]:
        """Items, and priorities that came to nothing."""
        tail = f"_{self.source}" if self.source else ""
        again = {f"rebuilt_priorities{tail}": float(self.rebuilt)} if self.rebuilt else {}
        return again | {
            f"dropped_priorities{tail}": float(self.dropped_updates),
            f"rejected_priorities{tail}": float(self.rejected),
            f"items{tail}": float(self.tree.count),
        }

    def tallies(self) -> ArrayDict:
        """The highest priority so far, and the counters."""
        counts = np.array([self.dropped_updates, self.rejected, self.rebuilt])
        return {"highest": np.array([self._highest]), "counts": counts}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """The tree is built anew from the rows, with the priorities of new items, at the next ``sync``."""
        self._highest, self._rebuilds = float(tallies["highest"][0]), True
        self.dropped_updates, self.rejected, self.rebuilt = (int(count) for count in tallies["counts"])

    def state(self) -> ArrayDict:
        """Weights, what was seen, counters and the generator's state."""
        used = np.flatnonzero(self.tree.leaves)
        rng = json.dumps(self._rng.bit_generator.state).encode()
        return {
            "leaf": used,
            "weight": self.tree.leaves[used],
            "head": self._head.copy(),
            "seen": self._seen.copy(),
            "low": self._low.copy(),
            "highest": np.array([self._highest]),
            "counts": np.array([self.dropped_updates, self.rejected]),
            "rng": np.frombuffer(rng, np.uint8).copy(),
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state`` of a store of the same layout."""
        leaves = np.zeros(self.tree.size)
        leaves[state["leaf"]] = state["weight"]
        self.tree.load(leaves)
        self._head, self._seen, self._low = (np.array(state[name], np.int64) for name in ("head", "seen", "low"))
        self._highest = float(state["highest"][0])
        self.dropped_updates, self.rejected = (int(count) for count in state["counts"])
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())

    def _weight(self, priority: np.ndarray) -> np.ndarray:
        weight: np.ndarray = np.maximum(priority, self.floor) ** self.alpha
        return weight

"""Batches of transitions or sequences from one prioritised or uniform sampler, with importance weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from offbeat.algorithms.priorities import importance_weights
from offbeat.replay.items import read_items
from offbeat.replay.mixture import MOST_TRIES, ReplayConfig
from offbeat.replay.prioritised import Draw, Prioritised
from offbeat.replay.rate_limiter import RateLimiter, held, ratio_of
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict, ItemSpec, Sequence, Transition


class ItemReplay:
    """Draws, reads, weighs and counts. One process, one thread.

    Items that were overwritten while they were copied are drawn again and counted.

    Args:
        store: the streams.
        sampler: owns items and priorities.
        limiter: when a batch may be drawn.
        batch_size: items per batch.
        beta: exponent of the importance weights at a share of the run that ``progress`` gives.
        last: with last actions and rewards.
    """

    def __init__(
        self,
        store: StreamStore,
        sampler: Prioritised,
        limiter: RateLimiter,
        batch_size: int,
        beta: Callable[[], float],
        last: bool,
    ) -> None:
        self.store, self.sampler, self.limiter, self.batch_size = store, sampler, limiter, batch_size
        self.samplers, self.counts, self.length = (sampler,), (batch_size,), sampler.items.length
        self.dropped = 0
        """Items that were drawn again because a writer had overwritten them."""
        self._beta, self._last = beta, last

    def ready(self) -> bool:
        """Whether ``sample`` would give a batch, unless there is no complete item yet."""
        return self.limiter.may_sample()

    def missing(self) -> str:
        """What the next batch waits for, in one line. It only looks, and may be asked beside a thread that draws."""
        if text := self.limiter.missing():
            return text
        if self.sampler.size:
            return "nothing: a batch is ready"
        stored = int(self.store.stored.sum())
        return (
            f"a complete {self.sampler.items.kind} with a priority above 0; {stored} rows are stored{held(self.store)}"
        )

    def sample(self, min_version: int = 0) -> Transition | Sequence | None:
        """The next batch, or None if there is none yet. ``min_version`` is for queues and has no meaning here."""
        if not self.limiter.may_sample():
            return None
        draw = self.sampler.select(self.batch_size)
        if draw is None:
            return None
        for _ in range(MOST_TRIES):
            batch, ok = read_items(
                self.store, self.sampler.items, draw.stream, draw.row, last=self._last, source=draw.source
            )
            if ok.all():
                break
            self.dropped += int((~ok).sum())
            if not self._again(draw, ok):
                return None
        else:
            raise RuntimeError(
                f"no {self.batch_size} items stayed readable while they were copied, in {MOST_TRIES} tries; "
                "use a larger replay.capacity"
            )
        weight = importance_weights(torch.from_numpy(draw.probability), draw.size, self._beta())
        batch.weight = weight.float()
        self.limiter.count(self.batch_size * self.sampler.items.trained)
        return batch

    def update(self, stream: np.ndarray, row: np.ndarray, priority: np.ndarray) -> None:
        """New priorities [B] of items (stream [B], row [B])."""
        if self.sampler.alpha > 0:
            self.sampler.update(stream, row, priority)

    def stats(self) -> dict[str, float]:
        """Numbers for the log."""
        appended = max(1, int(self.store.head.sum()))
        return {
            "sampled_rows": float(self.limiter.sampled),
            "dropped_items": float(self.dropped),
            "dropped_priorities": float(self.sampler.dropped_updates),
            "rejected_priorities": float(self.sampler.rejected),
            "stored_rows": float(self.store.stored.sum()),
            "items": float(self.sampler.size),
            "samples_per_insert": self.limiter.sampled / appended,
        }

    def state(self) -> ArrayDict:
        """Priorities, generator and counters."""
        saved = {f"sampler/{name}": values for name, values in self.sampler.state().items()}
        saved |= {f"limiter/{name}": values for name, values in self.limiter.state().items()}
        return saved | {"dropped": np.array([self.dropped])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        for prefix, part in (("sampler/", self.sampler), ("limiter/", self.limiter)):
            own = {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
            part.load_state(own)
        self.dropped = int(state["dropped"][0])

    def _again(self, draw: Draw, ok: np.ndarray) -> bool:
        """Put other items into ``draw`` where it is not ``ok`` [B]; False if there are none any more."""
        fresh = self.sampler.select(int((~ok).sum()))
        if fresh is None:
            return False
        for name in ("stream", "row", "source", "probability"):
            getattr(draw, name)[~ok] = getattr(fresh, name)
        draw.size = fresh.size
        return True


def make_limiter(
    store: StreamStore, items: ItemSpec, config: ReplayConfig, batch_size: int, hold_writers: bool
) -> RateLimiter:
    """The rate control that ``config`` describes."""
    # Writers must reach each stream's first complete item, or they would wait for a learner that has nothing to draw.
    least = store.layout.num_streams * (items.span + 1)
    return RateLimiter(
        store,
        ratio_of(config.samples_per_insert, hold_writers),
        config.tolerance,
        max(least, config.samplers[0].min_rows),
        batch_size * items.trained,
        hold_writers,
    )


def make_item_replay(
    store: StreamStore,
    items: ItemSpec,
    config: ReplayConfig,
    batch_size: int,
    last: bool,
    seed: int,
    progress: Callable[[], float] = lambda: 0.0,
    hold_writers: bool = True,
) -> ItemReplay:
    """The replay that ``config`` describes, with its one sampler. ``progress``: share of the run done, in [0, 1].

    Raises ValueError where it has not just one sampler of items, or where sizes cannot work.
    """
    kinds = [sampler.kind for sampler in config.samplers]
    if len(kinds) != 1 or kinds[0] == "fifo":
        raise ValueError(
            f"this agent trains on {items.kind}s and draws from one sampler of kind uniform or prioritised, got "
            f"{', '.join(kinds) or 'none'}; see replay.samplers"
        )
    options = config.samplers[0]
    prioritised = options.kind == "prioritised"
    sampler = Prioritised(
        store,
        items,
        np.random.default_rng(seed),
        alpha=options.alpha if prioritised else 0.0,
        floor=options.priority_floor,
        window_rows=options.window,
        last=last,
        from_actor=prioritised and options.initial_priority == "actor",
    )

    def beta() -> float:
        if not prioritised:
            return 0.0
        return options.beta + (options.final_beta - options.beta) * progress()

    limiter = make_limiter(store, items, config, batch_size, hold_writers)
    return ItemReplay(store, sampler, limiter, batch_size, beta, last)

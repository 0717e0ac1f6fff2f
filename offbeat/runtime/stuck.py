"""Noticing a run that can make no progress: nobody hangs, nobody fails, and yet no batch will ever come."""

from __future__ import annotations

from offbeat.errors import UserError
from offbeat.replay.rate_limiter import ratio_of
from offbeat.runtime.world import World, holds_writers

STUCK_S = 60.0
"""A free-running run whose learner waits, and whose actors made no row for so long, is stuck. Unit: seconds."""


class NoProgress(UserError):
    """Ends a run that can go no further. ``missing`` says what its learner waits for."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"the run can make no progress and was ended: the learner waits for {missing}")


FRUITLESS = (
    "transitions: {rows:,} rows came and not one action was followed by another row of its episode. Do episodes end "
    "before any decision acts? A delay must be shorter than they are (see the section [delay], and envs check)"
)
"""What is missing where rows come and no transition is among them."""


class ProgressWatch:
    """Looks at the counters of a run, the world's, now and then."""

    def __init__(self, world: World) -> None:
        self._world, self._clock = world, world.clock
        self._still = (-1, -1)
        self._since = self._clock.now()
        self._tries, self._head = -1, 0
        self._frames, self._last_head, self._last_updates = -1, 0, 0
        self.fruitless = ""
        """What is missing, if rows come and no transition is among them; empty: nothing that is seen here."""
        self._enough = rows_without_update(world)

    def stuck_freely(self, tries: int, at_work: bool) -> bool:
        """Whether a free-running run can go no further after ``tries`` updates, those included that were not finite.

        ``at_work``: every actor shows signs of life.
        """
        store, now = self._world.store, self._clock.now()
        idle = bool(self._world.board["idle"][0])
        still = (tries, int(store.produced.sum()))
        if still != self._still or not idle or not at_work:
            self._still, self._since = still, now
        return now - self._since > STUCK_S or (self._overwritten(tries) and idle) or self._fruitless()

    def stuck_in_rounds(self, tries: int) -> bool:
        """Whether a round changed nothing, or none of very many rows led to an update. Asked once after each round."""
        still = (tries, int(self._world.store.head.sum()))
        unchanged, self._still = still == self._still, still
        return unchanged or self._overwritten(tries) or self._fruitless()

    def _overwritten(self, tries: int) -> bool:
        """Whether so many rows came since the last update that any batch that can come would have come."""
        head = int(self._world.store.head.sum())
        if tries != self._tries:
            self._tries, self._head = tries, head
        return head - self._head > self._enough

    def _fruitless(self) -> bool:
        """Whether so many rows came without a transition, and yet updates were made, on nothing."""
        head = int(self._world.store.head.sum())
        frames, updates = (int(self._world.board[name][0]) for name in ("frames", "updates"))
        if frames != self._frames:
            self._frames, self._last_head, self._last_updates = frames, head, updates
        if head - self._last_head > self._enough and updates != self._last_updates:
            self.fruitless = FRUITLESS.format(rows=head - self._last_head)
        return bool(self.fruitless)


def rows_without_update(world: World) -> int:
    """More rows than any sampler waits for: all streams filled twice, and what rate control asks for."""
    config, layout = world.config, world.layout
    rows = config.learner.batch_size * layout.items.trained
    ratio = ratio_of(config.replay.samples_per_insert, holds_writers(config))
    per_batch = rows / ratio if ratio else 0
    return int(2 * layout.num_streams * layout.capacity + config.replay.min_rows + 4 * per_batch)

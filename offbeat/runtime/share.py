"""A learner's share in a master: what it takes over from the others, and what of its own it gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import Master


class Share:
    """Keeps the optimiser of one learner in step with the master.

    Buffers of the network (running statistics, for instance) lie behind its weights in the same vector, and learners
    change them apart from their steps. One that this learner has changed since it took over stays as it is; all others
    become the master's.

    Args:
        master: shared by all learners.
        optimiser: of this one: its weights and statistics become the master's newest.
    """

    def __init__(self, master: Master, optimiser: FlatOptimiser) -> None:
        self.master, self._optimiser = master, optimiser
        self._whole = 0
        """The version that weights and statistics are of; 0: of none."""
        self._weights = 0
        """The version that the weights are of."""
        self._buffers = self._own_buffers().clone()

    def _own_buffers(self) -> Tensor:
        return self._optimiser.flat[self._optimiser.trained :]

    def begin(self, counters: Mapping[str, int]) -> None:
        """Make what this learner has the first that others find."""
        with self.master.turn():
            self.commit(counters, None)

    def frames(self) -> int:
        """Environment frames of the run by the newest counters; 0 before there are any."""
        return self.master.read(())[1]["frames"]

    def refresh(self) -> dict[str, int] | None:
        """Take over newer weights, for the next gradient; the counters with them. None: there are none newer."""
        if self.master.version() == self._weights:
            return None
        self._weights, counters = self._read(1)
        return counters

    def take(self) -> dict[str, int] | None:
        """In a turn: take over what is newest, statistics too; the counters with it. None: this learner has it."""
        if self.master.version() == self._whole:
            return None
        self._whole, counters = self._read(None)
        self._weights = self._whole
        return counters

    @torch.no_grad()
    def _read(self, count: int | None) -> tuple[int, dict[str, int]]:
        optimiser, mine = self._optimiser, self._own_buffers().clone()
        version, numbers = self.master.read(optimiser.vectors()[:count])
        newest = self._own_buffers()
        if newest.numel():
            changed, self._buffers = mine != self._buffers, newest.clone()
            newest.copy_(torch.where(changed, mine, newest))
        steps = numbers.pop("steps")
        optimiser.changed(steps if count is None else None)
        return version, numbers

    def commit(self, counters: Mapping[str, int], stale: int | None) -> None:
        """In a turn, after ``take``: make this learner's weights, statistics and counters the newest.

        ``stale``: updates between taking and applying the gradient; None: this is no step.
        """
        numbers = dict(counters) | {"steps": self._optimiser.steps}
        self._whole = self._weights = self.master.commit(self._optimiser.vectors(), numbers, stale)
        self._buffers = self._own_buffers().clone()


def joined(
    master: Master, optimiser: FlatOptimiser, leads: bool, part: Mapping[str, Any] | None
) -> tuple[Share, dict[str, int]]:
    """A share in ``master`` for a learner that begins, and the counters that it takes over; {}: it goes by its own.

    The first learner finds it empty, and fills it once it is ready. All others have what is in there, and so has one
    that takes the place of the first. ``part``: of the checkpoint that the run goes on from; None: of none.
    """
    share = Share(master, optimiser)
    if not leads or master.version():
        return share, share.take() or {}
    if part is not None:
        master.set_staleness([int(count) for count in part.get("master/staleness", ())])
    return share, {}

"""A target network: a copy of the online one, renewed every so many updates."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch

from offbeat.networks.encoder import Encoder
from offbeat.types import TensorDict

Net = TypeVar("Net", bound=Encoder)


class Every:
    """Counts how often a multiple of ``period`` (>= 1) was reached or passed: other learners may have updated too."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._updates: int | None = None  # at the last call

    def passed(self, updates: int) -> int:
        """How often since the last call; ``updates``: how many have been made. After a gap, of the newest one alone."""
        before = self._updates if self._updates is not None and self._updates < updates else updates - 1
        self._updates = updates
        return updates // self._period - before // self._period


class TargetNetwork(Generic[Net]):
    """Kept in the learner: see ``offbeat.agents.base.LearnerState``.

    Args:
        online: the network that is copied, when the copy is first needed.
        period: updates from one renewal to the next, >= 1.
        rate: how far the copy then moves to the online network, in (0, 1]; 1: it becomes a copy again.
    """

    exact = True
    shards = True

    def __init__(self, online: Net, period: int, rate: float) -> None:
        self._online, self._every, self._rate = online, Every(period), rate
        self._copy: Net | None = None

    @property
    def network(self) -> Net:
        """The copy."""
        if self._copy is None:
            self._copy = copy.deepcopy(self._online).requires_grad_(False)
        if self._copy.channels_last != self._online.channels_last:
            self._copy.channels_last = self._online.channels_last
        return self._copy

    @torch.no_grad()
    def trained(self, batch: Any, updates: int) -> None:
        """Renew the copy if a multiple of the period was reached or passed.

        Passed several times, it moves as far as in that many renewals.
        """
        if not (times := self._every.passed(updates)):
            return
        rate = self._rate if times == 1 else 1 - (1 - self._rate) ** times
        for old, new in zip(self.network.state_dict().values(), self._online.state_dict().values(), strict=True):
            old.lerp_(new, rate) if rate < 1 else old.copy_(new)

    def state(self) -> TensorDict:
        """Its weights."""
        return {name: value.detach().cpu() for name, value in self.network.state_dict().items()}

    def load_state(self, state: TensorDict) -> None:
        """Back to saved weights."""
        self.network.load_state_dict(state)

"""The target network of value-based agents: a copy of the online one, renewed every so many updates."""

from __future__ import annotations

import copy
from typing import Any

import torch

from offbeat.networks.q_network import QNetwork
from offbeat.types import TensorDict


class TargetNetwork:
    """Kept in the learner: see ``offbeat.agents.base.LearnerState``.

    Args:
        online: the network that is copied, when the copy is first needed.
        period: updates from one renewal to the next, >= 1.
        rate: how far the copy then moves to the online network, in (0, 1]; 1: it becomes a copy again.
    """

    exact = True

    def __init__(self, online: QNetwork, period: int, rate: float) -> None:
        self._online, self._period, self._rate = online, period, rate
        self._copy: QNetwork | None = None

    @property
    def network(self) -> QNetwork:
        """The copy."""
        if self._copy is None:
            self._copy = copy.deepcopy(self._online).requires_grad_(False)
        if self._copy.channels_last != self._online.channels_last:
            self._copy.channels_last = self._online.channels_last
        return self._copy

    @torch.no_grad()
    def trained(self, batch: Any, updates: int) -> None:
        """Renew the copy if that is due."""
        if updates % self._period:
            return
        for old, new in zip(self.network.state_dict().values(), self._online.state_dict().values(), strict=True):
            old.lerp_(new, self._rate) if self._rate < 1 else old.copy_(new)

    def state(self) -> TensorDict:
        """Its weights."""
        return {name: value.detach().cpu() for name, value in self.network.state_dict().items()}

    def load_state(self, state: TensorDict) -> None:
        """Back to saved weights."""
        self.network.load_state_dict(state)

"""What every agent's network has: a torso, perhaps a recurrent core, and the switch of the images' layout."""

from __future__ import annotations

from torch import nn

from offbeat.networks.lstm import LSTMCore
from offbeat.networks.torsos import Torso
from offbeat.types import CoreState


class TorsoNetwork(nn.Module):
    """Base of networks that read observations by a ``torso``; subclasses make it, and ``core`` (None without one)."""

    torso: Torso
    core: LSTMCore | None

    @property
    def channels_last(self) -> bool:
        """Whether images are laid out channels-last inside the torso."""
        return self.torso.channels_last

    @channels_last.setter
    def channels_last(self, value: bool) -> None:
        self.torso.channels_last = value

    def initial_state(self, batch: int) -> CoreState:
        """The core's state at an episode's start; {} without a core."""
        return {} if self.core is None else self.core.initial_state(batch)

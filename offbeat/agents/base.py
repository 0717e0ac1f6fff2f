"""What an agent is: a network, how it acts, and its loss. One file per agent, nothing about processes or buffers."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from offbeat.types import ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, Unroll


class Agent(Protocol):
    """An agent bound to one environment spec. Holds its network; each role builds its own copy from config and spec."""

    spec: EnvSpec
    config: Any
    network: nn.Module
    discount: float  # gamma, in [0, 1]: actors write discount rows with it
    wants_last: bool  # True: Inputs carry last_action and last_reward

    def initial_state(self, batch: int) -> CoreState:
        """The recurrent state at an episode's start: name -> [batch, ...] on the network's device; {} without one."""

    def row_extras(self) -> dict[str, ArraySpec]:
        """The behaviour extras that ``act`` returns for each row, e.g. ``behaviour_logits``: name -> spec."""

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Choose actions for ``inputs`` of T = 1. ``inputs.first`` resets the state. Called without gradients."""

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """The loss of one batch on the network's device. ``progress``: share of the run done, in [0, 1].

        The learner logs the loss itself; ``metrics`` holds everything else.
        """

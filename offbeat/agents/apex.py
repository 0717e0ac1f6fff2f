"""Ape-X DQN: double dueling n-step DQN on distributed prioritised replay, each environment with its own epsilon.

Source: Horgan et al. 2018, "Distributed Prioritized Experience Replay". Its network and loss are DQN's; what makes it
Ape-X is the ladder of epsilons and priorities that actors compute (``replay.samplers``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offbeat.agents import dqn


@dataclass(frozen=True)
class Config(dqn.Config):
    """Ape-X's network and loss, with the paper's defaults where they differ from DQN's."""

    n_step: int = 3
    """Steps of the returns, >= 1. Source: Horgan et al. 2018, section 4.1."""
    head_size: int = 512
    """Width of a hidden layer in each stream of the head; 0: none. Unit: neurons."""
    feature_size: int = -1
    """Width of the layer after an image trunk; 0: as published (nature 512, shallow 256, minatar 128); -1: none.
    Unit: neurons."""
    exploration: Literal["linear", "ladder"] = "ladder"
    """Epsilon: falling in a straight line over ``explore`` steps, or constant and different for each environment
    (Horgan et al. 2018)."""
    loss: Literal["huber", "square"] = "square"
    """Of TD errors: Huber's with threshold 1, or half the square (Horgan et al. 2018, section 3.2)."""


class Agent(dqn.Agent):
    """Ape-X bound to one environment spec."""

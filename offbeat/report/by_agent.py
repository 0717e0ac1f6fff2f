"""A trained agent that plays, for demonstrations where no person can."""

from __future__ import annotations

import numpy as np
import torch

from offbeat.acting.episodes import Player, network_device
from offbeat.agents.base import Agent
from offbeat.envs.manners import check_like
from offbeat.types import LEGAL, EnvSpec, EnvStep


class Trained:
    """An agent with its weights as they are.

    Args:
        agent: it must see what ``spec`` shows.
        greedy: its best action, else one drawn from its policy.
        epsilon: share of actions that are any legal one instead, so that games differ.
        seed: of all that is drawn.
    """

    def __init__(self, agent: Agent, spec: EnvSpec, *, greedy: bool, epsilon: float, seed: int) -> None:
        check_like(spec, agent.spec, "what is to be played", "the agent's own environment")
        agent.network.eval()
        generator = torch.Generator(network_device(agent)).manual_seed(seed)
        self._player = Player(agent, 1, greedy=greedy, generator=generator)
        self._epsilon, self._count, self._rng = epsilon, spec.action.num_actions, np.random.default_rng(seed)

    def choose(self, step: EnvStep) -> np.ndarray | None:
        """Its action."""
        action = self._player.act(step)
        if self._rng.random() < self._epsilon:
            legal = step.observation.get(LEGAL)
            among = np.arange(self._count) if legal is None else np.flatnonzero(legal[0])
            action = self._rng.choice(among, 1)
        return action

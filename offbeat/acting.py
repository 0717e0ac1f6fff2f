"""An agent of a finished run that acts on single observations: ``offbeat.load(run).act(observation)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.checkpoint import load_weights
from offbeat.config import RunConfig, read_config
from offbeat.envs.registry import env_spec
from offbeat.episodes import Player
from offbeat.runs import CONFIG
from offbeat.types import OBSERVATION, EnvSpec, EnvStep


class LoadedAgent:
    """Weights, network and the memory of one episode (frame stack, recurrent state, last action)."""

    def __init__(self, config: RunConfig, agent: Agent, meta: dict[str, Any]) -> None:
        """``meta``: what the checkpoint says of itself."""
        self.config, self.agent, self.meta = config, agent, meta
        self.spec: EnvSpec = agent.spec
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget the episode: the next observation starts a new one. ``seed``: of the actions drawn from now on."""
        generator = torch.Generator(device_of(self.agent)).manual_seed(seed)
        self._players = {greedy: Player(self.agent, 1, greedy=greedy, generator=generator) for greedy in (False, True)}
        self._greedy: bool | None = None
        self._first = True

    def act(
        self, observation: np.ndarray | dict[str, np.ndarray], reward: float = 0.0, greedy: bool = True
    ) -> int | np.ndarray:
        """The action for one observation: an int, or floats [...] where actions are continuous.

        Args:
            observation: a single frame without batch axis, as ``spec.observation`` describes it (uint8 images stay
                uint8); a dict of them where there are several.
            reward: of the previous action, as trained on; only agents that look at it need it.
            greedy: the most probable action, else one drawn from the policy; fixed for an episode.
        """
        if self._greedy is None:
            self._greedy = greedy
        if greedy != self._greedy:
            raise ValueError(f"greedy={greedy} cannot change within an episode; call reset() first")
        frames = observation if isinstance(observation, dict) else {OBSERVATION: observation}
        step = self._step(frames, reward)
        self._first = False
        action = self._players[greedy].act(step)[0]
        return int(action) if self.spec.action.kind == "discrete" else np.asarray(action)

    def _step(self, frames: dict[str, np.ndarray], reward: float) -> EnvStep:
        """One observation as the row that an environment would give."""
        batch = {}
        for key, spec in self.spec.observation.items():
            if key not in frames:
                raise ValueError(f"observation has no {key!r}; needed: {', '.join(self.spec.observation)}")
            frame = np.asarray(frames[key])
            if frame.shape != spec.shape:
                raise ValueError(f"observation {key!r} has shape {frame.shape}; {spec.shape} is needed")
            batch[key] = frame.astype(spec.dtype)[None]
        one = np.full(1, reward, np.float32)
        no, first = np.zeros(1, bool), np.full(1, self._first)
        return EnvStep(np.zeros(1, np.int64), batch, one, one, no, no, first, np.ones(1, bool))


def load_agent(run: Path, device: str = "cpu") -> LoadedAgent:
    """The agent of the run folder ``run`` with its newest weights on ``device``."""
    config = read_config(run / CONFIG)
    weights, meta = load_weights(run)
    agent = make_agent(config.agent_name, config.agent, env_spec(config.env), device)
    agent.network.load_state_dict(weights)
    agent.network.eval()
    return LoadedAgent(config, agent, meta)


def device_of(agent: Agent) -> torch.device:
    """Where the agent's weights are."""
    return next(agent.network.parameters()).device

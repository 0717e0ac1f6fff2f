"""What hosts build their roles from: seeds, devices, agents, environments, and how much an actor explores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from offbeat.agents.base import Agent, Explores
from offbeat.agents.make import make_agent
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.registry import make_env
from offbeat.runtime.world import World


def seeds(world: World, role: int, *path: int) -> list[int]:
    """Two independent seeds of 63 bits for one role: environments and network."""
    words = np.random.SeedSequence([world.config.seed, role, *path]).generate_state(2, np.uint64)
    return [int(word >> np.uint64(1)) for word in words]


def device_of(world: World, own: str) -> torch.device:
    """The device of a role: its own setting, else the run's."""
    return torch.device(own if own != "auto" else world.config.device)


def build_agent(world: World, device: torch.device | str) -> Agent:
    """A role's own agent; every copy starts from the same weights, those of the run's seed."""
    with torch.random.fork_rng(devices=[]):  # roles in one process must not disturb what the learner draws
        torch.manual_seed(world.config.seed)
        if world.agent_factory is not None:
            made: Agent = world.agent_factory(world.config.agent, world.spec, device)
        else:
            made = make_agent(world.config.agent_name, world.config.agent, world.spec, device)
    if hasattr(made.network, "channels_last"):
        made.network.channels_last = world.config.learner.channels_last  # type: ignore[assignment]
    return made


def build_envs(world: World, config: EnvConfig, count: int, *, batch: int = 0, threads: int = 1) -> VectorEnv:
    """Environments of a role."""
    return make_env(
        config,
        count,
        batch_size=batch or None,
        threads=threads,
        deterministic=is_deterministic(world),
        factory=world.env_factory,
    )


def is_deterministic(world: World) -> bool:
    """Whether the run's schedule is fixed."""
    return world.config.deterministic or world.config.engine == "inline"


def exploration(world: World, agent: Agent, streams: np.ndarray, free: bool) -> Callable[[int], np.ndarray] | None:
    """Gives the epsilon of an actor's environments [K] from the actions that it took; None if the agent needs none.

    A free-running actor of a resumed run starts to count anew: there the learner's counter says how far the run is.
    """
    if not isinstance(agent, Explores):
        return None
    share = world.layout.num_streams / len(streams)

    def epsilon(made: int) -> np.ndarray:
        steps = round(made * share)
        if free:
            steps = max(steps, int(world.board["agent_steps"][0]))
        return agent.exploration(streams, world.layout.num_streams, steps)

    return epsilon

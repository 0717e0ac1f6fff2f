"""What a role is told when it starts, wherever that is: who it is, and how it makes its agent and its environments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.closing import closed_on_failure
from offbeat.envs.decisions import delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.manners import check_like
from offbeat.envs.registry import ALONE, make_env, register_again
from offbeat.envs.several import Place
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.actor import acting_precision
from offbeat.runtime.clock import Clock
from offbeat.runtime.generators import drawing_anew
from offbeat.runtime.world import World
from offbeat.types import EnvSpec


@dataclass
class Brief:
    """The part of ``offbeat.runtime.services.Services`` that is plain data; an engine's services add the ports.

    ``agent_factory``, ``torso`` and ``env_factory`` are a user's own, importable functions or objects that can be sent;
    else None.
    """

    name: str
    run: str
    index: int
    incarnation: int
    free: bool
    config: Any
    total_frames: int
    pretrain_steps: int
    precision: str
    spec: EnvSpec
    layout: StreamLayout
    device: torch.device
    clock: Clock
    run_seed: int
    role_seed: int
    agent_name: str
    agent_config: Any
    agent_factory: Any
    torso: Any
    channels_last: bool
    env: EnvConfig
    env_factory: Any
    registered: dict[str, Any]

    def beat(self) -> None:
        """A sign of life between two steps that may take long; engines that watch for them override it."""

    def seeds(self, *path: int) -> list[int]:
        """Two independent seeds of 63 bits, for environments and network."""
        words = np.random.SeedSequence([self.run_seed, self.role_seed, *path]).generate_state(2, np.uint64)
        return [int(word >> np.uint64(1)) for word in words]

    def agent(self, device: torch.device | str) -> Agent:
        """An agent of its own, with the weights of the run's seed."""
        with drawing_anew(self.run_seed, torch.device(device)):
            own = self.torso, self.agent_factory
            made = make_agent(self.agent_name, self.agent_config, self.spec, device, *own)
        if hasattr(made.network, "channels_last"):
            made.network.channels_last = self.channels_last  # type: ignore[assignment]
        return made

    def envs(
        self,
        count: int,
        *,
        batch: int = 0,
        threads: int = 1,
        like: EnvConfig | None = None,
        bare: bool = False,
        place: Place = ALONE,
    ) -> VectorEnv:
        """Environments of its own."""
        register_again(self.registered)
        made = make_env(
            like or (replace(self.env, delay=DelayConfig()) if bare else self.env),
            count,
            batch_size=batch or None,
            threads=threads,
            deterministic=not self.free,
            factory=self.env_factory,
            beat=self.beat,
            place=place,
        )
        with closed_on_failure([made], made.spec.id):
            check_like(
                delayed_spec(made.spec, self.env.delay) if bare else made.spec,
                self.spec,
                self.name,
                "the run was started with",
            )
        return made


def brief_of(world: World, role: str, *, free: bool, incarnation: int) -> Brief:
    """What ``role`` is told in its ``incarnation``. ``free``: it runs at its own pace."""
    config, row, index = world.config, world.topology.row(role), world.topology.index(role)
    device = row.device(index)
    return Brief(
        name=role,
        run=world.log_path.parent.name,
        index=index,
        incarnation=incarnation,
        free=free,
        config=row.config,
        total_frames=config.total_frames,
        pretrain_steps=config.demonstrations.pretrain_steps,
        precision=acting_precision(config.actor, config.learner),
        spec=world.spec,
        layout=world.layout,
        device=torch.device(device if device != "auto" else config.device),
        clock=world.clock,
        run_seed=config.seed,
        role_seed=row.seed,
        agent_name=config.agent_name,
        agent_config=config.agent,
        agent_factory=world.agent_factory,
        torso=world.torso,
        channels_last=config.learner.channels_last,
        env=config.env,
        env_factory=world.env_factory,
        registered=world.registered,
    )

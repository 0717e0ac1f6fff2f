"""Batches as the loss gets them: a short run inside the program that asks for them, which leaves no folder behind."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.config.auto import decide
from offbeat.config.fitting import fitted
from offbeat.config.run_config import RunConfig
from offbeat.config.validation import validate
from offbeat.envs.registry import env_spec, specs_kept
from offbeat.errors import UserError
from offbeat.networks.flat import flat_size
from offbeat.run.nobody import Nobody
from offbeat.run.own import with_torso
from offbeat.run.stem import Start, begin_with_stem, with_stem
from offbeat.runtime.host import Host, built
from offbeat.runtime.learner import Learner
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.stuck import NoProgress, ProgressWatch
from offbeat.runtime.topology import topology
from offbeat.runtime.world import make_world, plan_layout
from offbeat.types import Batch


@dataclass(frozen=True)
class Captured:
    """An agent and the batches that it would have been trained on next. ``print`` it to see what a batch holds."""

    agent: Agent
    """The learner's, with its network and what it keeps beside it (target networks), after ``updates`` updates."""
    batches: tuple[Batch, ...]
    """As ``agent.loss`` gets them, on the learner's device; copies that nobody else writes to."""
    progress: float
    """The share of the run that was done, as ``agent.loss`` gets it."""
    updates: int
    """Updates that the learner had made."""

    def __str__(self) -> str:
        """One line for each tensor of the first batch: name, dtype, shape, least and largest value."""
        head = f"{len(self.batches)} batches after {self.updates} updates, each a {type(self.batches[0]).__name__}:"
        return "\n".join([head, *(f"  {line}" for line in _lines(self.batches[0]))])


@specs_kept()
def capture(
    config: RunConfig,
    *,
    batches: int = 3,
    after: int = 0,
    given: Iterable[str] = (),
    init_from: Path | None = None,
    init_optimiser: bool = False,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
    torso: Any = None,
) -> Captured:
    """Train for ``after`` updates in this process, as ``engine=inline`` does, and keep the ``batches`` that come next.

    ``given``, ``init_from``, ``init_optimiser`` and what is the user's own: as of ``offbeat.run.train.train``.

    Raises:
        UserError: the configuration cannot run here, it is over before, or no batch ever comes.
    """
    if batches < 1 or after < 0:
        raise UserError(f"batches={batches}, after={after}: expected at least 1 batch after 0 updates or more")
    own = {"env_factory": env_factory, "agent_factory": agent_factory, "torso": torso}
    config = with_torso(fitted(replace(config, engine="inline", out=""), given, env_factory), own)
    validate(config, env_factory=env_factory)
    start = init_from, init_optimiser
    with _left_alone(), _roles(with_stem(decide(config), start), start, own) as (actors, learner, watch):

        def act() -> None:
            if watch.stuck_in_rounds(learner.work.updates + learner.work.skipped):
                raise NoProgress(watch.fruitless or learner.missing())
            for actor in actors:
                actor.advance()

        _train(learner, after, act)
        return Captured(learner.agent, tuple(_next(learner, act) for _ in range(batches)), learner.work.progress, after)


@contextmanager
def _left_alone() -> Iterator[None]:
    """The caller's random numbers and threads are afterwards as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _roles(config: RunConfig, start: Start, own: dict[str, Any]) -> Iterator[tuple[list[Host], Learner, ProgressWatch]]:
    """The actors and the learner of the run, in this thread."""
    spec = env_spec(config.env, own["env_factory"])
    maker = own["agent_factory"]
    agent = make_agent(config.agent_name, config.agent, spec, "cpu", own["torso"], maker)
    layout = plan_layout(config, spec, agent, type(agent).__qualname__ if maker else "")
    begin_with_stem(config, agent.network)
    roles = topology(config, layout.items)
    world = make_world(config, spec, layout, roles, flat_size(agent.network), Path(os.devnull), **own)
    world.init_from, world.init_optimiser = start
    hosts: list[Host] = []
    try:
        for name in (*roles.of("actor"), "learner"):
            services = LocalServices(world, name, Nobody(), free=False)
            hosts.append(built(roles.row(name).builder(), services))
        *actors, learner = hosts
        assert isinstance(learner, Learner)
        yield actors, learner, ProgressWatch(world)
    finally:
        for host in hosts:
            host.close()
        world.close()


def _train(learner: Learner, after: int, act: Callable[[], None]) -> None:
    """``after`` updates."""
    steps = learner.steps()
    while learner.work.updates < after:
        event = next(steps, "ended")
        if event == "ended":
            raise UserError(f"after={after}: the run is over after {learner.work.updates} updates; raise total_frames")
        learner.post(event)
        if event == "idle":
            act()
    learner.agent.network.zero_grad()


def _next(learner: Learner, act: Callable[[], None]) -> Batch:
    """The batch that comes next, in memory of its own. It counts as trained on, so that others follow."""
    while (batch := learner.batches.next(0.0)) is None:
        act()
    seen: Batch = copy.deepcopy(learner.work.seen(batch))
    learner.batches.done(batch)
    return seen


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """A line for each tensor in ``value``."""
    if isinstance(value, torch.Tensor):
        kind, shape = str(value.dtype).removeprefix("torch."), list(value.shape)
        around = f", {value.min().item():.6g} to {value.max().item():.6g}" if value.numel() else ""
        yield f"{name}: {kind} {shape}{around}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name}[{key!r}]")
    elif hasattr(value, "__dataclass_fields__"):
        for field in fields(value):
            yield from _lines(getattr(value, field.name), f"{name}.{field.name}".lstrip("."))

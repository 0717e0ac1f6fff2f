"""Hosts: each builds one role's parts from the world and runs the role's loop in steps, wherever an engine puts it.

A host answers commands: ``advance`` (an actor: one block of every stream; the learner: every batch that is ready),
``save`` (write its part of a checkpoint), ``evaluate``. Engines call them directly or through a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.checkpoint import find, load, write_part
from offbeat.envs.base import StateUnsupported, VectorEnv
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.building import build_agent, build_envs, device_of, exploration, seeds
from offbeat.runtime.evaluator import run_evaluator
from offbeat.runtime.host import Host as Host
from offbeat.runtime.host import Parts as Parts
from offbeat.runtime.host import Stop as Stop
from offbeat.runtime.inference import RemotePolicy, run_inference
from offbeat.runtime.learner_host import LearnerHost as LearnerHost
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, Policy
from offbeat.runtime.world import World
from offbeat.runtime.writer import StoreWriter


def build_actor(
    world: World, name: str, metrics: MetricSink, *, free: bool, incarnation: int, checkpoint: Path | None
) -> ActorHost:
    """An actor's host. ``checkpoint``: folder of the one that is loaded, or of a run, for its newest."""
    loaded = None if checkpoint is None else load(find(checkpoint, only=(name,)))[0]  # the parent verified the rest
    index = world.topology.index(name)
    return ActorHost(world, index, metrics, incarnation=incarnation, loaded=loaded, free=free)


def build_evaluator(
    world: World, name: str, metrics: MetricSink, *, free: bool, incarnation: int, checkpoint: Path | None
) -> EvaluatorHost:
    """The evaluator's host; it needs nothing of a checkpoint."""
    return EvaluatorHost(world, metrics)


def build_inference(
    world: World, name: str, metrics: MetricSink, *, free: bool, incarnation: int, checkpoint: Path | None
) -> InferenceHost:
    """The host of an inference server; it needs nothing of a checkpoint."""
    return InferenceHost(world, name, metrics)


class ActorHost:
    """An actor with its environments and policy."""

    def __init__(
        self,
        world: World,
        index: int,
        metrics: MetricSink,
        *,
        incarnation: int = 0,
        loaded: Parts | None = None,
        free: bool,
    ) -> None:
        config, self._world, self.name = world.config, world, f"actor-{index}"
        self._threads = config.actor.threads
        torch.set_num_threads(self._threads)
        env_seed, act_seed = seeds(world, 1, index, incarnation)
        streams = world.streams_of(index)
        self.envs = build_envs(
            world, config.env, len(streams), batch=config.actor.batch, threads=config.actor.env_threads
        )
        self._wait = wait = world.wait(self.name) if free else None
        if wait is not None:
            wait.until("first weights", lambda: world.params.store.version() >= 0)
        self.policy: LocalPolicy | RemotePolicy
        agent = build_agent(world, "cpu")
        if world.inbox is not None and wait is not None:
            servers = world.topology.of("inference")  # workers are dealt to them in turn
            server = world.bells[servers[index % len(servers)]]
            self.policy = RemotePolicy(world.inbox, index, wait, server, agent.wants_last, world.guard)
        else:
            self.policy = LocalPolicy(
                agent, world.params.store, len(streams), seed=act_seed, precision=config.learner.precision
            )
        self.work = ActorWork(
            world.layout,
            streams,
            block=config.learner.unroll_length,
            discount=agent.discount,
            wants_last=agent.wants_last,
            seed=env_seed,
            frame_skip=world.spec.frame_skip,
            players=world.spec.players,
            explore=exploration(world, agent, streams, free),
        )
        part = (loaded or {}).get(self.name)
        if part is not None and not free:
            with world.heart(self.name).beating():  # games are played again from their snapshots
                self._load(part, anew="streams" not in (loaded or {}))
        stop = Stop(world, world.heart(self.name))
        self._writer = StoreWriter(world.store, wait, world.paused, world.bells["learner"], streams)
        self._loop = run_actor(self.envs, self._as_policy(), self._writer, metrics, stop, self.work)

    def _as_policy(self) -> Policy:
        return self.policy

    def advance(self) -> dict[str, Any]:
        """One block of every stream."""
        torch.set_num_threads(self._threads)
        return {"finished": next(self._loop, "ended") == "ended"}

    def steps(self) -> Iterator[None]:
        """The role's own loop, for engines that let it run."""
        return self._loop

    def save(self, folder: Path) -> dict[str, Any]:
        """Write environments, policy and work; only between rounds."""
        try:
            envs = self.envs.state()
        except StateUnsupported as error:
            raise StateUnsupported(
                f"{error}; a deterministic run needs environments that can be saved exactly"
            ) from error
        arrays = {f"envs/{name}": value for name, value in envs.items()}
        arrays |= {f"work/{name}": value for name, value in self.work.state().items()}
        arrays |= {f"policy/{name}": value for name, value in self.policy.state().items()}
        write_part(folder, self.name, arrays)
        return {}

    def _load(self, part: dict[str, Any], anew: bool) -> None:
        """Go on with saved games. ``anew``: their earlier rows are gone, so only the count of steps goes on."""
        if anew:
            self.work.steps = int(np.asarray(part["work/steps"])[0])
            return
        groups: dict[str, dict[str, np.ndarray]] = {"envs": {}, "work": {}, "policy": {}}
        for name, value in part.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = np.asarray(value)
        self.work.load_state(groups["work"])
        self.policy.load_state(groups["policy"])
        self.envs.load_state(groups["envs"])

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


class EvaluatorHost:
    """The evaluator with environments of its own, made at the first evaluation."""

    name = "evaluator"

    def __init__(self, world: World, metrics: MetricSink) -> None:
        self._world, self._metrics = world, metrics
        self._envs: VectorEnv | None = None
        self._policy: LocalPolicy | None = None

    def evaluate(self, number: int) -> dict[str, Any]:
        """Score the newest published weights. ``number`` seeds the games."""
        world, config = self._world, self._world.config.evaluation
        torch.set_num_threads(config.threads)
        if self._envs is None or self._policy is None:
            self._envs = build_envs(world, world.config.eval_env, config.envs, threads=config.threads)
            agent = build_agent(world, device_of(world, world.config.learner.device))
            self._policy = LocalPolicy(agent, world.params.store, config.envs, seed=0)
        stop = Stop(world, world.heart(self.name), early=True)
        seed = seeds(world, 3, number)[0]
        result = run_evaluator(self._envs, self._policy, self._metrics, stop, config, seed=seed)
        return {"mean": result.mean, "complete": result.complete}

    def advance(self) -> dict[str, Any]:
        """Nothing: evaluations are asked for one by one."""
        return {"finished": False}

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing: every evaluation starts from its number."""
        return {}

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()


class InferenceHost:
    """An inference server: one of several serves every so-many-th worker."""

    def __init__(self, world: World, name: str, metrics: MetricSink) -> None:
        self.name, row, index = name, world.topology.row(name), world.topology.index(name)
        torch.set_num_threads(row.threads)
        assert world.inbox is not None, "the world of a run with a server has an inbox"
        self._agent = build_agent(world, device_of(world, row.device(index)))
        self._wait = world.wait(self.name)
        workers = world.topology.of("actor")
        own = range(index, len(workers), row.count)
        self._loop = run_inference(
            self._agent,
            world.inbox,
            world.params.store,
            {worker: world.bells[workers[worker]] for worker in own},
            metrics,
            Stop(world, world.heart(self.name)),
            self._wait,
            world.config.inference,
            seeds(world, 4, index)[1],
            world.guard,
        )

    def steps(self) -> Iterator[None]:
        """The role's own loop."""
        return self._loop

    def close(self) -> None:
        """Nothing to free."""

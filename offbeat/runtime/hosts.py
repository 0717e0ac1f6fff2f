"""Hosts: each builds one role's parts from the world and runs the role's loop in steps, wherever an engine puts it.

A host answers commands: ``advance`` (an actor: one block of every stream; the learner: every batch that is ready),
``save`` (write its part of a checkpoint), ``evaluate``. Engines call them directly or through a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from offbeat.agents.base import HasTarget
from offbeat.checkpoint import load_weights, write_part
from offbeat.envs.base import StateUnsupported, VectorEnv
from offbeat.replay.item_replay import ItemReplay, make_item_replay
from offbeat.replay.mixture import Mixture, make_mixture
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.building import build_agent, build_envs, device_of, exploration, seeds
from offbeat.runtime.evaluator import run_evaluator
from offbeat.runtime.inference import RemotePolicy, run_inference
from offbeat.runtime.learner import LearnerWork, run_learner
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, Policy
from offbeat.runtime.shm import Heart
from offbeat.runtime.world import World, holds_writers
from offbeat.runtime.writer import StoreWriter

HOLD_S = 5.0
"""Longest wait for writers to finish their blocks before the streams are saved. Unit: seconds."""
Parts = dict[str, dict[str, Any]]
"""A loaded checkpoint: part -> name -> tensor or array."""


class Host(Protocol):
    """One role in steps."""

    def advance(self) -> dict[str, Any]:
        """Do one round's work; {"finished": bool, ...}."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Write this role's part of a checkpoint into ``folder``; returns what belongs into its meta data."""

    def close(self) -> None:
        """Free the role's resources."""


class Stop:
    """A stop signal that also counts as a sign of life: roles look at it in every step."""

    def __init__(self, world: World, heart: Heart, early: bool = False) -> None:
        self._world, self._heart, self._early = world, heart, early

    def is_set(self) -> bool:
        """True once the role should end, or (``early``) once the run is about to."""
        self._heart.beat()
        return self._world.stopped() or (self._early and bool(self._world.board["leaving"][0]))


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
            self.policy = RemotePolicy(world.inbox, index, wait, world.bells["inference"], agent.wants_last)
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
            explore=exploration(world, agent, streams, free),
        )
        part = (loaded or {}).get(self.name)
        if part is not None and not free:
            self._load(part)
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

    def _load(self, part: dict[str, Any]) -> None:
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


class LearnerHost:
    """The learner with its sampler."""

    name = "learner"

    def __init__(
        self,
        world: World,
        metrics: MetricSink,
        *,
        loaded: Parts | None = None,
        counters: dict[str, int] | None = None,
        free: bool,
    ) -> None:
        config, self._world, self.metrics = world.config, world, metrics
        self._threads = config.learner.threads
        self._wait = world.wait(self.name) if free else None
        torch.set_num_threads(self._threads)
        self.agent = build_agent(world, device_of(world, config.learner.device))
        torch.manual_seed(seeds(world, 2)[1])  # of what a loss draws
        skip = world.spec.frame_skip
        self.work = LearnerWork(
            self.agent, config.learner, total_steps=-(-config.total_frames // skip), frame_skip=skip
        )
        self.mixture = self._make_replay()
        self._steps_before = 0
        if loaded is not None:
            self._load(loaded, counters or {})
        elif world.init_from is not None:
            self.work.optimiser.load_weights(load_weights(world.init_from)[0])
        writers = [bell for role, bell in world.bells.items() if role.startswith("actor")]
        self.batches = StreamBatches(
            self.mixture,
            world.store,
            self.work.device,
            wait=self._wait,
            writers=writers if free else [],
            prefetch=config.learner.prefetch if free else 0,
            oldest=self._oldest,
            trained=self._steps_before,
        )
        world.params.store.publish(self.work.optimiser.flat, self.work.updates)
        world.ring()  # actors wait for the first weights
        stop = Stop(world, world.heart(self.name))
        self._loop = run_learner(self.agent, self.batches, world.params.store, self.batches, metrics, stop, self.work)

    def _make_replay(self) -> Mixture | ItemReplay:
        world, config = self._world, self._world.config
        size, last, seed = config.learner.batch_size, self.agent.wants_last, seeds(world, 2)[0]
        if world.layout.items is None:
            return make_mixture(world.store, config.replay, size, config.learner.unroll_length, last, seed)
        return make_item_replay(
            world.store,
            world.layout.items,
            config.replay,
            size,
            last,
            seed,
            progress=lambda: self.work.progress,
            hold_writers=holds_writers(config),
        )

    def advance(self) -> dict[str, Any]:
        """Train on every batch that is ready."""
        torch.set_num_threads(self._threads)
        for event in self._loop:
            self.post()
            if event == "idle":
                break
        return {"finished": self.work.finished(), "updates": self.work.updates, "agent_steps": self.work.agent_steps}

    def steps(self) -> Iterator[str]:
        """The role's own loop, for engines that let it run."""
        return self._loop

    def _oldest(self) -> int:
        limit = self._world.config.learner.max_policy_lag
        return max(0, self.work.updates - limit) if limit else 0

    def post(self) -> None:
        """Put the counters on the notice board."""
        self._world.board["updates"][0] = self.work.updates
        self._world.board["agent_steps"][0] = self.work.agent_steps

    def save(self, folder: Path) -> dict[str, Any]:
        """Write weights, optimiser, sampler, generators and (if wanted) the streams."""
        weights = self.work.optimiser.weights()
        arrays: dict[str, Any] = {f"weights/{name}": value.cpu() for name, value in weights.items()}
        arrays |= {f"optimiser/{name}": value.cpu() for name, value in self.work.optimiser.state().items()}
        if isinstance(self.agent, HasTarget):
            arrays |= {f"target/{name}": value for name, value in self.agent.target_state().items()}
        arrays["generator"] = torch.get_rng_state()
        write_part(folder, self.name, arrays)
        limits = self._world.config.checkpoint
        keep = limits.replay and self._world.memory.nbytes <= limits.max_replay_gb * 2**30
        if keep:
            with self.batches.at_rest(), self._writers_held():
                streams = {f"streams/{name}": value for name, value in self._world.store.state().items()}
                streams |= {f"mixture/{name}": value for name, value in self.mixture.state().items()}
                streams["steps"] = np.array([self.batches.steps()])  # counters have those of the last update
            write_part(folder, "streams", streams)
        self.work.report(self.metrics, force=True)
        return {"counters": self.work.counters(), "parts": [self.name, *(["streams"] if keep else [])]}

    @contextmanager
    def _writers_held(self) -> Iterator[None]:
        """Keep actors from appending while the streams are copied; a block that is being written is waited for."""
        store, pause = self._world.store, self._world.board["pause"]
        pause[0] = 1
        try:
            if self._wait is not None:
                self._wait.until("writers", lambda: bool((store.reserved == store.head).all()), HOLD_S)
            yield
        finally:
            pause[0] = 0
            self._world.ring()

    def _load(self, loaded: Parts, counters: dict[str, int]) -> None:
        part = loaded[self.name]
        weights = {name.removeprefix("weights/"): value for name, value in part.items() if name.startswith("weights/")}
        self.work.optimiser.load_weights(weights)
        optimiser = {
            name.removeprefix("optimiser/"): value for name, value in part.items() if name.startswith("optimiser/")
        }
        self.work.load_state(optimiser, counters)
        target = {name.removeprefix("target/"): value for name, value in part.items() if name.startswith("target/")}
        if target and isinstance(self.agent, HasTarget):
            self.agent.load_target_state(target)
        if "generator" in part:
            torch.set_rng_state(torch.as_tensor(part["generator"], dtype=torch.uint8))
        self._steps_before = self.work.agent_steps
        streams = loaded.get("streams")
        if streams is not None and "steps" in streams:
            self._steps_before = int(streams["steps"][0])
        if streams is not None:
            mixture = {name.removeprefix("mixture/"): v for name, v in streams.items() if name.startswith("mixture/")}
            self.mixture.load_state({name: np.asarray(value) for name, value in mixture.items()})

    def close(self) -> None:
        """End the assembly thread."""
        self.batches.close()


class EvaluatorHost:
    """The evaluator with environments of its own, made at the first evaluation."""

    name = "evaluator"

    def __init__(self, world: World, metrics: MetricSink) -> None:
        self._world, self._metrics = world, metrics
        self._envs: VectorEnv | None = None
        self._policy: LocalPolicy | None = None

    def evaluate(self, number: int, point: dict[str, float]) -> dict[str, Any]:
        """Score the current weights. ``number`` seeds the games; ``point``: where the run is, noted in the record."""
        world, config = self._world, self._world.config.evaluation
        torch.set_num_threads(config.threads)
        if self._envs is None or self._policy is None:
            self._envs = build_envs(world, world.config.eval_env, config.envs, threads=config.threads)
            agent = build_agent(world, device_of(world, world.config.learner.device))
            self._policy = LocalPolicy(agent, world.params.store, config.envs, seed=0)
        stop = Stop(world, world.heart(self.name), early=True)
        seed = seeds(world, 3, number)[0]
        result = run_evaluator(self._envs, self._policy, self._metrics, stop, config, seed=seed, point=point)
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
    """The inference server."""

    name = "inference"

    def __init__(self, world: World, metrics: MetricSink) -> None:
        torch.set_num_threads(world.config.inference.threads)
        assert world.inbox is not None, "the world of a run with a server has an inbox"
        self._agent = build_agent(world, device_of(world, world.config.inference.device))
        self._wait = world.wait(self.name)
        self._loop = run_inference(
            self._agent,
            world.inbox,
            world.params.store,
            [bell for role, bell in world.bells.items() if role.startswith("actor")],
            metrics,
            Stop(world, world.heart(self.name)),
            self._wait,
            world.config.inference,
            seeds(world, 4)[1],
        )

    def steps(self) -> Iterator[None]:
        """The role's own loop."""
        return self._loop

    def close(self) -> None:
        """Nothing to free."""

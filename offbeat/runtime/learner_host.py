"""The learner's host: builds the learner with its sampler, runs its loop in steps, saves and loads its state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import HasTarget
from offbeat.checkpoint import load_weights, write_part
from offbeat.replay.item_replay import ItemReplay, make_item_replay
from offbeat.replay.mixture import Mixture, make_mixture
from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.building import build_agent, device_of, seeds
from offbeat.runtime.host import Parts, Stop
from offbeat.runtime.learner import LearnerWork, run_learner
from offbeat.runtime.ports import MetricSink
from offbeat.runtime.world import World, holds_writers
from offbeat.runtime.writer import writers_held


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
        # A thread that assembles ahead waits for rows; it must not look like a sign of life of the training thread.
        self._wait = world.wait(self.name, alive=not config.learner.prefetch) if free else None
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
            with world.heart(self.name).beating():
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
            length = config.learner.unroll_length
            return make_mixture(world.store, config.replay, size, length, last, seed, holds_writers(config))
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
            self.post(event)
            if event == "idle":
                break
        return {"finished": self.work.finished(), "updates": self.work.updates, "agent_steps": self.work.agent_steps}

    def steps(self) -> Iterator[str]:
        """The role's own loop, for engines that let it run."""
        return self._loop

    def _oldest(self) -> int:
        limit = self._world.config.learner.max_policy_lag
        return max(0, self.work.updates - limit) if limit else 0

    def missing(self) -> str:
        """What the next batch waits for, in one line."""
        return self.mixture.missing()

    def post(self, event: str = "") -> None:
        """Put the counters on the notice board, and how often in a row there was no batch."""
        self._world.board["idle"][0] = self._world.board["idle"][0] + 1 if event == "idle" else 0
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
        note = ""
        if keep:
            world = self._world
            held = writers_held(world.store, world.board["pause"], self._wait, world.ring)
            with self.batches.at_rest(), held as note:
                streams = {f"streams/{name}": value for name, value in world.store.state().items()}
                streams |= {f"mixture/{name}": value for name, value in self.mixture.state().items()}
                streams["steps"] = np.array([self.batches.steps()])  # counters have those of the last update
            write_part(folder, "streams", streams)
        self.work.report(self.metrics, force=True)
        parts = [self.name, *(["streams"] if keep else [])]
        return {"counters": self.work.counters(), "parts": parts, "note": note}

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

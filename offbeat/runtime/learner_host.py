"""The learner's host: builds the learner with its sampler, runs its loop in steps, saves and loads its state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.checkpoint import CheckpointError, find, load, load_weights, write_part
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture
from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.building import build_agent, device_of, is_deterministic, seeds
from offbeat.runtime.generators import choose_deterministic_kernels, generator_state, load_generator_state
from offbeat.runtime.host import Parts, Stop
from offbeat.runtime.learner import LearnerWork, run_learner
from offbeat.runtime.ports import MetricSink, Point
from offbeat.runtime.world import World, holds_writers
from offbeat.runtime.writer import writers_held


def build_learner(
    world: World, name: str, metrics: MetricSink, *, free: bool, incarnation: int, checkpoint: Path | None
) -> LearnerHost:
    """The learner's host. ``checkpoint``: folder of the one that is loaded, or of a run, for its newest."""
    if checkpoint is None:
        return LearnerHost(world, metrics, free=free)
    loaded, meta = load(find(checkpoint, only=(name,)))  # the parent has verified the rest
    return LearnerHost(world, metrics, loaded=loaded, counters=meta["counters"], free=free)


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
        device = device_of(world, config.learner.device)
        if is_deterministic(world):
            choose_deterministic_kernels(device)
        self.agent = build_agent(world, device)
        torch.manual_seed(seeds(world, 2)[1])  # of what a loss draws
        self.work = LearnerWork(self.agent, config.learner, total_frames=config.total_frames, whole_rounds=not free)
        self.mixture = self._make_mixture()
        self._before = (0, 0)
        self._published: tuple[torch.Tensor, Point] | None = None
        if loaded is not None:
            with world.heart(self.name).beating():
                self._load(loaded, counters or {})
        elif world.init_from is not None:
            self.work.optimiser.load_weights(load_weights(world.init_from)[0])
        writers = [world.bells[name] for name in world.topology.that("owns_streams")]
        self.batches = StreamBatches(
            self.mixture,
            world.store,
            self.work.device,
            wait=self._wait,
            writers=writers if free else [],
            prefetch=config.learner.prefetch if free else 0,
            oldest=self._oldest,
            before=self._before,
            frame_skip=world.spec.frame_skip,
        )
        self._loaded = self.work.updates
        self.post()
        self._publish_first()
        world.ring()  # actors wait for the first weights
        stop = Stop(world, world.heart(self.name))
        self._loop = run_learner(self.agent, self.batches, world.params.store, self.batches, metrics, stop, self.work)

    @property
    def warm(self) -> bool:
        """Whether this process has made an update."""
        return self.work.updates > self._loaded

    def _publish_first(self) -> None:
        """Publish what actors had when the run was saved; the final weights if nothing is left to do but score them."""
        work, store = self.work, self._world.params.store
        flat, point = self._published or (work.optimiser.flat, work.point())
        if work.finished():
            work.scheduled = self._published
            flat, point = work.optimiser.flat, work.point()
        store.publish(flat, *point)

    def _make_mixture(self) -> Mixture:
        world, config = self._world, self._world.config
        return make_mixture(
            world.store,
            config.replay,
            config.learner.batch_size,
            self.agent.wants_last,
            seeds(world, 2)[0],
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
        counters = {"skipped": self.work.skipped} | self.work.point()._asdict()
        return {"finished": self.work.finished()} | counters

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
        self._world.board["skipped"][0] = self.work.skipped
        for name, value in self.work.point()._asdict().items():
            self._world.board[name][0] = value

    def save(self, folder: Path) -> dict[str, Any]:
        """Write weights, optimiser, sampler, generators and (if wanted) the streams."""
        if not self.work.optimiser.finite():
            raise CheckpointError("the weights or the optimiser's statistics are not finite; such a state is not saved")
        write_part(folder, self.name, self._state())
        keep = self._world.saves_streams()
        note = ""
        if keep:
            world = self._world
            held = writers_held(world.store, world.board["pause"], self._wait, world.ring)
            with self.batches.at_rest(), held as note:
                streams = {f"streams/{name}": value for name, value in world.store.state().items()}
                streams |= {f"mixture/{name}": value for name, value in self.mixture.state().items()}
                streams["steps"] = np.array([self.batches.steps()])  # counters have those of the last update
                streams["frames"] = np.array([self.batches.frames()])
            write_part(folder, "streams", streams)
        self.work.report(self.metrics, force=True)
        parts = [self.name, *(["streams"] if keep else [])]
        return {"counters": self.work.counters(), "parts": parts, "note": note}

    def _state(self) -> dict[str, Any]:
        """The learner's part: weights, statistics, generators, and the weights that others have."""
        weights = self.work.optimiser.weights()
        arrays: dict[str, Any] = {f"weights/{name}": value.cpu() for name, value in weights.items()}
        arrays |= {f"optimiser/{name}": value.cpu() for name, value in self.work.optimiser.state().items()}
        for kept, state in self.work.states.items():
            arrays |= {f"{kept}/{name}": value for name, value in state.state().items()}
        flat, point = self.work.scheduled or self._world.params.store.newest()
        arrays["published/point"] = np.array(point)
        if point.updates < self.work.updates:
            arrays["published/flat"] = flat
        return arrays | generator_state(self.work.device)

    def _load(self, loaded: Parts, counters: dict[str, int]) -> None:
        part, skip = loaded[self.name], self._world.spec.frame_skip
        if counters:  # those of before have no frames
            counters = {"frames": counters["agent_steps"] * skip} | counters
        weights = {name.removeprefix("weights/"): value for name, value in part.items() if name.startswith("weights/")}
        self.work.optimiser.load_weights(weights)
        optimiser = {
            name.removeprefix("optimiser/"): value for name, value in part.items() if name.startswith("optimiser/")
        }
        self.work.load_state(optimiser, counters)
        for kept, state in self.work.states.items():
            own = {name.removeprefix(f"{kept}/"): value for name, value in part.items() if name.startswith(f"{kept}/")}
            if own:
                state.load_state(own)
        load_generator_state(part, self.work.device)
        self._published = self._published_in(part)
        self._before = self.work.agent_steps, self.work.frames
        streams = loaded.get("streams")
        if streams is not None and "steps" in streams:
            steps = int(streams["steps"][0])
            self._before = steps, int(streams["frames"][0]) if "frames" in streams else steps * skip
        if streams is not None:
            mixture = {name.removeprefix("mixture/"): v for name, v in streams.items() if name.startswith("mixture/")}
            self.mixture.load_state({name: np.asarray(value) for name, value in mixture.items()})

    def _published_in(self, part: dict[str, Any]) -> tuple[torch.Tensor, Point] | None:
        """What others had when ``part`` was saved; None where it does not say (those of before) or does not fit."""
        own, numbers = self.work.optimiser.flat, np.asarray(part.get("published/point", ()))
        if numbers.shape != (len(Point._fields),):
            return None
        point = Point(*numbers.tolist())
        flat = torch.as_tensor(part.get("published/flat", own))
        fits = flat.shape == own.shape and 0 <= point.updates <= self.work.updates
        return (flat, point) if fits else None

    def close(self) -> None:
        """End the assembly thread."""
        self.batches.close()

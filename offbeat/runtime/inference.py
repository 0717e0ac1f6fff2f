"""The inference server: batches the requests of all actors into single forwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.networks.flat import flatten_parameters
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.ports import MetricSink, ParamReader, StopSignal
from offbeat.runtime.shm import Bell, SharedArrays, Wait
from offbeat.types import ActOutput, ArrayDict, ArraySpec, CoreState, EnvSpec, Inputs

IDLE_S = 0.5
"""Longest sleep without a request. Unit: seconds."""
REPORT_S = 1.0
"""The server reports about so often. Unit: seconds."""


@dataclass(frozen=True)
class InferenceConfig:
    """The inference server; unused with ``actor.inference = "actor"``."""

    device: tuple[str, ...] = ("auto",)
    """Torch devices: one server for each, workers dealt to them in turn; ``auto``: the run's device."""
    threads: int = 1
    """Torch threads of each server."""
    max_batch: int = 512
    """Most environments in one forward."""
    min_batch: int = 1
    """Wait for so many environments, but never longer than ``wait_s``."""
    wait_s: float = 0.002
    """Longest wait for ``min_batch``. Unit: seconds."""
    hang_timeout_s: float = 60.0
    """A server that shows no life for so long is reported with its stack, and the run ends. Unit: seconds."""


def inbox_arrays(world_spec: EnvSpec, layout: StreamLayout, workers: int, envs: int) -> dict[str, ArraySpec]:
    """The shared memory between actors and the server: one place per environment for its request and its answer."""
    rows: dict[str, ArraySpec] = {f"observation/{k}": spec for k, spec in world_spec.network_observation.items()}
    rows |= {"first": ArraySpec((), "bool"), "last_action": layout.action, "last_reward": ArraySpec(())}
    rows |= {"action": layout.action, "env": ArraySpec((), "int64"), "epsilon": ArraySpec(())}
    rows |= {f"extras/{name}": spec for name, spec in layout.extras.items()}
    rows |= {f"core/{name}": spec for name, spec in layout.core_state.items()}
    arrays = {name: ArraySpec((workers, envs, *spec.shape), spec.dtype) for name, spec in rows.items()}
    return arrays | {name: ArraySpec((workers,), "int64") for name in ("asked", "answered", "count", "version")}


class RemotePolicy:
    """The policy of an actor whose network runs in the inference server; recurrent states live there.

    Args:
        inbox: the shared arrays.
        worker: index of this actor.
        wait: how to wait for answers.
        server: the server's bell.
        wants_last: whether requests carry the last action and reward.
        guard: a lock shared with the server, for machines that reorder stores; see ``shm``.
    """

    def __init__(
        self,
        inbox: SharedArrays,
        worker: int,
        wait: Wait,
        server: Bell,
        wants_last: bool,
        guard: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._guard = guard if guard is not None else nullcontext()
        self._in, self._worker, self._wait, self._server, self._last = inbox, worker, wait, server, wants_last
        self.version = 0
        self._names = [name for name in inbox.arrays if name.startswith("extras/")]
        self._core = [name for name in inbox.arrays if name.startswith("core/")]
        self._wait.until("inference", self._idle)  # an earlier incarnation's request may still be on its way
        for name in self._core:
            inbox[name][worker] = 0

    def _idle(self) -> bool:
        with self._guard:
            return bool(self._in["asked"][self._worker] == self._in["answered"][self._worker])

    def refresh(self) -> int:
        """The server takes new weights by itself; the version that answered last."""
        return self.version

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """Ask the server for the actions of these environments and wait for them."""
        box, worker, count = self._in, self._worker, len(env_ids)
        for key, value in inputs.observation.items():
            box[f"observation/{key}"][worker, :count] = value[0].numpy()
        box["first"][worker, :count] = inputs.first[0].numpy()
        if inputs.last_action is not None and inputs.last_reward is not None:
            box["last_action"][worker, :count] = inputs.last_action[0].numpy()
            box["last_reward"][worker, :count] = inputs.last_reward[0].numpy()
        if inputs.epsilon is not None:
            box["epsilon"][worker, :count] = inputs.epsilon[0].numpy()
        box["env"][worker, :count] = env_ids
        box["count"][worker] = count
        with self._guard:  # whoever sees the count sees what was written before it
            box["asked"][worker] += 1
        self._server.ring()
        self._wait.until("inference", self._idle)
        self.version = int(box["version"][worker])
        extras = {name.removeprefix("extras/"): box[name][worker, :count].copy() for name in self._names}
        action = box["action"][worker, :count].copy()
        state = {name.removeprefix("core/"): torch.from_numpy(box[name][worker, env_ids]) for name in self._core}
        return ActOutput(torch.from_numpy(action), {k: torch.from_numpy(v) for k, v in extras.items()}, state)

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """The state before the next ``act`` of these environments, as the server left it."""
        return {n.removeprefix("core/"): torch.from_numpy(self._in[n][self._worker, env_ids]) for n in self._core}

    def state(self) -> ArrayDict:
        """Deterministic runs have no server."""
        raise RuntimeError("actor.inference=server has no exact state; deterministic runs use actor.inference=actor")

    def load_state(self, state: ArrayDict) -> None:
        """Deterministic runs have no server."""
        raise RuntimeError("actor.inference=server has no exact state; deterministic runs use actor.inference=actor")


def run_inference(
    agent: Agent,
    inbox: SharedArrays,
    params: ParamReader,
    actors: dict[int, Bell],
    metrics: MetricSink,
    stop: StopSignal,
    wait: Wait,
    config: InferenceConfig,
    seed: int,
    guard: AbstractContextManager[Any] | None = None,
) -> Iterator[None]:
    """Answer requests for ever: take all that wait (up to ``max_batch`` environments), one forward, answer, ring.

    Yields after each forward. ``actors``: the workers that this server answers, each with its bell. ``guard``: the lock
    that the actors take as well, see ``RemotePolicy``.
    """
    guard = guard if guard is not None else nullcontext()
    flat = flatten_parameters(agent.network)
    agent.network.eval()
    device, version = flat.device, -1
    generator = torch.Generator(device).manual_seed(seed)
    batches = rows = 0
    reported = time.perf_counter()

    own = np.array(sorted(actors))

    def waiting() -> np.ndarray:
        with guard:
            asking: np.ndarray = own[inbox["asked"][own] != inbox["answered"][own]]
            return asking

    def enough() -> bool:
        asking = waiting()
        return len(asking) == len(actors) or int(inbox["count"][asking].sum()) >= config.min_batch

    while not stop.is_set():
        if not wait.until("requests", lambda: len(waiting()) > 0, IDLE_S):
            yield
            continue
        wait.until("fuller batch", enough, config.wait_s)
        if params.version() != version:
            version = params.pull(flat).updates
        for group in _groups(waiting(), inbox["count"], config.max_batch):
            rows += _answer(agent, inbox, group, device, generator, version)
            batches += 1
            for worker in group:
                with guard:
                    inbox["answered"][worker] = inbox["asked"][worker]
                actors[worker].ring()
        now = time.perf_counter()
        if now - reported >= REPORT_S:
            metrics.write("inference", {"batches": batches, "rows_per_batch": rows / batches, "version": version})
            batches, rows, reported = 0, 0, now
        yield


def _groups(asking: np.ndarray, count: np.ndarray, most: int) -> list[list[int]]:
    """Requests of whole actors in batches of at most ``most`` rows (more only if one actor alone has more)."""
    groups: list[list[int]] = [[]]
    size = 0
    for worker in asking.tolist():
        rows = int(count[worker])
        if groups[-1] and size + rows > most:
            groups.append([])
            size = 0
        groups[-1].append(worker)
        size += rows
    return groups


@torch.inference_mode()
def _answer(
    agent: Agent, inbox: SharedArrays, group: list[int], device: torch.device, generator: torch.Generator, version: int
) -> int:
    """One forward for all requests of ``group``; writes their answers and new states. Returns the rows."""
    parts = [(worker, slice(0, int(inbox["count"][worker]))) for worker in group]

    def gather(name: str) -> torch.Tensor:
        rows = np.concatenate([inbox[name][worker, part] for worker, part in parts])
        return torch.from_numpy(rows).to(device)

    names = list(inbox.arrays)
    observation = {n.removeprefix("observation/"): gather(n)[None] for n in names if n.startswith("observation/")}
    inputs = Inputs(observation, gather("first")[None], epsilon=gather("epsilon")[None])
    if agent.wants_last:
        inputs.last_action, inputs.last_reward = gather("last_action")[None], gather("last_reward")[None]
    states = {}
    for name in (n for n in names if n.startswith("core/")):
        before = np.concatenate([inbox[name][worker, inbox["env"][worker, part]] for worker, part in parts])
        states[name.removeprefix("core/")] = torch.from_numpy(before).to(device)
    output = agent.act(inputs, states, generator)
    answers = {"action": output.action} | {f"extras/{name}": value for name, value in output.extras.items()}
    at = 0
    for worker, part in parts:
        rows = slice(at, at + part.stop)
        for name, value in answers.items():
            inbox[name][worker, part] = value[rows].cpu().numpy()
        for name, value in output.state.items():
            inbox[f"core/{name}"][worker, inbox["env"][worker, part]] = value[rows].cpu().numpy()
        inbox["version"][worker] = version
        at += part.stop
    return at

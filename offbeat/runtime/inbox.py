"""Requests and answers between actors and inference servers in shared memory: the policies' end, and the servers'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from offbeat.replay.layout import StreamLayout
from offbeat.runtime.ports import Asked
from offbeat.runtime.shm import Bell, SharedArrays, Wait
from offbeat.types import ActOutput, ArrayDict, ArraySpec, CoreState, EnvSpec, Inputs


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

    def release(self) -> None:
        """The weights are the server's."""

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


class SharedRequests:
    """The server's end.

    Args:
        inbox: the shared arrays.
        actors: the workers that this server answers, each with its bell.
        wait: how to wait for requests.
        last: whether inputs carry last actions and rewards.
        guard: the lock that the actors take as well.
    """

    def __init__(
        self,
        inbox: SharedArrays,
        actors: dict[int, Bell],
        wait: Wait,
        last: bool,
        guard: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._guard = guard if guard is not None else nullcontext()
        self._in, self._actors, self._wait, self._last = inbox, actors, wait, last
        self._own = np.array(sorted(actors))

    def wait(self, rows: int, wait_s: float, idle_s: float) -> bool:
        """Sleep until somebody asks, and on for a fuller batch; False if nobody did."""

        def enough() -> bool:
            asking = self._waiting()
            return len(asking) == len(self._actors) or int(self._in["count"][asking].sum()) >= rows

        if not self._wait.until("requests", lambda: len(self._waiting()) > 0, idle_s):
            return False
        self._wait.until("fuller batch", enough, wait_s)
        return True

    def _waiting(self) -> np.ndarray:
        with self._guard:
            asking: np.ndarray = self._own[self._in["asked"][self._own] != self._in["answered"][self._own]]
            return asking

    def take(self, most: int) -> Iterator[Asked]:
        """All that wait now, in groups."""
        for group in _groups(self._waiting(), self._in["count"], most):
            yield self._gather(group)

    def _gather(self, group: list[int]) -> Asked:
        """What the workers of ``group`` ask."""
        box, parts = self._in, self._parts(group)

        def gather(name: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([box[name][worker, part] for worker, part in parts]))

        names = list(box.arrays)
        observation = {n.removeprefix("observation/"): gather(n)[None] for n in names if n.startswith("observation/")}
        inputs = Inputs(observation, gather("first")[None], epsilon=gather("epsilon")[None])
        if self._last:
            inputs.last_action, inputs.last_reward = gather("last_action")[None], gather("last_reward")[None]
        states = {}
        for name in (n for n in names if n.startswith("core/")):
            before = np.concatenate([box[name][worker, box["env"][worker, part]] for worker, part in parts])
            states[name.removeprefix("core/")] = torch.from_numpy(before)
        return Asked(group, inputs, states)

    def _parts(self, group: list[int]) -> list[tuple[int, slice]]:
        return [(worker, slice(0, int(self._in["count"][worker]))) for worker in group]

    def answer(self, asked: Asked, output: ActOutput, version: int) -> None:
        """Write answers and new states, and ring."""
        box, at = self._in, 0
        tensors = {"action": output.action} | {f"extras/{name}": value for name, value in output.extras.items()}
        # From a GPU once, not once for each worker: a copy waits for the device, whatever its size.
        answers = {name: value.cpu().numpy() for name, value in tensors.items()}
        states = {name: value.cpu().numpy() for name, value in output.state.items()}
        for worker, part in self._parts(asked.workers):
            rows = slice(at, at + part.stop)
            for name, value in answers.items():
                box[name][worker, part] = value[rows]
            for name, value in states.items():
                box[f"core/{name}"][worker, box["env"][worker, part]] = value[rows]
            box["version"][worker] = version
            at += part.stop
        for worker in asked.workers:
            with self._guard:  # after the answers: who sees this count reads them
                box["answered"][worker] = box["asked"][worker]
            self._actors[worker].ring()


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

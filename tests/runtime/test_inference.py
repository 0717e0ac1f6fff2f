"""The inference server and the policies that ask it, in threads over shared memory."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.agents import dqn
from offbeat.agents.impala import Agent, Config
from offbeat.replay.layout import layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.runtime.clock import WALL
from offbeat.runtime.inbox import RemotePolicy, SharedRequests, _groups, inbox_arrays
from offbeat.runtime.inference import InferenceConfig, run_inference
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, SharedArrays, Wait, make_guard
from offbeat.types import ActOutput, ArraySpec, CoreState, Inputs
from tests.agents.unrolls import make_inputs, make_spec, row
from tests.runtime.parts import Metrics, private_params
from tests.runtime.test_policy import some

SPEC, ENVS, SEED = make_spec(), 4, 21


class Recording(Agent):
    """Notes how many environments each forward serves."""

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """As the agent does."""
        self.__dict__.setdefault("widths", []).append(inputs.shape[1])
        return super().act(inputs, state, generator, greedy)


def make_agent() -> Recording:
    """A small recurrent agent that is shown last actions and rewards."""
    torch.manual_seed(0)
    return Recording(Config(hidden_size=(6,), core="lstm", core_size=5, last_action=True, last_reward=True), SPEC)


@dataclass
class Server:
    """A server in a thread, and what its clients need."""

    workers: int = 1
    config: InferenceConfig = field(default_factory=lambda: InferenceConfig(wait_s=0.0))
    make: Any = make_agent
    guard: Any = None

    def __post_init__(self) -> None:
        """Allocate everything; nothing runs yet."""
        self.agent, self.bell, self.metrics = self.make(), Bell(), Metrics()
        core = {name: ArraySpec(tuple(value.shape[1:])) for name, value in self.agent.initial_state(1).items()}
        layout = layout_for(
            SPEC, self.agent.row_extras(), core, num_streams=ENVS, replay=ReplayConfig(), unroll_length=5
        )
        self.inbox = SharedArrays(inbox_arrays(SPEC, layout, self.workers, ENVS))
        self.bells = [Bell() for _ in range(self.workers)]
        self.params = private_params(len(LocalPolicy(self.agent, private_params(1), 1, seed=0).flat))
        self.params.publish(LocalPolicy(self.make(), self.params, 1, seed=0).flat, 2)
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        wait = Wait(self.bell, self.ended.is_set)
        stop = type("Stop", (), {"is_set": lambda _: self.ended.is_set()})()
        actors = dict(enumerate(self.bells))
        requests = SharedRequests(self.inbox, actors, wait, self.agent.wants_last, self.guard)
        try:
            for _ in run_inference(self.agent, requests, self.params, self.metrics, stop, WALL, self.config, SEED):
                pass
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
            self.ended.set()

    def client(self, worker: int = 0) -> RemotePolicy:
        """The policy of one actor."""
        wait = Wait(self.bells[worker], self.ended.is_set)
        return RemotePolicy(self.inbox, worker, wait, self.bell, wants_last=True, guard=self.guard)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended.set()
        for bell in (self.bell, *self.bells):
            bell.ring()
        self.thread.join(30)
        assert self.error is None


def test_a_lone_client_gets_what_its_own_network_would_give() -> None:
    """Actions, extras, states, versions; any environments in any order; also after new weights."""
    rng, inputs = np.random.default_rng(0), make_inputs(SPEC, 40, ENVS)
    with Server() as server:
        remote = server.client()
        local = LocalPolicy(make_agent(), server.params, ENVS, seed=SEED)
        for t in range(40):
            if t == 20:
                server.params.publish(local.flat * 1.5, 9)
            local.refresh()
            ids = np.arange(ENVS) if t % 4 == 0 else rng.permutation(ENVS)[: rng.integers(1, ENVS + 1)]
            now = some(row(inputs, t), ids)
            now.first[0] = torch.from_numpy(rng.random(len(ids)) < 0.2)
            for name, value in remote.core_state(np.arange(ENVS)).items():
                assert torch.equal(value, local.core_state(np.arange(ENVS))[name])
            one, other = remote.act(ids, now), local.act(ids, now)
            assert torch.equal(one.action, other.action)
            assert one.extras.keys() == other.extras.keys()
            assert all(torch.equal(one.extras[name], other.extras[name]) for name in one.extras)
            assert all(torch.equal(one.state[name], other.state[name]) for name in other.state)
            assert remote.version == remote.refresh() == local.version == (2 if t < 20 else 9)


class Watched:
    """A guard that notes who holds it while the counts of requests and answers go from what to what."""

    def __init__(self) -> None:
        self.lock = make_guard(force=True)
        assert self.lock is not None
        self.inbox: SharedArrays | None = None
        self.held: set[tuple[str, tuple[int, int], tuple[int, int]]] = set()
        self._before = (0, 0)

    def _counts(self) -> tuple[int, int]:
        assert self.inbox is not None
        return int(self.inbox["asked"][0]), int(self.inbox["answered"][0])

    def __enter__(self) -> None:
        self.lock.__enter__()
        self._before = self._counts()

    def __exit__(self, *exc: object) -> None:
        side = "actor" if threading.current_thread() is threading.main_thread() else "server"
        self.held.add((side, self._before, self._counts()))
        self.lock.__exit__(*exc)


def test_both_ends_take_the_guard_for_every_look_at_the_counts_and_every_change() -> None:
    watched = Watched()
    server = Server(guard=watched)
    watched.inbox = server.inbox
    with server:
        remote = server.client()
        remote.act(np.arange(ENVS), row(make_inputs(SPEC, 1, ENVS), 0))
    nothing, asked, answered = (0, 0), (1, 0), (1, 1)
    assert ("actor", nothing, asked) in watched.held, "it asked under the guard"
    assert ("server", asked, asked) in watched.held, "the request was seen under it"
    assert ("server", asked, answered) in watched.held, "and answered"
    assert ("actor", answered, answered) in watched.held, "and the answer was seen under it"
    assert not isinstance(server.client()._guard, nullcontext) and isinstance(Server().client()._guard, nullcontext)


def make_dqn() -> dqn.Agent:
    """A small agent that is told how much to explore."""
    torch.manual_seed(0)
    return dqn.Agent(dqn.Config(hidden_size=(6,)), SPEC)


def test_each_environment_explores_by_the_epsilon_that_came_with_its_request() -> None:
    rounds, inputs = 400, make_inputs(SPEC, 1, ENVS)
    with Server(make=make_dqn) as server:
        remote = server.client()
        greedy = make_dqn().act(inputs, {}, None).action
        others = torch.zeros(ENVS)
        for _ in range(rounds):
            inputs.epsilon = torch.tensor([[0.0, 0.3, 0.9, 0.0]])
            others += remote.act(np.arange(ENVS), inputs).action != greedy
    expected = torch.tensor([0.0, 0.2, 0.6, 0.0])  # a third of random actions is the best one
    torch.testing.assert_close(others / rounds, expected, rtol=0, atol=0.08)
    assert others[0] == others[3] == 0


def ask_together(server: Server, counts: list[int], rounds: int) -> list[list[ActOutput]]:
    """Each worker asks for so many environments, all at once, so many times; the answers by worker."""
    answers: list[list[ActOutput]] = [[] for _ in counts]
    inputs = make_inputs(SPEC, rounds, ENVS * len(counts))

    def ask(worker: int) -> None:
        policy = server.client(worker)
        ids = np.arange(ENVS)[-counts[worker] :][::-1].copy()
        for t in range(rounds):
            answers[worker].append(policy.act(ids, some(row(inputs, t), worker * ENVS + ids)))

    threads = [threading.Thread(target=ask, args=(worker,), daemon=True) for worker in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_workers_share_forwards_of_at_most_max_batch_and_get_their_own_answers() -> None:
    counts, rounds = [3, 1, 4, 2], 6
    with Server(4, InferenceConfig(min_batch=100, wait_s=60.0, max_batch=5)) as server:
        answers = ask_together(server, counts, rounds)
    assert server.agent.__dict__["widths"] == [4, 4, 2] * rounds, "3 + 1, then 4, then 2"
    inputs = make_inputs(SPEC, rounds, ENVS * len(counts))
    for worker, count in enumerate(counts):
        own, ids = make_agent(), np.arange(ENVS)[-count:][::-1].copy()
        state = own.initial_state(count)
        for t in range(rounds):
            with torch.inference_mode():
                expected = own.act(some(row(inputs, t), worker * ENVS + ids), state, None, greedy=True)
            state = expected.state
            got = answers[worker][t]
            for name, value in expected.extras.items():
                torch.testing.assert_close(got.extras[name], value, rtol=1e-4, atol=1e-5)
            for name, value in state.items():
                torch.testing.assert_close(got.state[name], value, rtol=1e-4, atol=1e-5)
            assert got.action.shape == (count,)


def test_groups_never_split_an_actors_request() -> None:
    count = np.array([3, 1, 9, 2, 3])
    assert _groups(np.array([0, 1, 3, 4]), count, 5) == [[0, 1], [3, 4]]
    assert _groups(np.array([0, 2, 3]), count, 5) == [[0], [2], [3]]
    assert _groups(np.array([2]), count, 5) == [[2]], "one actor alone may have more"
    assert _groups(np.arange(5), count, 100) == [[0, 1, 2, 3, 4]]


def test_nobody_is_kept_waiting_for_a_fuller_batch_for_ever() -> None:
    with Server(3, InferenceConfig(min_batch=100, wait_s=0.01)) as server:
        output = server.client(1).act(np.arange(2), some(row(make_inputs(SPEC, 1, ENVS), 0), np.arange(2)))
    assert output.action.shape == (2,)


def test_a_new_incarnation_waits_for_the_old_request_and_starts_from_empty_states() -> None:
    server = Server()
    server.inbox["count"][0], server.inbox["asked"][0] = 2, 1  # the old actor asked and was killed
    server.inbox["first"][0, :2] = True
    policies: list[RemotePolicy] = []
    starting = threading.Thread(target=lambda: policies.append(server.client()), daemon=True)
    starting.start()
    time.sleep(0.05)
    assert not policies
    with server:
        server.bell.ring()
        starting.join(30)
        (policy,) = policies
        assert all((value == 0).all() for value in policy.core_state(np.arange(ENVS)).values())


def test_the_end_of_the_run_ends_a_clients_wait() -> None:
    server, errors = Server(), []
    policy = server.client()

    def ask() -> None:
        try:
            policy.act(np.arange(ENVS), row(make_inputs(SPEC, 1, ENVS), 0))
        except Stopped as stopped:
            errors.append(stopped)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    server.ended.set()
    server.bells[0].ring()
    asking.join(30)
    assert len(errors) == 1


def test_there_is_no_exact_state() -> None:
    policy = Server().client()
    with pytest.raises(RuntimeError, match="server has no exact state"):
        policy.state()
    with pytest.raises(RuntimeError, match="server has no exact state"):
        policy.load_state({})

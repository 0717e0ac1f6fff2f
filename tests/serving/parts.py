"""What the tests of serving share: an agent whose every action tells what it remembers, and a server in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from offbeat.serving.listening import Listener, tcp_listener, unix_listener
from offbeat.serving.policy import ServedPolicy
from offbeat.serving.server import Server
from offbeat.types import UNROLL, ActionSpec, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs

TOKEN = "a token that nobody guesses"
CHOICES = 1009
SPEC = EnvSpec(
    "remembering",
    {"place": ArraySpec((2,), "float32"), "picture": ArraySpec((1, 3, 3), "uint8")},
    ActionSpec("discrete", CHOICES),
    frame_stack=3,
    stacked=("picture",),
)


class Remembers:
    """Adds up, modulo a prime, all that it has seen of an episode, frame stacks, last actions and rewards included."""

    spec, config, discount, wants_last, items = SPEC, None, 0.99, True, UNROLL

    def __init__(self) -> None:
        self.network: nn.Module = nn.ParameterDict({"one": nn.Parameter(torch.ones(1))})
        self.batches: list[int] = []

    def initial_state(self, batch: int) -> CoreState:
        return {"sum": torch.zeros(batch, dtype=torch.float64)}

    def row_extras(self) -> dict[str, ArraySpec]:
        return {}

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        assert inputs.last_action is not None and inputs.last_reward is not None
        first, picture = inputs.first[0], inputs.observation["picture"][0].double()
        self.batches.append(len(first))
        total = torch.where(first, 0.0, state["sum"])
        weights = torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64)
        total = total * 2 + (picture.sum((-1, -2)) * weights).sum(-1) + inputs.observation["place"][0].double().sum(-1)
        total = (total + 11 * inputs.last_action[0] + 13 * inputs.last_reward[0].double()) % CHOICES
        return ActOutput(total.round().long() % CHOICES, {}, {"sum": total})

    def policy_name(self, greedy: bool) -> str:
        return "greedy"

    def loss(self, batch: Any, progress: float) -> Any:
        raise NotImplementedError


def observed(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """What an environment of ``SPEC`` may show."""
    return {
        "place": generator.integers(-9, 9, 2).astype(np.float32),
        "picture": generator.integers(0, 256, (1, 3, 3)).astype(np.uint8),
    }


@contextlib.contextmanager
def serving(listeners: list[Listener], **options: Any) -> Iterator[Server]:
    """A server of ``Remembers``, or of ``policy``, that runs meanwhile in a thread; what it raises is raised here."""
    policy = options.pop("policy", None) or ServedPolicy(
        Remembers(), slots=options.pop("slots", 3), told={"agent": "adds up"}
    )
    server = Server(policy, listeners, **options)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def at(path: Path) -> list[Listener]:
    """One Unix socket."""
    return [unix_listener(path)]


def by_tcp() -> tuple[list[Listener], tuple[str, int]]:
    """One TCP socket of this machine alone, and its address."""
    listener = tcp_listener("127.0.0.1:0")
    return [listener], listener.socket.getsockname()[:2]


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once it holds; fail where that takes too long."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it has never become true")

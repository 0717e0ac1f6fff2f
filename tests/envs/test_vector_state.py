"""Attributes as arrays and back: against copies of the whole object, and what is refused."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from offbeat.envs.base import EnvConfig, StateUnsupported
from offbeat.envs.registry import check_exact, make_env
from offbeat.envs.vector_state import packed, unpack


class Walk(VectorEnv[Any, Any, Any]):
    """Walkers on a line, with attributes of every kind that can be kept."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-99, 99, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.place, self.over = np.zeros(num_envs), np.zeros(num_envs, bool)
        self.alias = self.place[:1]
        self.count, self.share, self.name, self.nothing, self.one = 0, 0.1, "walk", None, np.float32(1)
        self.own = np.random.Generator(np.random.PCG64(0))
        self.parts: dict[str, Any] = {"far": [0, np.zeros(2)], "pair": (1.5, None), "kind": AutoresetMode.NEXT_STEP}
        self.history: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place[:] = self.np_random.normal(size=self.num_envs)
        self.over[:] = False
        return self.shown(), {}

    def shown(self) -> np.ndarray:
        return np.stack([self.place, np.full(self.num_envs, self.count + self.parts["far"][0])], -1).astype(np.float32)

    def step(self, actions: Any) -> Any:
        self.count += 1
        self.share *= 0.99
        self.history = [*self.history[-4:], int(actions[0])]
        self.parts["far"][0] = sum(self.history)
        self.place += np.where(actions == 1, 1, -1) * self.share + 0.1 * self.own.normal(size=self.num_envs)
        self.place[self.over] = self.np_random.normal(size=int(self.over.sum()))
        ended = (np.abs(self.place) > 2) & ~self.over
        self.over = ended.copy()
        return self.shown(), self.alias.repeat(self.num_envs), ended, np.zeros(self.num_envs, bool), {}


def test_state_is_that_of_a_copy_of_the_object() -> None:
    random = np.random.default_rng(1)
    env = Walk(4)
    env.reset(seed=5)
    for _ in range(20):
        env.step(random.integers(2, size=4))
    saved, twin, other = packed(env, "walk"), copy.deepcopy(env), Walk(4)
    twin.alias = twin.place[:1]
    other.reset(seed=9)
    other.step(np.zeros(4, int))
    unpack(other, {name: value.copy() for name, value in saved.items()})
    assert other.alias.base is other.place, "arrays are written in place"
    for _ in range(50):
        action = random.integers(2, size=4)
        for one, two in zip(twin.step(action)[:4], other.step(action)[:4], strict=True):
            np.testing.assert_array_equal(one, two)
        env.step(1 - action)
    assert all(value.dtype != object for value in saved.values())
    again = Walk(4)
    unpack(again, saved)
    assert (again.count, again.name, again.nothing, again.parts["pair"]) == (20, "walk", None, (1.5, None))
    assert type(again.one) is np.float32


def test_vector_environments_of_users_can_be_exact() -> None:
    check_exact(EnvConfig(id="mine"), lambda config, num_envs, **_: Walk(num_envs))


class Shared(Walk):
    """Its generator is of the class."""

    drawn = np.random.default_rng()

    def step(self, actions: Any) -> Any:
        self.place += self.drawn.normal()
        return super().step(actions)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("helper", Walk(1), "its helper is of Walk, kept are arrays"),
        ("held", {"deep": [0, {1, 2}]}, r"its held\['deep'\]\[1\] is of set"),
        ("own", np.random.Generator(np.random.MT19937(0)), "its own is of Generator"),
        ("names", np.array(["a", None], object), "its names is of ndarray"),
        ("keyed", {(0, 1): 2}, "its keyed is of dict"),
    ],
)
def test_what_cannot_be_kept_is_named(name: str, value: Any, why: str) -> None:
    def make(config: EnvConfig, num_envs: int, **_: Any) -> Any:
        env = Walk(num_envs)
        setattr(env, name, value)
        return env

    with pytest.raises(StateUnsupported, match=f"mine is a vector environment that cannot be saved: {why}"):
        check_exact(EnvConfig(id="mine"), make)


def test_what_is_drawn_elsewhere_shows() -> None:
    with pytest.raises(
        StateUnsupported, match=r"mine cannot be saved exactly: .* the same .*; keep all that changes in"
    ):
        check_exact(EnvConfig(id="mine"), lambda config, num_envs, **_: Shared(num_envs))


def test_a_state_goes_on_in_the_rows() -> None:
    """The rows of the one that was saved, and of the one that was loaded."""
    one, two = (make_env(EnvConfig(id="mine"), 3, factory=lambda config, num_envs, **_: Walk(num_envs)) for _ in "ab")
    one.reset(3)
    one.recv()
    for _ in range(40):
        one.send(np.ones(3, np.int64))
        ended = ~one.recv().valid
        if ended.any():
            break
    two.load_state(one.state())
    for envs in (one, two):
        envs.send(np.ones(3, np.int64))
    first, again = one.recv(), two.recv()
    np.testing.assert_array_equal(first.first, ended)
    np.testing.assert_array_equal(again.first, ended)
    np.testing.assert_array_equal(again.observation["observation"], first.observation["observation"])

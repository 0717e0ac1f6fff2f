"""Environments that do not keep to Gymnasium's interface are told so in one line."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.gymnasium import check_replayable
from offbeat.envs.manners import Batches
from offbeat.envs.registry import make_env


class Plain(gymnasium.Env[Any, Any]):
    """Keeps to it."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), 1.0, False, False, {}


class Sized(Plain):
    def __init__(self, size: int, *, speed: float) -> None:
        self.size = size


class OldReset(Plain):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32)


class NoSeed(Plain):
    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32), {}


class Two:
    """A vector environment of two copies, as far as that is asked for."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)

    def reset(self, **given: Any) -> Any:
        return self.outcomes.pop(0)

    def step(self, actions: Any) -> Any:
        return self.outcomes.pop(0)


class OwnTypeError(Plain):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise TypeError("my seed is broken")


def gives(*outcome: Any) -> type[Plain]:
    """Whose step gives that."""

    class Given(Plain):
        def step(self, action: Any) -> Any:
            return outcome

    return Given


ZEROS = np.zeros(2, np.float32)
CASES: list[tuple[Any, str]] = [
    (OldReset, r"reset\(\) must return \(observation, info\).*it returned an array \[2\] of float32"),
    (NoSeed, r"reset\(\) takes no seed; write def reset\(self, \*, seed=None, options=None\)"),
    (gives(ZEROS, 1.0, False, {}), r"step\(\) must return \(observation, reward, terminated.*a tuple of 4"),
    (gives(ZEROS, np.array([1.0]), False, False, {}), r"the reward as a number; it returned an array \[1\] of float64"),
    (gives(ZEROS, None, False, False, {}), "the reward as a number; it returned NoneType None"),
    (gives(ZEROS, "1", False, False, {}), "the reward as a number; it returned str '1'"),
    (gives(ZEROS, 1.0, np.array([False, True]), False, {}), r"terminated as True or False; it returned an array \[2\]"),
    (gives(ZEROS, 1.0, False, "no", {}), "truncated as True or False; it returned str 'no'"),
    (gives(np.zeros(3), 1.0, False, False, {}), r"observation 'observation' must belong to .* but its shape is \[3\]"),
]


@pytest.mark.parametrize(("made", "says"), CASES)
def test_what_it_does_otherwise_is_said(made: Any, says: str) -> None:
    """The first reset is where it is made."""

    def play() -> None:
        envs = make_env(EnvConfig(id="mine"), 2, factory=made)
        envs.reset(0)
        envs.recv()
        envs.send(np.array([0, 1]))

    with pytest.raises(Misbehaved, match=f"mine: .*{says}"):
        play()


TAKEN = [(ZEROS, np.float32(2), np.bool_(True), False), (ZEROS, 2, 1, 0), ([0, 0], np.array(2), True, False)]


@pytest.mark.parametrize("outcome", [(*outcome, {}) for outcome in TAKEN])
def test_what_can_only_mean_one_thing_is_taken(outcome: Any) -> None:
    envs = make_env(EnvConfig(id="mine"), 1, factory=gives(*outcome))
    envs.reset(0)
    envs.recv()
    envs.send(np.array([0]))
    rows = envs.recv()
    assert (rows.raw_reward[0], rows.terminated[0], rows.truncated[0]) == (2.0, True, False)


class MovesInVector(gymnasium.vector.SyncVectorEnv):
    """Declares more actions from its second reset on."""

    def reset(self, **given: Any) -> Any:
        outcome = super().reset(**given)
        self.single_action_space = spaces.Discrete(2 + getattr(self, "again", 0))
        self.again = 1
        return outcome


def test_vectors_whose_spaces_change_are_refused_at_their_reset() -> None:
    envs = make_env(EnvConfig(id="mine"), 2, factory=lambda config, count, **_: MovesInVector([Plain] * count))
    with pytest.raises(Misbehaved, match=r"mine: its single_action_space changes, Discrete\(2\) .* Discrete\(3\)"):
        envs.reset(0)


def test_bounds_that_are_no_numbers_are_equal_to_themselves() -> None:
    """In a new object they equal nothing."""

    class Odd(Plain):
        observation_space = spaces.Box(-1, 1, (2,))
        observation_space.low[:] = np.nan

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.observation_space = copy.deepcopy(Odd.observation_space)
            return super().reset(seed=seed)

    make_env(EnvConfig(id="mine"), 2, factory=Odd).reset(0)


def test_its_own_type_errors_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="my seed is broken"):
        make_env(EnvConfig(id="mine"), 1, factory=OwnTypeError).reset(0)


def test_a_factory_that_gives_the_same_environment_twice_is_refused() -> None:
    shared = Plain()
    for factory in (lambda: shared, lambda: gymnasium.wrappers.TimeLimit(shared, 5)):
        with pytest.raises(Misbehaved, match="gave the same environment twice; it must make a new one at each call"):
            make_env(EnvConfig(id="mine"), 2, factory=factory)
    envs = [make_env(EnvConfig(id="mine"), 3, factory=Plain) for _ in range(3)]
    assert all(one.num_envs == 3 for one in envs)


def test_a_class_that_needs_arguments_is_told_how() -> None:
    with pytest.raises(Misbehaved, match=r"class that needs size, speed; hand over functools\.partial"):
        make_env(EnvConfig(id="mine"), 1, factory=Sized)
    assert make_env(EnvConfig(id="mine"), 2, factory=partial(Sized, 3, speed=1.0)).num_envs == 2


def test_rewards_that_are_no_number_are_replayed_all_the_same() -> None:
    check_replayable(EnvConfig(id="mine"), gives(ZEROS, float("nan"), False, False, {}))


TWO, FALSE = np.zeros(2), np.zeros(2, bool)


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        ((0, TWO, FALSE, [[0], [1, 2]], {}), r"truncated as an array \[2\], True or False for .*=2; it returned list "),
        ((0, 1.0, FALSE, FALSE, {}), r"reward as an array \[2\], a number for .*=2; it returned float 1.0"),
        ((0, TWO, np.zeros(3, bool), FALSE, {}), r"terminated as an array \[2\], .* returned an array \[3\] of bool"),
        ([0, TWO, FALSE, FALSE, {}], r"must return \(observations, reward, .*; it returned list"),
    ],
)
def test_steps_of_copies_have_a_value_for_each_at_any_time(outcome: Any, why: str) -> None:
    good = (0, TWO, FALSE, FALSE, {})
    with pytest.raises(Misbehaved, match=why):
        Batches(Two(outcome), 2, "mine").step(0)
    several = Batches(Two(good, good, outcome), 2, "mine")
    for _ in range(2):
        assert several.step(0)[1:] == (*good[1:4], {})
    with pytest.raises(Misbehaved, match=why):
        several.step(0)


def test_types_are_looked_at_in_the_first_step_and_resets_each_time() -> None:
    texts = (0, np.array(["a", "b"]), FALSE, FALSE, {})
    with pytest.raises(Misbehaved, match=r"mine: .*reward as an array \[2\], .* returned an array \[2\] of <U1"):
        Batches(Two(texts), 2, "mine").step(0)
    several = Batches(Two((0, {}), (0, [])), 2, "mine")
    assert several.reset(seed=1) == (0, {})
    with pytest.raises(Misbehaved, match=r"reset\(\) must return \(observations, info\), .* a tuple of 2"):
        several.reset(seed=1)

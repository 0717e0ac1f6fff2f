"""Observations are handed on as they are where nobody writes over them, and copied where somebody does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from offbeat.envs.base import Misbehaved
from offbeat.envs.spaces import flatten_space
from offbeat.envs.views import LOOKS, Views

SPACE = spaces.Box(0, 255, (2, 6, 6), np.uint8)
PLANE = spaces.Box(0, 255, (6, 6), np.uint8)


def frame(number: int, space: spaces.Box = SPACE, dtype: Any = np.uint8) -> np.ndarray:
    return np.full((3, *space.shape), number, dtype)


class Fresh:
    def give(self, number: int) -> np.ndarray:
        return frame(number)


class Same:
    """One array, that no attribute shows."""

    def __init__(self) -> None:
        array = frame(0)
        self.write = lambda number: np.copyto(array, number) or array

    def give(self, number: int) -> np.ndarray:
        return self.write(number)


class Ring:
    """Four arrays in turn."""

    def __init__(self) -> None:
        self.ring = {"frames": np.zeros((4, 3, *SPACE.shape), np.uint8)}["frames"]

    def give(self, number: int) -> np.ndarray:
        self.ring[number % 4] = number
        return self.ring[number % 4]


class Held(Fresh):
    """It shows its state, and changes it."""

    def __init__(self) -> None:
        self.parts = [frame(0)]

    def give(self, number: int) -> np.ndarray:
        self.parts[0][:] = number
        return self.parts[0]


class Wrapper:
    def __init__(self, env: Any) -> None:
        self.env = env

    def give(self, number: int) -> np.ndarray:
        given: np.ndarray = self.env.give(number)
        return given


@pytest.mark.parametrize(
    ("env", "copied"),
    [
        (Fresh(), False),
        (Same(), True),
        (Ring(), True),
        (Held(), True),
        (Wrapper(Ring()), True),
        (Wrapper(Fresh()), False),
    ],
)
def test_what_is_handed_on_stays(env: Any, copied: bool) -> None:
    views, leaves = Views(env), flatten_space(SPACE, "mine", "first")
    kept = []
    for number in range(12):
        given = env.give(number)
        seen = views.read(leaves, given)["observation"]
        kept.append(seen)
        looked = number < LOOKS
        assert np.shares_memory(seen, given) == (not copied and not looked)
    for number, seen in enumerate(kept):
        assert (seen == number).all()


def test_what_begins_to_be_written_over_later_is_copied_from_then_on() -> None:
    views, leaves, array = Views(), flatten_space(SPACE, "mine", "first"), frame(1)
    for number in range(LOOKS + 1):
        views.read(leaves, frame(number))
    assert views.read(leaves, array)["observation"] is array
    for _ in range(2):
        assert not np.shares_memory(views.read(leaves, array)["observation"], array)


@pytest.mark.parametrize(
    ("space", "given", "shared"),
    [
        (SPACE, frame(1), True),
        (PLANE, frame(1, PLANE), True),
        (spaces.Box(0, 255, (6, 6, 2), np.uint8), np.ones((3, 6, 6, 2), np.uint8), False),
        (spaces.Box(-1, 1, (4,), np.float64), np.ones((3, 4)), False),
        (spaces.Box(-1, 1, (4,), np.float32), np.ones((3, 4), np.float32), True),
        (spaces.Box(-1, 1, (4,), np.float32), np.ones((4, 3), np.float32).T, False),
        (spaces.Discrete(3), np.ones(3, np.int64), False),
    ],
)
def test_what_needs_no_conversion_is_no_copy(space: Any, given: np.ndarray, shared: bool) -> None:
    """And equals what a copy is."""
    leaves, views = flatten_space(space, "mine"), Views()
    for _ in range(LOOKS):
        views.read(leaves, np.array(given))
    seen, leaf = views.read(leaves, given)["observation"], leaves["observation"]
    assert np.shares_memory(seen, given) == shared
    assert seen.shape == (3, *leaf.spec.shape) and seen.dtype == leaf.spec.dtype
    np.testing.assert_array_equal(seen, leaf.encode(given, 1))
    given.flags.writeable = False
    assert not np.shares_memory(views.read(leaves, given)["observation"], given), "nobody could write to it"


def test_what_does_not_belong_to_the_space_is_refused_as_ever() -> None:
    with pytest.raises(Misbehaved, match=r"mine: observation 'observation' must belong to"):
        Views().read(flatten_space(SPACE, "mine", "first"), frame(1)[:, :1])


@pytest.mark.parametrize("rows", [2, 6])
def test_so_many_rows_are_asked_for_as_there_are_environments(rows: int) -> None:
    leaves, given = flatten_space(SPACE, "mine", "first"), np.resize(frame(1), (rows, *SPACE.shape))
    assert len(Views().read(leaves, given)["observation"]) == rows, "a batch as it comes"
    Views(count=rows).read(leaves, given)
    with pytest.raises(Misbehaved, match=rf"must have the shape \[3, .* num_envs=3; it has \[{rows}, "):
        Views(count=3).read(leaves, given)

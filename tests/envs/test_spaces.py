"""Spaces as specs; and that what does not belong to its space is named instead of stored as something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from offbeat.envs.base import Misbehaved
from offbeat.envs.spaces import action_decoder, flatten, flatten_space
from offbeat.types import OBSERVATION


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64, bool, np.float16, np.float64]
)
def test_boxes_of_every_dtype_are_float32(dtype: Any) -> None:
    high = 1 if dtype is bool else 4
    leaves = flatten_space(spaces.Box(0, high, (2,), dtype), "mine")
    spec = leaves[OBSERVATION].spec
    assert (spec.dtype, spec.shape, spec.low, spec.high) == ("float32", (2,), 0.0, float(high))
    seen = flatten(leaves, np.array([0, high], dtype))[OBSERVATION]
    assert seen.dtype == np.float32 and seen.tolist() == [0.0, high]


PICTURES = [  # shape, channels, stored shape
    ((64, 48, 3), "auto", (3, 64, 48)), ((3, 64, 48), "auto", (3, 64, 48)), ((84, 84, 12), "auto", (12, 84, 84)),
    ((6, 84, 84), "auto", (6, 84, 84)), ((10, 10, 2), "auto", (2, 10, 10)), ((9, 7, 9), "last", (9, 9, 7)),
    ((9, 7, 9), "first", (9, 7, 9)), ((64, 48, 3), "first", (64, 48, 3)), ((1, 5, 2), "auto", (1, 5, 2)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("shape", "channels", "stored"), PICTURES)
def test_pictures_have_their_channels_in_front(shape: Any, channels: str, stored: Any, dtype: Any) -> None:
    (leaf,) = flatten_space(spaces.Box(0, 200, shape, dtype), "mine", channels).values()
    assert leaf.spec.shape == stored
    given = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    expected = given if stored == shape else np.moveaxis(given, 2, 0)
    np.testing.assert_array_equal(leaf.read(given), expected)
    assert leaf.read(given).flags.c_contiguous
    many = np.stack([given, given[::-1, ::-1, ::-1] * 0])
    np.testing.assert_array_equal(leaf.encode(leaf.checked(many, 1), 1)[0], expected)


def test_pictures_that_say_nothing_about_their_channels_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mine: observation 'view' has the shape \[8, 8, 8\].*env\.channels = 'first'"
    ):
        flatten_space(spaces.Dict({"view": spaces.Box(0, 255, (8, 8, 8), np.uint8)}), "mine")


def test_keys_that_would_fall_together_are_refused() -> None:
    space = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)}), "a.b": spaces.Discrete(3)})
    with pytest.raises(ValueError, match=r"would be called 'a\.b': \('a', 'b'\) and \('a\.b',\)"):
        flatten_space(space, "mine")


WRONG: list[tuple[spaces.Space[Any], Any, str]] = [
    (spaces.Box(0, 255, (2,), np.uint8), np.array([0.5, 1.0]), "its dtype is float64"),
    (spaces.Box(0, 255, (2,), np.uint8), np.array([0, 300]), "300 is outside"),
    (spaces.Box(0, 255, (2,), np.uint8), np.array([-1, 3]), "-1 is outside"),
    (spaces.Box(0, 255, (4, 5, 3), np.uint8), np.zeros((3, 4, 5), np.uint8), r"its shape is \[3, 4, 5\]"),
    (spaces.Box(-1, 1, (3,)), np.zeros(4), r"its shape is \[4\]"),
    (spaces.Box(-1, 1, (1,)), 0.5, r"its shape is \[\]"),
    (spaces.Box(-1, 1, (1,)), np.array(["x"]), "its dtype is <U1"),
    (spaces.Box(-1, 1, (1,)), None, r"its shape is \[\]"),
    (spaces.Discrete(3), 3, "3 is outside"),
    (spaces.Discrete(3, start=-1), 2, "2 is outside"),
    (spaces.Discrete(3), 1.0, "its dtype is float64"),
    (spaces.Discrete(3), np.array([1]), r"its shape is \[1\]"),
    (spaces.MultiDiscrete([2, 3]), np.array([0, 3]), "3 is outside"),
    (spaces.MultiDiscrete([2, 3]), np.array([2, 0]), "2 is outside"),
    (spaces.MultiBinary(2), np.array([0, 2]), "2 is outside"),
]


@pytest.mark.parametrize(("space", "value", "says"), WRONG)
def test_what_does_not_belong_to_its_space_is_named(space: spaces.Space[Any], value: Any, says: str) -> None:
    for whole, given, key in ((space, value, OBSERVATION), (spaces.Dict({"k": space}), {"k": value}, "k")):
        with pytest.raises(Misbehaved, match=f"mine: observation '{key}' must belong to .*, but {says}"):
            flatten(flatten_space(whole, "mine"), given)


def test_a_part_that_is_missing_is_named() -> None:
    leaves = flatten_space(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)}), "mine")
    for given in ({"a": 1}, np.zeros(2), None):
        with pytest.raises(Misbehaved, match=r"there is no '[ab]' in it"):
            flatten(leaves, given)


@pytest.mark.parametrize("space", [
    spaces.Box(0, 255, (6, 5, 3), np.uint8), spaces.Box(-1, 1, (3,)), spaces.Box(0, 4, (2,), np.int64),
    spaces.Discrete(5, start=-2), spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 7]]),
    spaces.MultiBinary((2, 2)),
])  # fmt: skip
def test_a_batch_is_encoded_as_its_members_are(space: spaces.Space[Any]) -> None:
    space.seed(0)
    (leaf,) = flatten_space(space, "mine").values()
    members = [space.sample() for _ in range(20)]
    many = leaf.encode(leaf.checked(np.stack([np.asarray(member) for member in members]), 1), 1)
    np.testing.assert_array_equal(many, np.stack([leaf.read(member) for member in members]))
    assert many.shape == (20, *leaf.spec.shape) and str(many.dtype) == leaf.spec.dtype


@pytest.mark.parametrize("space", [spaces.Discrete(4, start=-1), spaces.Box(-2, 3, (2,)), spaces.Box(0, 0, (1,))])
def test_decoded_actions_are_members_of_their_space(space: Any) -> None:
    decode = action_decoder(space)
    stored = (
        range(4) if isinstance(space, spaces.Discrete) else [np.full(space.shape, x, np.float32) for x in (-9, 0, 9)]
    )
    assert all(space.contains(decode(action)) for action in stored)


@pytest.mark.parametrize(("part", "says"), [
    (spaces.Text(4), "supported are Box"), (spaces.Discrete(5000), "at most 4096 values"),
    (spaces.MultiDiscrete([5000, 2]), "at most 4096 values"),
])  # fmt: skip
def test_a_part_that_is_not_supported_is_named_by_its_key(part: Any, says: str) -> None:
    space = spaces.Dict({"view": spaces.Box(0, 1, (2,)), "told": spaces.Tuple([spaces.Discrete(2), part])})
    with pytest.raises(ValueError, match=rf"^mine has the observation space .* at 'told\.1'; {says}"):
        flatten_space(space, "mine")
    with pytest.raises(ValueError, match=rf"^mine has the observation space [^']*; {says}"):
        flatten_space(part, "mine")

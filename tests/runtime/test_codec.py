"""What crosses a wire comes out as it went in, shares no memory with it, and is nothing but what may cross."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.layout import StreamBlock
from offbeat.runtime.codec import ALIGN, MAGIC, TRAVELS, decode, encode
from offbeat.runtime.ports import Asked, Point
from offbeat.runtime.services import Loaded
from offbeat.types import ActOutput, Inputs, Sequence, Transition, Unroll

RNG = np.random.default_rng(0)
DTYPES = ("bool", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64")


def same(one: Any, other: Any) -> None:
    """Equal in type, dtype, shape and every bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        one, other = (t.view(torch.int16) if t.dtype == torch.bfloat16 else t for t in (one, other))
        assert one.numpy().tobytes() == other.numpy().tobytes()
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    elif is_dataclass(one):
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


def random_tensor(*shape: int) -> torch.Tensor:
    """Numbers of a random dtype."""
    dtype = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)[RNG.integers(6)]
    return torch.from_numpy(RNG.integers(0, 2, shape)).to(dtype)


def inputs(last: bool) -> Inputs:
    """Of three rows and two columns."""
    seen = {"observation": random_tensor(3, 2, 4), "frame": torch.randint(0, 255, (3, 2, 1, 5, 5), dtype=torch.uint8)}
    more = (torch.zeros(3, 2, dtype=torch.int64), torch.rand(3, 2)) if last else (None, None)
    return Inputs(seen, torch.rand(3, 2) < 0.5, *more, epsilon=None if last else torch.rand(3, 2))


def unroll_fields() -> dict[str, Any]:
    """Those of an unroll, with an infinite and a missing number among them."""
    names = ("action", "terminated", "truncated", "param_version")
    own = {name: random_tensor(2, 2) for name in names} | {
        name: random_tensor(2) for name in ("stream", "row", "source")
    }
    reward = torch.tensor([[1.0, torch.inf], [torch.nan, -0.0]])
    return own | {
        "inputs": inputs(True), "valid": torch.rand(3, 2) < 0.5, "reward": reward, "discount": reward.clone(),
        "extras": {"behaviour_logits": random_tensor(2, 2, 3)}, "core_state": {"h": torch.rand(2, 7).bfloat16()},
        "weight": torch.rand(2), "replayed": None, "fresh": (3, 4),
    }  # fmt: skip


def messages() -> dict[str, Any]:
    """One of each kind."""
    item = {name: random_tensor(2) for name in ("action", "reward", "discount", "steps", "stream", "row", "source")}
    arrays = {name: RNG.integers(0, 2, (2, 3)).astype(name) for name in DTYPES}
    empty = {"none": np.zeros((0, 3), np.float32), "one": np.array(7), "fortran": np.asfortranarray(np.eye(3))}
    transition = Transition(
        inputs=inputs(False), next_inputs=inputs(False), extras={}, param_version=random_tensor(2), **item
    )
    return {
        "numbers": [None, True, False, 0, -1, 2**62, 1.5, float("inf"), "text", "", (1, (2.0, None)), [], (), {}],
        "arrays": arrays, "odd arrays": empty, "unroll": Unroll(**unroll_fields()), "transition": transition,
        "sequence": Sequence(**unroll_fields(), mask=torch.rand(2, 2) < 0.5, burn_in=1),
        "block": StreamBlock(np.arange(2), arrays, empty, np.zeros(0, np.int64), np.zeros(0, np.int64), {}),
        "answer": ActOutput(random_tensor(2), {"q": torch.rand(2)}, {"h": torch.rand(2, 3)}),
        "asked": Asked([3, 1], inputs(True), {}), "point": Point(5, 6, 7), "with a point": (torch.rand(4), Point(1)),
        "loaded": Loaded({"weights/a": torch.rand(3)}, {"updates": 4}, True),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(messages()))
def test_everything_comes_out_as_it_went_in(name: str) -> None:
    value = messages()[name]
    message = encode(value)
    assert type(message) is bytes
    same(decode(message), value)
    same(decode(encode(decode(message))), value)


def test_every_kind_that_travels_is_tried() -> None:
    assert {type(value).__name__ for value in messages().values()} >= set(TRAVELS) - {"Inputs"}


def test_random_trees_come_out_as_they_went_in() -> None:
    def tree(depth: int) -> Any:
        kind = RNG.integers(9 if depth else 6)
        if kind < 6:
            shape = tuple(RNG.integers(0, 4, RNG.integers(0, 4)))
            return [
                None, float(RNG.normal()), "é" * int(RNG.integers(4)), int(RNG.integers(9)), random_tensor(*shape),
                RNG.normal(size=shape).astype(DTYPES[RNG.integers(9)]),
            ][kind]  # fmt: skip
        items = [tree(depth - 1) for _ in range(RNG.integers(4))]
        return [items, tuple(items), {f"{i}/x": item for i, item in enumerate(items)}][kind - 6]

    for _ in range(300):
        value = tree(4)
        same(decode(encode(value)), value)


def test_what_comes_out_shares_no_memory_and_can_be_written_to() -> None:
    tensor, array = torch.rand(5, 3), np.arange(7.0)
    message = encode([tensor, array, tensor[:, 1], array[::2], torch.rand(2, requires_grad=True)])
    one, other, column, every, parameter = decode(message)
    assert column.tolist() == tensor[:, 1].tolist() and every.tolist() == array[::2].tolist()
    assert not parameter.requires_grad
    one += 1
    other += 1
    assert not torch.equal(one, tensor) and not np.array_equal(other, array)
    same(decode(message)[1], array)


def test_arrays_lie_aligned() -> None:
    message = encode(["odd", np.arange(3, dtype=np.uint8), np.full(4, 7.0)])
    assert np.full(4, 7.0).tobytes() == message[-32:] and (len(message) - 32) % ALIGN == 0


class Sneaky:
    """Would run code if anybody unpickled it."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1, Sneaky()]}, r"message\['a'\]\[1\] is a tests\.runtime\.test_codec\.Sneaky"),
        (np.array([Sneaky()], object), "dtype object"), (np.array(["a"]), "dtype <U1"), ({1: 2}, "the key 1"),
        (replace(messages()["answer"], extras={"x": object()}), r"message\.extras\['x'\] is a builtins\.object"),
        (torch.eye(2).to_sparse(), "dense"), (b"bytes", "builtins.bytes"), (type("Point", (), {})(), "Point"),
        (np.zeros(2, [("a", "i4")]), "dtype"), ({1, 2}, "builtins.set"),
    ],
)  # fmt: skip
def test_what_may_not_cross_is_refused_by_name(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode(value)


def headed(header: Any, arrays: bytes = b"") -> bytes:
    """A message with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + arrays


@pytest.mark.parametrize(
    "message",
    [
        b"", b"offbeat", pickle.dumps(Sneaky()), MAGIC + b"\xff" * 8, headed(b"{"), headed(b"\xff"), headed({}),
        headed([]), headed(["list"]), headed(["list", [], 1]), headed(["eval", {}]), headed([["dict"], {}]),
        headed(["Point", {"no": 1}]), headed(["Point", []]), headed(1, b"more"),
        headed(["array", "|O", [1]], bytes(64)), headed(["array", "<M8[s]", [1]], bytes(64)),
        headed(["array", "nonsense", [1]]), headed(["array", "<f4", [-1]]), headed(["array", "<f4", [1.5]], bytes(64)),
        headed(["array", "<f4", [10**9]], bytes(64)), headed(["array", "<f4", [2**40, 2**40]], bytes(64)),
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="codec: "):
        decode(message)


def test_a_torn_message_is_refused_wherever_it_was_torn() -> None:
    message = encode({"a": np.arange(5), "b": torch.rand(3), "c": "x"})
    for end in range(len(message)):
        with pytest.raises(ValueError, match="codec: "):
            decode(message[:end])


def test_random_damage_to_a_header_never_raises_anything_else() -> None:
    message = encode(messages()["unroll"])
    size = len(MAGIC) + 8 + int.from_bytes(message[len(MAGIC) : len(MAGIC) + 8], "little")
    for _ in range(2000):
        damaged = bytearray(message)
        damaged[RNG.integers(size)] = RNG.integers(256)
        with suppress(ValueError):
            decode(damaged)

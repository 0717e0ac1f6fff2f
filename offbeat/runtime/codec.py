"""What crosses a wire as bytes: blocks, batches, weights, feedback, requests and checkpoint parts. Nothing is pickled.

A message is MAGIC, the length of a header in 8 bytes (little-endian), the header as JSON, and the arrays one after
the other, each at a multiple of ALIGN bytes from the message's start. The header is the value itself, with arrays,
tensors, tuples and the dataclasses of ``TRAVELS`` written as lists whose first entry says what they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from offbeat.replay.layout import StreamBlock
from offbeat.runtime.ports import Asked, Point
from offbeat.runtime.services import Loaded
from offbeat.types import ActOutput, Inputs, Sequence, Transition, Unroll

MAGIC = b"offbeat1"
ALIGN = 64
"""Bytes."""
TRAVELS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (StreamBlock, Inputs, Unroll, Transition, Sequence, ActOutput, Asked, Point, Loaded)
}
"""Name -> dataclass or named tuple that may cross, field by field."""
KINDS = "biufc"
"""Kinds of NumPy dtypes that may: bool, integers, floats, complex numbers."""


def encode(value: Any) -> bytes:
    """``value`` as one message; what is allowed, ``pieces`` says."""
    return b"".join(pieces(value))


def pieces(value: Any) -> list[bytes | memoryview]:
    """``value`` as a message in pieces, one after the other; arrays of a processor are not copied.

    Allowed are None, bool, int, float, str, lists, tuples, dicts with names as keys, NumPy arrays of numbers, dense
    torch tensors (from any device), and what ``TRAVELS`` names. ValueError saying what and where for anything else.
    """
    arrays: list[np.ndarray] = []
    header = json.dumps(_write(value, "message", arrays)).encode()
    parts: list[bytes | memoryview] = [MAGIC, len(header).to_bytes(8, "little"), header]
    at = len(MAGIC) + 8 + len(header)
    for array in arrays:
        gap = -at % ALIGN
        parts += [bytes(gap), array.reshape(-1).view(np.uint8).data]
        at += gap + array.nbytes
    return parts


def decode(message: bytes | bytearray | memoryview) -> Any:
    """The value of a message. Its arrays and tensors share one piece of memory, nobody else's, and can be written to.

    ValueError for bytes that are no whole message, or name what may not cross.
    """
    data = bytearray(message)
    start = len(MAGIC) + 8
    if len(data) < start or data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"codec: expected a message that begins with {MAGIC!r}, got {bytes(data[:16])!r}")
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    if end > len(data):
        raise ValueError(f"codec: the header ends at byte {end}, but the message has {len(data)}")
    try:
        header = json.loads(data[start:end])
    except ValueError as error:
        raise ValueError(f"codec: the header cannot be read: {error}") from error
    reader = _Reader(data, end)
    value = reader.read(header)
    if reader.at != len(data):
        raise ValueError(f"codec: the arrays end at byte {reader.at}, but the message has {len(data)}")
    return value


def _write(value: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """``value`` as JSON can hold it; its arrays are put aside, in order."""
    match value:
        case None | bool() | int() | float() | str():
            return value.item() if isinstance(value, np.generic) else value
        case np.generic():
            return _write(value.item(), where, arrays)
        case np.ndarray():
            return _put(value, "array", where, arrays)
        case torch.Tensor():
            return _write_tensor(value, where, arrays)
        case list():
            return ["list", [_write(item, f"{where}[{i}]", arrays) for i, item in enumerate(value)]]
        case Mapping():
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise ValueError(f"codec: {where} has the key {wrong[0]!r}; allowed are names")
            return ["dict", {key: _write(item, f"{where}[{key!r}]", arrays) for key, item in value.items()}]
    kind = type(value)
    if TRAVELS.get(kind.__name__) is kind:
        names = [field.name for field in fields(value)] if is_dataclass(value) else value._fields
        inner = {name: _write(getattr(value, name), f"{where}.{name}", arrays) for name in names}
        return [kind.__name__, inner]
    if kind is tuple:
        return ["tuple", [_write(item, f"{where}[{i}]", arrays) for i, item in enumerate(value)]]
    raise ValueError(
        f"codec: {where} is a {kind.__module__}.{kind.__qualname__}, which cannot cross; allowed are numbers, strings, "
        f"lists, tuples, dicts, arrays, tensors, {', '.join(TRAVELS)}"
    )


def _write_tensor(value: torch.Tensor, where: str, arrays: list[np.ndarray]) -> Any:
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError(f"codec: {where} is a tensor of layout {value.layout}; allowed are dense ones")
    plain = value.detach().cpu()
    if plain.dtype == torch.bfloat16:  # NumPy has no such numbers
        return _put(plain.contiguous().view(torch.int16).numpy(), "bfloat16", where, arrays)
    return _put(plain.numpy(), "tensor", where, arrays)


def _put(array: np.ndarray, kind: str, where: str, arrays: list[np.ndarray]) -> Any:
    if array.dtype.kind not in KINDS:
        raise ValueError(f"codec: {where} is an array of dtype {array.dtype}; allowed are numbers and bool")
    arrays.append(np.ascontiguousarray(array).reshape(array.shape))
    return [kind, array.dtype.str, list(array.shape)]


class _Reader:
    """Takes a header apart and cuts its arrays from the message."""

    def __init__(self, data: bytearray, at: int) -> None:
        self._data, self.at = data, at

    def read(self, header: Any) -> Any:
        """The value that ``header`` stands for. Arrays come in the order in which they were written."""
        if not isinstance(header, list):
            if isinstance(header, dict):
                raise ValueError("codec: an object in the header that no kind stands before")
            return header
        match header:
            case ["array" | "tensor" | "bfloat16" as kind, str() as dtype, list() as shape]:
                return self._array(kind, dtype, shape)
            case ["list", list() as items]:
                return [self.read(item) for item in items]
            case ["tuple", list() as items]:
                return tuple(self.read(item) for item in items)
            case ["dict", dict() as items]:
                return {name: self.read(item) for name, item in items.items()}
            case [str() as name, dict() as items] if name in TRAVELS:
                try:
                    return TRAVELS[name](**{field: self.read(item) for field, item in items.items()})
                except TypeError as error:
                    raise ValueError(f"codec: no {name}: {error}") from error
        raise ValueError(f"codec: {header[:1]!s} stands for nothing that may cross")

    def _array(self, kind: str, dtype: str, shape: list[Any]) -> Any:
        try:
            known = np.dtype(dtype)
        except TypeError as error:
            raise ValueError(f"codec: {dtype!r} is no dtype") from error
        if known.kind not in KINDS or not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"codec: an array of dtype {dtype} and shape {shape} cannot cross")
        self.at += -self.at % ALIGN
        count = math.prod(shape)
        end = self.at + count * known.itemsize
        if end > len(self._data):
            raise ValueError(f"codec: an array ends at byte {end}, but the message has {len(self._data)}")
        array = np.frombuffer(self._data, known, count, self.at if count else 0).reshape(shape)
        self.at = end
        if kind == "array":
            return array
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if kind == "bfloat16" else tensor

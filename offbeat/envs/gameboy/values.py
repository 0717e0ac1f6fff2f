"""Numbers in the memory of a game, written as stable-retro's ``data.json`` writes them: an address and a type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

KINDS = re.compile(r"[<>|][uid][1-8]")
"""``>`` big-endian, ``<`` and ``|`` little-endian; ``u`` unsigned, ``i`` signed, ``d`` two decimal digits a byte; how
many bytes. Source: memory.cpp of gym-retro, where ``|`` reads little-endian."""


class Value(NamedTuple):
    """One number in memory."""

    address: int
    type: str
    """Such as ``>u2``, see ``KINDS``."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.type[2])

    def decode(self, data: bytes) -> int:
        """The number of its bytes, in the order of their addresses."""
        ordered = data if self.type[0] == ">" else data[::-1]
        if self.type[1] == "d":
            number = 0
            for byte in ordered:
                number = 100 * number + 10 * (byte >> 4) + (byte & 15)
            return number
        return int.from_bytes(ordered, "big", signed=self.type[1] == "i")


class Watched:
    """Several named numbers that are read together.

    ``places`` are (address, bytes) for an emulator, ``decode`` makes numbers of what it gives for them.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = dict(values)
        self.places = tuple((value.address, value.size) for value in values.values())

    def decode(self, data: Sequence[bytes]) -> dict[str, int]:
        """Name -> number."""
        return {name: value.decode(part) for (name, value), part in zip(self.values.items(), data, strict=True)}

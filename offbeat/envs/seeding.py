"""Random numbers of environments: distinct seeds for each, and generators that can be kept as plain arrays."""

from __future__ import annotations

import numpy as np

PACKED_WORDS = 6
"""uint64 words of one packed PCG64 generator."""
_MASK64 = (1 << 64) - 1


def env_seeds(seed: int, num_envs: int) -> np.ndarray:
    """``num_envs`` well separated seeds [num_envs] int64, each in [0, 2^31 - 1), drawn from one seed."""
    words = np.random.SeedSequence(seed).generate_state(num_envs, np.uint32).astype(np.int64)
    return np.asarray(words % (2**31 - 1), np.int64)


def env_generators(seed: int, num_envs: int) -> list[np.random.Generator]:
    """One independent PCG64 generator for each environment."""
    return [np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence(seed).spawn(num_envs)]


def pack_generator(generator: np.random.Generator) -> np.ndarray:
    """The whole state of a PCG64 generator as uint64 [6]. ValueError for any other bit generator."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"only PCG64 generators can be packed, got {state['bit_generator']}")
    words = []
    for name in ("state", "inc"):
        words += [state["state"][name] >> 64, state["state"][name] & _MASK64]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def unpack_generator(words: np.ndarray) -> np.random.Generator:
    """The generator that ``pack_generator`` packed."""
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)

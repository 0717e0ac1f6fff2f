"""A small recurrent network in place of an agent's, for samplers that need features; and what it gives, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.types import CoreState, Inputs
from tests.replay.twin import TwinReader


class SmallEncode:
    """Features [T, B, 3] of the observation, the last reward and (with ``core``) the rows before; ``weights`` moves."""

    components: tuple[int, ...] = (3,)

    def __init__(self, core: bool, size: int = 24) -> None:
        self.core, self.weights, self.rows, self.calls = core, 0, 0, 0
        self.matrix = torch.randn(size, 3, generator=torch.Generator().manual_seed(1)) / 100
        self.published = True

    def version(self) -> int:
        """The newest weights."""
        return self.weights if self.published else -1

    def features(self, kind: str, inputs: Inputs, state: CoreState) -> tuple[Tensor, int]:
        """See ``Encode``."""
        assert kind in ("policy", "torso") and inputs.last_reward is not None
        (seen,) = inputs.observation.values()
        x = seen.flatten(2).float() @ self.matrix * (1 + self.weights) + inputs.last_reward[..., None]
        self.rows += x.shape[0] * x.shape[1]
        self.calls += 1
        if self.core:
            h, out = state["h"].sum(-1, keepdim=True), []
            for t in range(len(x)):
                h = h * (~inputs.first[t])[:, None] * 0.5 + x[t]
                out.append(h)
            x = torch.stack(out)
        return x, self.weights

    def slowly(self, reader: TwinReader, s: int, t: int, length: int) -> np.ndarray:
        """Features [length, 3] of an unroll by the twin's rows."""
        out, h = [], np.zeros(3)
        before: Any = reader.row(s, t - 1)
        start = reader.core(s, t)
        for i in range(length):
            row: Any = reader.row(s, t + i)
            reward = 0.0 if row["age"] == 0 or before is None else float(before["reward"])
            flat = np.asarray(row["seen"]["observation"], np.float64).reshape(-1)
            x = flat @ self.matrix.double().numpy() * (1 + self.weights) + reward
            if self.core:
                if i == 0:
                    h = np.full(3, start["h"].sum() if start else 0.0)
                h = (0.0 if row["first"] else 0.5) * h + x
                x = h
            out.append(x)
            before = row
        return np.array(out)


def drawn_by(
    rng: np.random.Generator, reader: TwinReader, heads: list[int], m: int, length: int = 5
) -> list[tuple[int, int]]:
    """The candidates (stream, row) that a sampler which scores draws with ``rng``."""
    low = [-(-max(0, head - reader.layout.capacity) // length) for head in heads]
    names = [(s, j * length) for s, head in enumerate(heads) for j in range(low[s], head // length)]
    drawn: list[tuple[int, int]] = []
    while len(drawn) < m:
        some = [names[i] for i in rng.integers(len(names), size=2 * m)]
        drawn += [(s, t) for s, t in some if reader.unroll(s, t, length) is not None]
    return drawn[:m]

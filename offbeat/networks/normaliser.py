"""Observations by their running mean and variance, kept in the network: whoever has its weights sees the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.types import ArraySpec, Batch, Sequence, TensorDict, Unroll

EPSILON = 1e-8
"""Added to variances."""
MOST_ROWS = 1e7
"""Rows that the statistics remember at most: beyond them old ones are forgotten."""


class Normaliser(nn.Module):
    """``clip((x - mean) / sqrt(variance + 1e-8))`` of each number of the observations of floats.

    What is declared to lie within [0, 1] (one-hot numbers, bits) stays as it is, and so do bytes. Mean and variance are
    those of all rows that were trained on (Chan et al. 1979 adds a batch's to them), learnt in the learner: it is a
    ``LearnerState`` whose numbers are buffers of the network, so that they are published, saved and exported with it.

    Args:
        specs: key -> spec of what the network reads.
        clip: largest magnitude of what comes out, > 0.
    """

    exact = False
    rows: Tensor

    def __init__(self, specs: dict[str, ArraySpec], clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.keys = [key for key, spec in specs.items() if spec.dtype == "float32" and not _small(spec)]
        self.register_buffer("rows", torch.zeros(()))
        for index, key in enumerate(self.keys):
            self.register_buffer(f"mean_{index}", torch.zeros(specs[key].shape))
            self.register_buffer(f"variance_{index}", torch.ones(specs[key].shape))

    def forward(self, observation: TensorDict) -> TensorDict:
        """Observations, key -> [T, B, ...], with those of floats normalised."""
        changed = dict(observation)
        for index, key in enumerate(self.keys):
            mean, variance = self._of(index)
            scaled = (observation[key] - mean) * (variance + EPSILON).rsqrt()
            changed[key] = scaled.clamp(-self.clip, self.clip)
        return changed

    @torch.no_grad()
    def trained(self, batch: Batch, updates: int) -> None:
        """Take in the rows that ``batch`` was trained on."""
        before, count = self.rows.double(), torch.zeros_like(self.rows, dtype=torch.float64)
        for index, key in enumerate(self.keys):
            x = trained_rows(batch, key).double()
            if not len(x):
                return
            count = torch.full_like(before, len(x))
            mean, variance = (statistic.double() for statistic in self._of(index))
            share, off = count / (before + count), x.mean(0) - mean
            variance = variance * (1 - share) + x.var(0, correction=0) * share + off.square() * share * (1 - share)
            for statistic, value in zip(self._of(index), (mean + off * share, variance), strict=True):
                statistic.copy_(value)
        self.rows.copy_((before + count).clamp(max=MOST_ROWS))

    def state(self) -> TensorDict:
        """Nothing beside the network."""
        return {}

    def load_state(self, state: TensorDict) -> None:
        """The network has it."""

    def _of(self, index: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"mean_{index}"), self.get_buffer(f"variance_{index}")


def trained_rows(batch: Batch, key: str) -> Tensor:
    """What ``batch`` holds of an observation in the rows that it trains on, [n, ...]."""
    x = batch.inputs.observation[key]
    if isinstance(batch, Sequence):
        return x[: len(batch.mask)][batch.mask]
    return x[:-1][batch.valid[:-1]] if isinstance(batch, Unroll) else x.flatten(0, 1)


def _small(spec: ArraySpec) -> bool:
    return spec.low is not None and spec.high is not None and spec.low >= 0 and spec.high <= 1

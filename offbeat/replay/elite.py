"""Elite replay: of more unrolls than are needed, those whose features have moved least since they were acted on.

Source: github.com/parralplex/elite_buffer_vtrace (elite sampling). Nothing is copied: candidates lie in the streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offbeat.replay.features import Features
from offbeat.replay.sampler import Place, Sampler
from offbeat.replay.scoring import Scored, ScoredConfig
from offbeat.types import ArrayDict

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(ScoredConfig):
    """Unrolls that are nearest to what the policy of now would have made of them."""

    kind: Literal["elite"] = "elite"
    """Which sampler."""


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work, or rows lack what is compared."""
    features = Features(place, config.features, config.distance, config.p, config.score_rows)
    return Scored(config, place, Drift(features))


class Drift:
    """How far features under the weights of now are from those that were stored: a measure is the distance itself."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def begin(self) -> None:
        """Nothing has to be known of a draw."""

    def measure(self, stream: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """See ``Ruler``."""
        now, stored, ok, version = self._features.of(stream, row)
        return self._features.distances(now, stored)[:, None].astype(np.float32), ok, version

    def distances(self, values: np.ndarray) -> np.ndarray:
        """See ``Ruler``."""
        return values[:, 0].astype(np.float64)

    def state(self) -> ArrayDict:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing."""

"""Attentive replay: of more unrolls than are needed, those whose states are most like the newest one.

Source: Sun et al. 2020, "Attentive Experience Replay", in the form that github.com/parralplex/elite_buffer_vtrace gives
it: unrolls in place of transitions, compared with the last acted state of the unroll that was appended last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from offbeat.replay.features import Features
from offbeat.replay.layout import StreamLayout
from offbeat.replay.sampler import Place, Sampler
from offbeat.replay.scoring import Scored, ScoredConfig
from offbeat.types import ArrayDict

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(ScoredConfig):
    """Unrolls whose states are nearest to the newest one, both as the network of now sees them."""

    kind: Literal["attentive"] = "attentive"
    """Which sampler."""

    def nbytes(self, layout: StreamLayout) -> int:
        """Bytes of the features that it keeps, if it keeps any."""
        spec = layout.extras.get("behaviour_logits" if self.features == "policy" else "features")
        if not self.score_max_age or spec is None:
            return 0
        share = (self.score_rows or layout.items.length) / layout.items.length
        return int(layout.num_streams * layout.ring * share * spec.nbytes)


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work, or rows lack what is compared."""
    features = Features(place, config.features, config.distance, config.p, config.score_rows)
    return Scored(config, place, Likeness(place, features))


class Likeness:
    """How far the features of an unroll's rows are from the query: a measure is the features themselves.

    The query is the last acted state of the newest complete unroll. Of several streams that have grown since the last
    draw each gets its turn; where none has, the query stays.
    """

    def __init__(self, place: Place, features: Features) -> None:
        self._store, self._features, self._length = place.store, features, place.items.length
        self._seen = np.zeros(place.store.layout.num_streams, np.int64)  # complete unrolls at the last draw
        self._stream = -1  # of the query
        self.query = torch.zeros(0)
        """[F] float32."""

    def begin(self) -> None:
        """Find the query, and its features under the weights of now."""
        count = self._store.heads(np.arange(len(self._seen))) // self._length
        grown = np.flatnonzero(count > self._seen)
        if len(grown):
            later = grown[grown > self._stream]
            self._stream = int(later[0] if len(later) else grown[0])
        self._seen = count
        stream, row = np.array([self._stream]), np.array([(count[self._stream] - 1) * self._length])
        valid = self._store.take("valid", self._store.locate(stream, row + np.arange(self._length)))
        offset = np.flatnonzero(valid)[-1:] if valid.any() else np.array([self._length - 1])
        now, _, _, _ = self._features.of(stream, row, offset[:, None])
        self.query = now[0, 0].nan_to_num()

    def measure(self, stream: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """See ``Ruler``."""
        now, _, ok, version = self._features.of(stream, row)
        return now.flatten(1).numpy(), ok, version

    def distances(self, values: np.ndarray) -> np.ndarray:
        """See ``Ruler``."""
        x = torch.from_numpy(values).reshape(len(values), -1, len(self.query))
        return self._features.distances(x, self.query.expand_as(x))

    def state(self) -> ArrayDict:
        """What of the streams was seen."""
        return {"query/seen": self._seen.copy(), "query/stream": np.array([self._stream])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        self._seen, self._stream = np.array(state["query/seen"], np.int64), int(state["query/stream"][0])

"""Uniform replay: every start in the window is as likely as any other, drawn with replacement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offbeat.replay.prioritised import Prioritised
from offbeat.replay.rate_limiter import held
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection, check_least, window_of
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict

DRAWS = ("unroll", "transition", "sequence")


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Any item in the window, with replacement."""

    shared = True

    kind: Literal["uniform"] = "uniform"
    """Which sampler."""
    window: int = 0
    """Newest rows (all streams together) that may be drawn; 0: all that are kept. Unit: agent steps."""
    min_rows: int = 0
    """Rows that must be stored before the first batch. Unit: agent steps."""


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work."""
    check_least(place.store, config.min_rows)
    if place.items.kind != "unroll":
        return Prioritised(
            place.store, place.items, place.rng, alpha=0.0, window_rows=config.window, last=place.last,
            source=place.index,
        )  # fmt: skip
    length, index = place.items.length, place.index
    return Uniform(place.store, length, config.window, config.min_rows, place.rng, last=place.last, source=index)


class Uniform(Sampler):
    """Unrolls of ``length`` rows that start in the newest ``window_rows`` of all streams together (0: all kept rows).

    Starts whose stack history has expired, or whose core state is not kept, are never drawn. Nothing is drawn before
    ``min_rows`` rows are stored.
    """

    def __init__(
        self,
        store: StreamStore,
        length: int,
        window_rows: int,
        min_rows: int,
        rng: np.random.Generator,
        *,
        last: bool = True,
        source: int = 0,
    ) -> None:
        layout = store.layout
        self.window = window_of(store, window_rows)
        need = length + layout.history(last) + layout.state_gap
        if self.window < need:
            raise ValueError(
                f"uniform replay: a window of {window_rows} rows is {self.window} rows per stream, an unroll with its "
                f"history and state needs {need}; keep {need * layout.num_streams} or more"
            )
        self.length = length
        self.min_rows = min_rows
        self._store = store
        self._rng = rng
        self._last = last
        self._source = source

    def ready(self, count: int) -> bool:
        """Whether ``min_rows`` rows are stored, and there is a start, be it without history or core state."""
        return int(self._store.stored.sum()) >= self.min_rows and bool(self._starts()[1].any())

    def missing(self, count: int) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        if self.ready(count):
            return ""
        layout, stored = self._store.layout, int(self._store.stored.sum())
        if stored < self.min_rows:
            most = layout.capacity * layout.num_streams
            return (
                f"min_rows={self.min_rows} rows stored; {stored} are, and no more than {most} can be{held(self._store)}"
            )
        return f"a complete unroll of {self.length} rows; {stored} rows are stored{held(self._store)}"

    def select(self, n: int) -> Selection | None:
        """``n`` starts; None if there are none yet. RuntimeError if none stays readable."""
        if not self.ready(n):
            return None
        low, count = self._starts()
        ends = np.cumsum(count)
        stream, row = np.zeros(0, np.int64), np.zeros(0, np.int64)
        tries = 4 * n
        while len(row) < n and tries < 16 * ends[-1] + 64 * n:
            draw = self._rng.integers(ends[-1], size=tries)
            drawn_stream = np.searchsorted(ends, draw, side="right")
            drawn_row = low[drawn_stream] + draw - (ends - count)[drawn_stream]
            kept = self._store.readable(drawn_stream, drawn_row, self.length, last=self._last)
            stream, row = np.concatenate([stream, drawn_stream[kept]]), np.concatenate([row, drawn_row[kept]])
            tries *= 4
        if len(row) < n:
            raise RuntimeError(
                f"uniform sampler found no {n} readable unrolls of {self.length} rows; use a larger replay.capacity or "
                "window"
            )
        return Selection(stream[:n], row[:n], np.full(n, self._source, np.int64))

    def state(self) -> ArrayDict:
        """The random generator's state."""
        return {"rng": np.frombuffer(json.dumps(self._rng.bit_generator.state).encode(), np.uint8).copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state``."""
        self._rng.bit_generator.state = json.loads(state["rng"].tobytes())

    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """First start and number of starts of each stream, [num_streams] int64."""
        head = self._store.heads(np.arange(self._store.layout.num_streams))
        low = np.maximum(head - self.window, 0)
        return low, np.maximum(head - self.length + 1 - low, 0)

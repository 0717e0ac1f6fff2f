"""Uniform replay: every start in the window is as likely as any other, drawn with replacement."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from offbeat.replay.fifo import Selection
from offbeat.replay.rate_limiter import held
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict


class Uniform:
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
        self.window = min(-(-window_rows // layout.num_streams) or layout.capacity, layout.capacity)
        need = length + layout.history(last) + layout.state_gap
        if self.window < need:
            raise ValueError(
                f"uniform replay: a window of {window_rows} rows is {self.window} rows per stream, an unroll with its "
                f"history and state needs {need}; keep {need * layout.num_streams} or more"
            )
        if min_rows > layout.capacity * layout.num_streams:
            raise ValueError(
                f"uniform replay: min_rows={min_rows} is more than the {layout.capacity * layout.num_streams} rows kept"
            )
        self.length = length
        self.min_rows = min_rows
        self._store = store
        self._rng = rng
        self._last = last
        self._source = source

    def ready(self) -> int:
        """Starts that could be drawn now if all had history and core state; 0 until ``min_rows`` rows are stored."""
        if int(self._store.stored.sum()) < self.min_rows:
            return 0
        return int(self._starts()[1].sum())

    def missing(self) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        if self.ready():
            return ""
        layout, stored = self._store.layout, int(self._store.stored.sum())
        if stored < self.min_rows:
            most = layout.capacity * layout.num_streams
            return (
                f"min_rows={self.min_rows} rows stored; {stored} are, and no more than {most} can be{held(self._store)}"
            )
        return f"a complete unroll of {self.length} rows; {stored} rows are stored{held(self._store)}"

    def select(self, n: int) -> Selection | None:
        """``n`` starts; None if there are none yet."""
        low, count = self._starts()
        ends = np.cumsum(count)
        if not self.ready():
            return None
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
            return None
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

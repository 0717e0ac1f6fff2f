"""Samplers that draw more unrolls than they need and keep those nearest to now: what attentive and elite ones share.

Candidates are the unrolls [jT, (j + 1)T) of the streams, so that a score or a count of uses is one for ever: it is kept
by (stream, row), beside the version of the weights that it was found with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from offbeat.algorithms import elite
from offbeat.replay.rate_limiter import held
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection, check_least, window_of
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict

CHECK_EVERY = 50
"""At every so-many-th draw some cached scores are found anew, to see whether they still rank as fresh ones do."""
CHECKED = 32
"""Scores that are then found anew, at most."""


@dataclass(frozen=True)
class ScoredConfig(SamplerConfig):
    """Options of samplers that score unrolls."""

    encodes = True

    window: int = 0
    """Newest rows (all streams together) that may be drawn; 0: all that are kept. Unit: agent steps."""
    min_rows: int = 0
    """Rows that must be stored before the first batch. Unit: agent steps."""
    strategy: int = 3
    """How n unrolls are chosen from the candidates: 1 the nearest, each as often as it was drawn; 2 the nearest of each
    of n groups; 3 those that were used least; 4 of each of n groups the one that was used least."""
    distance: Literal["ln_norm", "cosine", "kl"] = "ln_norm"
    """Between features: a norm of their difference, one less their cosine, or the KL divergence of their softmaxes."""
    p: float = 2.0
    """Of ``ln_norm``, 1 or above: the power of the norm."""
    multiplier: float = 6.0
    """Candidates for each unroll that is needed, at first, 1 or above: the more, the greedier; 1: uniform."""
    anneal_calls: int = 10_000
    """With ``anneal_factor``: after their product of draws there are no more candidates than are needed, which is
    uniform replay; 0: always ``multiplier``. Unit: draws."""
    anneal_factor: float = 2.0
    """Factor on ``anneal_calls``, above 0."""
    features: Literal["policy", "torso"] = "policy"
    """What is compared: the logits of the policy, of which every row has those it was acted with; or what the heads
    read, which actors store where the agent is told to (``agent.store_features``)."""
    score_rows: int = 0
    """Rows of an unroll that count, evenly spaced; 0: all. Fewer cost less where the network has no core."""
    score_max_age: int = 0
    """A score is used again until the weights are so many versions newer; 0: none is. Unit: versions (updates)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        for name, least, above in (("p", 1.0, False), ("multiplier", 1.0, False), ("anneal_factor", 0.0, True)):
            value = getattr(self, name)
            if not (value > least if above else value >= least):
                allowed = f"above {least:g}" if above else f"{least:g} or above"
                raise ValueError(f"{name}={value} is out of range; allowed: {allowed}")
        if self.strategy not in elite.STRATEGIES:
            raise ValueError(f"strategy={self.strategy} is out of range; allowed: 1, 2, 3, 4")

    def candidates(self, call: int, n: int) -> int:
        """How many are drawn in draw ``call`` (1, 2, ...) for ``n`` that are needed."""
        factor = self.multiplier
        if self.anneal_calls:
            factor = elite.multiplier(call, self.multiplier, self.anneal_calls, self.anneal_factor)
        return n if factor == 1.0 else int(factor * n)


class Ruler(Protocol):
    """Measures unrolls, and says how far they are from now."""

    def begin(self) -> None:
        """A draw begins."""

    def measure(self, stream: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """What ``distances`` needs of unrolls (stream [k], row [k]), [k, W] float32; ok [k] bool, False: overwritten;
        and the version of the weights.
        """

    def distances(self, values: np.ndarray) -> np.ndarray:
        """How far they are from now, [k] float64, of their ``values`` [k, W]."""

    def state(self) -> ArrayDict:
        """What it keeps from draw to draw."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``, among whose names there may be others."""


class Books:
    """How often each unroll was used, and its newest measure: one entry for each that the streams can hold."""

    def __init__(self, store: StreamStore, length: int) -> None:
        self._store, self._length = store, length
        self._each = store.layout.ring // length + 2  # per stream: no two readable unrolls share one
        size = store.layout.num_streams * self._each
        self.row = np.full(size, -1, np.int64)
        self.used = np.ones(size, np.int64)
        self.version = np.full(size, -1, np.int64)
        self.values: np.ndarray | None = None  # [size, W] float32, once it is known how wide measures are

    def enter(self, stream: np.ndarray, row: np.ndarray) -> np.ndarray:
        """The entries [k] of unrolls (stream [k], row [k]); of those that have none yet, new ones."""
        at: np.ndarray = stream * self._each + row // self._length % self._each
        new = at[self.row[at] != row]
        self.used[new], self.version[new] = 1, -1
        if self.values is not None:
            self.values[new] = 0.0
        self.row[at] = row
        return at

    def names(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stream and row [k] of entries [k]."""
        return at // self._each, self.row[at]

    def put(self, at: np.ndarray, values: np.ndarray, version: int) -> None:
        """Keep measures [k, W] of entries [k]."""
        if self.values is None:
            self.values = np.zeros((len(self.row), values.shape[1]), np.float32)
        self.values[at], self.version[at] = values, version

    def state(self) -> ArrayDict:
        """Entries of unrolls that can still be read."""
        head = self._store.heads(np.arange(self._store.layout.num_streams))
        at = np.flatnonzero(self.row >= np.repeat(np.maximum(head - self._store.layout.capacity, 0), self._each))
        saved = {"at": at, "row": self.row[at], "used": self.used[at], "version": self.version[at]}
        return saved if self.values is None else saved | {"values": self.values[at]}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``, among whose names there may be others."""
        at = state["at"]
        self.row[:], self.used[:], self.version[:], self.values = -1, 1, -1, None
        self.row[at], self.used[at], self.version[at] = state["row"], state["used"], state["version"]
        if "values" in state:
            self.values = np.zeros((len(self.row), state["values"].shape[1]), np.float32)
            self.values[at] = state["values"]


class Scored(Sampler):
    """Draws ``int(lambda n)`` unrolls of the window uniformly, with replacement, and chooses n by their distances.

    Several equal candidates are scored once. Where lambda has come down to 1, nothing is scored.
    """

    def __init__(self, config: ScoredConfig, place: Place, ruler: Ruler) -> None:
        layout, length = place.store.layout, place.items.length
        check_least(place.store, config.min_rows)
        self.window = window_of(place.store, config.window)
        need = 2 * length - 1 + layout.history(place.last)
        if self.window < need:
            raise ValueError(
                f"{config.kind} replay: a window of {config.window} rows is {self.window} rows per stream, a whole "
                f"unroll with its history needs {need}; keep {need * layout.num_streams} or more"
            )
        if config.score_rows > length:
            raise ValueError(f"score_rows={config.score_rows} is more than the {length} rows of an unroll")
        self.config, self.ruler, self.books = config, ruler, Books(place.store, length)
        self._place, self._store, self._rng, self._length = place, place.store, place.rng, length
        self.calls = 0
        """Draws so far."""
        self.lambda_, self.hits, self.age, self.correlation = config.multiplier, 0.0, 0.0, float("nan")
        """Of the last draw: candidates per unroll, share of scores that were cached, their mean age in versions; and
        how cached scores last ranked beside fresh ones (Spearman)."""

    def ready(self, count: int) -> bool:
        """Whether ``min_rows`` rows and an unroll are stored, and there are weights to score it with."""
        return not self.missing(count)

    def missing(self, count: int) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        store, stored, least = self._store, int(self._store.stored.sum()), self.config.min_rows
        if stored < least:
            return f"min_rows={least} rows stored; {stored} are{held(store)}"
        if not self._starts()[1].any():
            return f"a complete unroll of {self._length} rows; {stored} rows are stored{held(store)}"
        return "" if self._place.encode is None or self._place.encode.version() >= 0 else "the first weights"

    def select(self, n: int) -> Selection | None:
        """``n`` unrolls; None if there are none yet. RuntimeError if none stays readable."""
        if not self.ready(n):
            return None
        self.calls += 1
        m = self.config.candidates(self.calls, n)
        self.lambda_ = m / n
        at = self.books.enter(*self._draw(m))
        if m > n:
            self.ruler.begin()
            distinct, inverse = np.unique(at, return_inverse=True)
            far = self._distances(distinct)[inverse]
            chosen = elite.select(
                self.config.strategy, at.tolist(), far.tolist(), self.books.used[at].tolist(), n
            )  # fmt: skip
            at = np.array(chosen, np.int64)
        np.add.at(self.books.used, at, 1)
        stream, row = self.books.names(at)
        return Selection(stream, row, np.full(n, self._place.index, np.int64))

    def stats(self) -> dict[str, float]:
        """Candidates per unroll, the share of cached scores, their age, and how they rank beside fresh ones."""
        tail = f"_{self._place.index}"
        numbers = {f"candidates{tail}": self.lambda_, f"score_hits{tail}": self.hits, f"score_age{tail}": self.age}
        return numbers if np.isnan(self.correlation) else numbers | {f"score_correlation{tail}": self.correlation}

    def tallies(self) -> ArrayDict:
        """Draws so far: what anneals goes by them."""
        return {"calls": np.array([self.calls])}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Go on counting draws; uses are counted from 0 again, and scores are found anew."""
        self.calls = int(tallies["calls"][0])

    def state(self) -> ArrayDict:
        """The generator's state, draws so far, uses and cached scores."""
        rng = np.frombuffer(json.dumps(self._rng.bit_generator.state).encode(), np.uint8).copy()
        told = np.array([self.lambda_, self.hits, self.age, self.correlation])
        own = {"rng": rng, "calls": np.array([self.calls]), "told": told}
        return own | self.books.state() | self.ruler.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())
        self.calls = int(state["calls"][0])
        self.lambda_, self.hits, self.age, self.correlation = (float(value) for value in state["told"])
        self.books.load_state(state)
        self.ruler.load_state(state)

    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of the first unroll, and how many there are, of each stream: [num_streams] int64."""
        head = self._store.heads(np.arange(self._store.layout.num_streams))
        low = -(-np.maximum(head - self.window, 0) // self._length)
        return low, np.maximum(head // self._length - low, 0)

    def _draw(self, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Stream and first row [m] of unrolls that can be read now, with replacement."""
        low, count = self._starts()
        ends = np.cumsum(count)
        stream, row = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for _ in range(64):
            draw = self._rng.integers(ends[-1], size=2 * m)
            drawn = np.searchsorted(ends, draw, side="right")
            first = (low[drawn] + draw - (ends - count)[drawn]) * self._length
            kept = self._store.readable(drawn, first, self._length, last=self._place.last)
            stream, row = np.concatenate([stream, drawn[kept]]), np.concatenate([row, first[kept]])
            if len(row) >= m:
                return stream[:m], row[:m]
        raise RuntimeError(
            f"{self.config.kind} sampler found no {m} readable unrolls of {self._length} rows; use a larger "
            "replay.capacity or window"
        )

    def _distances(self, at: np.ndarray) -> np.ndarray:
        """Distances [k] float64 of entries [k], all different; NaN where one was overwritten."""
        books, oldest, encode = self.books, self.config.score_max_age, self._place.encode
        newest = encode.version() if encode is not None else 0
        cached = (books.version[at] >= 0) & (newest - books.version[at] < oldest)
        self.hits = float(cached.mean())
        self.age = float((newest - books.version[at[cached]]).mean()) if cached.any() else 0.0
        ok = np.ones(len(at), bool)
        if self.calls % CHECK_EVERY == 0 and cached.sum() > 1:
            self._check(at[cached][:CHECKED])
        if not cached.all():
            values, fine, version = self.ruler.measure(*books.names(at[~cached]))
            ok[~cached] = fine
            books.put(at[~cached][fine], values[fine], version)
        far = np.full(len(at), np.nan)
        if ok.any():
            assert books.values is not None
            far[ok] = self.ruler.distances(books.values[at[ok]])
        return far

    def _check(self, at: np.ndarray) -> None:
        """Find cached scores anew, and see how the old ones rank beside them. The old ones stay."""
        assert self.books.values is not None
        values, ok, _ = self.ruler.measure(*self.books.names(at))
        if ok.sum() > 1:
            old, new = (self.ruler.distances(each[ok]) for each in (self.books.values[at], values))
            self.correlation = elite.rank_correlation(torch.from_numpy(old), torch.from_numpy(new))

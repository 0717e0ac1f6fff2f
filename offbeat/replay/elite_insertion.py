"""Elite insertion: copies of unrolls, of which a newcomer replaces the one whose features have moved most.

Source: github.com/parralplex/elite_buffer_vtrace (elite insertion). What is kept does not follow age but how far the
policy is from it; draws are uniform.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from offbeat.replay.columns import from_columns
from offbeat.replay.copies import Copies, Kept, Newcomers, copy_nbytes
from offbeat.replay.features import Features
from offbeat.replay.layout import StreamLayout
from offbeat.replay.rate_limiter import held
from offbeat.replay.reservoir import slots_of
from offbeat.replay.sampler import Place, Sampler, SamplerConfig
from offbeat.types import ArrayDict, Batch, TensorDict, Unroll

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Any of copied unrolls, of which those that the policy has moved away from go first."""

    encodes = True

    kind: Literal["elite_insertion"] = "elite_insertion"
    """Which sampler."""
    size: int = 0
    """Rows that it keeps, copied beside the streams; 0: as many as the streams keep. Unit: agent steps."""
    min_rows: int = 0
    """Rows that must be in it before the first batch. Unit: agent steps."""
    elite_batch_size: int = 20
    """Unrolls among which a newcomer looks for the one to replace."""
    distance: Literal["ln_norm", "cosine", "kl"] = "ln_norm"
    """Between features now and as stored; see the sampler ``elite``."""
    p: float = 2.0
    """Of ``ln_norm``, 1 or above: the power of the norm."""
    features: Literal["policy", "torso"] = "policy"
    """What is compared; see the sampler ``elite``."""
    score_rows: int = 0
    """Rows of an unroll that count, evenly spaced; 0: all. Fewer cost less where the network has no core."""
    score_max_age: int = 0
    """A score is used again until the weights are so many versions newer; 0: none is. Unit: versions (updates)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        if not self.p >= 1.0:
            raise ValueError(f"p={self.p} is out of range; allowed: 1 or above")
        if self.elite_batch_size < 1:
            raise ValueError(f"elite_batch_size={self.elite_batch_size} is out of range; allowed: 1 or above")

    def nbytes(self, layout: StreamLayout) -> int:
        """Bytes of its copies, once it is full."""
        return slots_of(self.size, layout) * copy_nbytes(layout)


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work, or rows lack what is compared."""
    length, slots = place.items.length, slots_of(config.size, place.store.layout)
    if slots < config.elite_batch_size:
        raise ValueError(
            f"size={config.size} keeps {slots} unrolls of {length} rows, fewer than elite_batch_size="
            f"{config.elite_batch_size}; keep {config.elite_batch_size * length} rows or more"
        )
    if config.min_rows > slots * length:
        raise ValueError(f"min_rows={config.min_rows} is more than the {slots * length} rows that it keeps (size)")
    if config.score_rows > length:
        raise ValueError(f"score_rows={config.score_rows} is more than the {length} rows of an unroll")
    features = Features(place, config.features, config.distance, config.p, config.score_rows)
    return EliteInsertion(config, place, features, slots)


class EliteInsertion(Sampler):
    """Fills ``num_slots`` in order; from then on each newcomer replaces the farthest of some that are drawn at random.

    Newcomers that come together are scored together with all that they may replace, in one forward.
    """

    def __init__(self, config: Config, place: Place, features: Features, num_slots: int) -> None:
        self.config, self._place, self._features, self._rng = config, place, features, place.rng
        self._newcomers, self._copies = Newcomers(place), Copies(place, num_slots)
        self._far, self._version = np.zeros(num_slots), np.full(num_slots, -1, np.int64)
        """[num_slots] distance, and version of the weights that it was found with, -1: not yet."""
        self.seen, self.scored = 0, 0
        """Unrolls that came, and unrolls that were scored."""

    def ready(self, count: int) -> bool:
        """Whether there is an unroll, and ``min_rows`` rows are in it."""
        self._take_in()
        return not self.missing(count)

    def missing(self, count: int) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        length = self._place.items.length
        rows = len(self._copies) * length
        if rows and rows >= self.config.min_rows:
            return ""
        return f"{max(self.config.min_rows, length)} rows copied; {rows} are{held(self._place.store)}"

    def select(self, count: int) -> Kept | None:
        """Any of those that are kept, with replacement; None while there are too few."""
        return self._copies.draw(count, self._rng) if self.ready(count) else None

    def read(self, selection: Kept) -> tuple[Batch, np.ndarray]:
        """What was selected, out of the copies."""
        return self._copies.read(selection)

    def stats(self) -> dict[str, float]:
        """Unrolls that are kept, that came, that came too late to be seen, and that were scored for each that came."""
        tail = f"_{self._place.index}"
        return {
            f"elite_unrolls{tail}": float(len(self._copies)),
            f"elite_seen{tail}": float(self.seen),
            f"elite_missed{tail}": float(self._newcomers.missed),
            f"elite_scored{tail}": self.scored / max(1, self.seen),
        }

    def tallies(self) -> ArrayDict:
        """What came, was scored, and missed."""
        return {"counts": np.array([self.seen, self.scored, self._newcomers.missed])}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Fill anew, from the unrolls that the streams still have."""
        self.seen, self.scored, missed = (int(count) for count in tallies["counts"])
        self._newcomers.begin_again(missed)

    def state(self) -> ArrayDict:
        """Copies, scores, what was seen, and the generator's state."""
        rng = np.frombuffer(json.dumps(self._rng.bit_generator.state).encode(), np.uint8).copy()
        counts = np.array([self.seen, self.scored])
        own = {"far": self._far.copy(), "version": self._version.copy(), "counts": counts, "rng": rng}
        return own | self._newcomers.state() | self._copies.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        self._copies.load_state(state)
        self._newcomers.load_state(state)
        self._far[:], self._version[:] = state["far"], state["version"]
        self.seen, self.scored = (int(count) for count in state["counts"])
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())

    def _take_in(self) -> None:
        encode = self._place.encode
        if encode is None or encode.version() < 0:  # nothing could be scored yet
            return
        for columns in self._newcomers.take():
            count = len(columns["row"])
            self.seen += count
            free = np.flatnonzero(self._copies.slots.stamp == 0)[:count]
            if len(free):
                self._put(free, _some(columns, np.arange(len(free))))
            if count > len(free):
                self._replace(_some(columns, np.arange(len(free), count)))

    def _replace(self, columns: TensorDict) -> None:
        """Each newcomer takes the slot of the farthest among those that are drawn for it."""
        count, slots = len(columns["row"]), self._copies.slots.num_slots
        drawn = [self._rng.choice(slots, self.config.elite_batch_size, replace=False) for _ in range(count)]
        far, version = self._score(columns, np.unique(np.concatenate(drawn)))
        lies: dict[int, int] = {}  # slot -> which newcomer; a later one may push out an earlier one
        for index, among in enumerate(drawn):
            slot = int(among[self._far[among].argmax()])
            lies[slot] = index
            self._far[slot] = far[index]
        at, which = np.array(list(lies)), np.array(list(lies.values()))
        self._put(at, _some(columns, which))
        self._far[at], self._version[at] = far[which], version

    def _score(self, columns: TensorDict, slots: np.ndarray) -> tuple[np.ndarray, int]:
        """Bring the scores of ``slots`` up to date; those of the newcomers [k], and the version of the weights."""
        assert self._place.encode is not None
        newest = self._place.encode.version()
        cached = (self._version[slots] >= 0) & (newest - self._version[slots] < self.config.score_max_age)
        old = slots[~cached]
        parts = [columns]
        if len(old):
            parts.append(self._copies.columns(self._copies.choose(old))[0])
        unrolls = from_columns(Unroll, {name: torch.cat([part[name] for part in parts]) for name in columns})
        now, stored, version = self._features.of_unroll(unrolls)
        far = self._features.distances(now, stored)
        new = len(columns["row"])
        self._far[old], self._version[old] = far[new:], version
        self.scored += len(far)
        return far[:new], version

    def _put(self, slots: np.ndarray, columns: TensorDict) -> None:
        self._copies.put(slots, columns)
        self._version[slots] = -1


def _some(columns: TensorDict, index: np.ndarray) -> TensorDict:
    """The unrolls at ``index``."""
    at = torch.from_numpy(index)
    return {name: value[at] for name, value in columns.items()}

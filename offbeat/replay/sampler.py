"""What a sampler is: how it chooses the items of a batch. One file per sampler, each with a ``Config`` of its own.

A sampler's module has ``Config`` (a ``SamplerConfig``), ``DRAWS`` (the kinds of items that it can draw) and
``make(config, place)``. ``offbeat.replay.samplers`` finds it by name, also in somebody else's package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from offbeat.replay.layout import StreamLayout
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict, Batch, CoreState, Inputs, ItemSpec


@dataclass(frozen=True)
class SamplerConfig:
    """The options that every sampler has."""

    paces: ClassVar[bool] = False
    """Its sampler takes each row once, in order, and holds actors back until then: see ``Sampler.paces``. Such a
    configuration has ``max_pending``, the unrolls per stream that actors may be ahead."""

    reuses: ClassVar[bool] = False
    """Its sampler paces, but hands out what it has taken in more than once: see ``Sampler.replayed``."""

    encodes: ClassVar[bool] = False
    """Its sampler needs features of rows under the weights of now: see ``Place.encode``."""

    shared: ClassVar[bool] = False
    """Several learners may each have one of their own over the same streams: it keeps no books that it would have to
    share, such as priorities or what was handed out."""

    kind: str = ""
    """Which sampler."""
    share: float = 1.0
    """Share of each batch. Shares sum to 1 and ``share * batch_size`` must be whole."""

    def nbytes(self, layout: StreamLayout) -> int:
        """Bytes that its sampler takes beside the streams, where those are worth a word."""
        return 0


@dataclass
class Selection:
    """Items that a sampler chose; (stream, row) of the first row that is trained on names each."""

    stream: np.ndarray  # [n] int64
    row: np.ndarray  # [n] int64
    source: np.ndarray  # [n] int64, index of the sampler in its mixture

    def __len__(self) -> int:
        """n."""
        return len(self.row)

    def __getitem__(self, index: np.ndarray) -> Selection:
        """The entries at ``index``."""
        return Selection(self.stream[index], self.row[index], self.source[index])

    def put(self, at: np.ndarray, other: Any) -> None:
        """Replace the entries ``at`` [m] by the m of ``other``, of the same class; what is one for all becomes its."""
        for field in fields(self):
            mine, new = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, np.ndarray):
                mine[at] = new
            else:
                setattr(self, field.name, new)


@dataclass(frozen=True)
class Place:
    """Where a sampler works: what ``make`` is given beside its configuration."""

    store: StreamStore
    """The streams; ``store.layout.items`` is what the agent trains on."""
    index: int
    """Of the sampler in its mixture: the ``source`` of what it chooses."""
    count: int
    """Items of it in each batch."""
    last: bool
    """Items are read with last actions and rewards."""
    rng: np.random.Generator
    """Its own, for all that it draws."""
    cursor: int = 0
    """Samplers before it that pace: the number of its cursor in the streams, if it does."""
    progress: Callable[[], float] = lambda: 0.0
    """Share of the run that is done, in [0, 1]."""
    encode: Encode | None = None
    """Of samplers that say they need it (``SamplerConfig.encodes``); None where it is only tried whether they fit."""

    @property
    def items(self) -> ItemSpec:
        """What the agent trains on."""
        return self.store.layout.items


class Encode(Protocol):
    """A copy of the network, for a sampler alone, whose weights are the newest that were published."""

    components: tuple[int, ...]
    """Logits of each component of discrete actions; () for continuous ones."""

    def version(self) -> int:
        """The version of the newest weights; -1: there are none yet."""

    def features(self, kind: str, inputs: Inputs, state: CoreState) -> tuple[Tensor, int]:
        """``policy``: logits; ``torso``: what the heads read. [T, B, F] float32 on the processor, without gradients;
        and the version of the weights. ``state``: before row 0, name -> [B, ...]; {} without a core.
        """


class Sampler(ABC):
    """Chooses items. One process, one thread. What most samplers do is there; the first three methods are their own."""

    paces: bool = False
    """It takes each row once, in order, and holds writers back until then; so there is no rate control beside it, and
    ``copied``, ``done``, ``skip`` and ``skip_older`` keep its books. Else what it draws counts as replayed."""

    @abstractmethod
    def ready(self, count: int) -> bool:
        """Whether ``select(count)`` would give something now."""

    @abstractmethod
    def missing(self, count: int) -> str:
        """What has to come before that; empty if nothing. It only looks, maybe beside a thread that draws."""

    @abstractmethod
    def select(self, count: int) -> Selection | None:
        """``count`` items; None if there are too few. RuntimeError where there never will be."""

    def read(self, selection: Any) -> tuple[Batch, np.ndarray] | None:
        """What was selected as a batch [n], and ok [n] bool, False: don't use. None: the streams have it."""
        return None

    def replayed(self, selection: Any) -> np.ndarray | None:
        """Whether each was handed out before [n] bool; None: all were, or none where it paces."""
        return None

    def weights(self, selection: Any) -> np.ndarray | None:
        """Importance weights [n] float32 of what was selected; None: all are 1."""
        return None

    def feedback(self, stream: np.ndarray, row: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
        """What the loss found out about items (stream [n], row [n]) drawn here: name -> [n], e.g. ``priority``."""

    def copied(self, selection: Selection) -> None:
        """What was selected has been copied: its rows may be overwritten."""

    def done(self, selection: Selection) -> None:
        """What was selected, and is not replayed, was trained on."""

    def skip(self, selection: Selection) -> None:
        """What was selected, and is not replayed, will not be trained on."""

    def skip_older(self, version: int | None) -> tuple[int, int]:
        """Leave out the next items whose newest row was acted with weights older than ``version`` (None: all that are
        there): how many, and the newest version among them.
        """
        return 0, -1

    def stats(self) -> dict[str, float]:
        """Numbers for the log."""
        return {}

    def tallies(self) -> ArrayDict:
        """A few numbers that should go on where another sampler takes its place over the same streams, because it died
        with its process and all else of it is lost.
        """
        return {}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Take the place of one that had these ``tallies``."""

    def state(self) -> ArrayDict:
        """What it needs to go on exactly; cursors are part of the streams' state."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""


def window_of(store: StreamStore, rows: int) -> int:
    """Rows per stream of a window of ``rows`` rows over all streams; 0: all that are kept.

    ValueError where more are asked for than are kept.
    """
    layout = store.layout
    kept = layout.capacity * layout.num_streams
    if rows > kept:
        raise ValueError(f"window={rows} is more than the {kept} rows kept (replay.capacity)")
    return -(-rows // layout.num_streams) or layout.capacity


def check_least(store: StreamStore, min_rows: int) -> None:
    """ValueError where more rows are asked for than are kept."""
    kept = store.layout.capacity * store.layout.num_streams
    if min_rows > kept:
        raise ValueError(f"min_rows={min_rows} is more than the {kept} rows kept (replay.capacity)")

"""Rows that somebody else played, as one more sampler: uniform, with replacement, over memory of its own.

They are read-only: nothing is appended to them, nothing expires. They count in no ledger of the run's own rows, have no
priorities, and weigh 1 each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from offbeat.replay.items import read_items
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.n_step import take_steps
from offbeat.replay.sampler import Sampler, Selection
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict, Batch, ItemSpec

NOBODY = -1
"""The version of the weights that acted in rows of a demonstration: none of the run's."""
KINDS = ("transition",)
"""Kinds of items that can be drawn from a demonstration: others need what only the run's own network could note."""


@dataclass(frozen=True)
class DemonstrationsConfig:
    """What is learnt from rows that a person or a program has played (``offbeat play ENV --record-demo FILE``)."""

    path: str = ""
    """A demonstration (``.safetensors``), or a folder of them; empty: there is none."""
    pretrain_steps: int = 0
    """Updates on the demonstration alone before the first frame of the environment; skipped ones count. Source: Riemer
    et al. 2025 have 16,000 for Tetris. Unit: updates."""
    share: float = 0.0
    """Share of each batch that comes from the demonstration afterwards, in [0, 1); ``share * batch_size`` must be
    whole. The samplers of ``replay`` share the rest; 0: none."""


def items_shown(demonstrations: DemonstrationsConfig, batch_size: int) -> int:
    """Items of the demonstration in each batch after pretraining. ValueError where the share is not whole."""
    share = demonstrations.share
    count = round(share * batch_size)
    if abs(count - share * batch_size) > 1e-6 or (share and not 0 < count < batch_size):
        raise ValueError(
            f"demonstrations.share={share:g} of learner.batch_size={batch_size} is {share * batch_size:g} items; it "
            f"must be a whole number, at least 1 and below {batch_size}"
        )
    return count


NONE = DemonstrationsConfig()


@dataclass(frozen=True)
class DemonstratedRows:
    """Rows of whole episodes as columns of a stream, see ``StreamLayout.columns``."""

    columns: ArrayDict
    """Name -> [N, ...]: all columns but ``param_version`` and the behaviour extras, which nobody noted."""
    usable: np.ndarray
    """[N] bool: rows that happened as they say, so that something can be learnt from them."""

    def joined(self, other: DemonstratedRows) -> DemonstratedRows:
        """These and then those."""
        columns = {name: np.concatenate([value, other.columns[name]]) for name, value in self.columns.items()}
        return DemonstratedRows(columns, np.concatenate([self.usable, other.usable]))

    def digest(self) -> int:
        """A number of 63 bits that is another one for other rows."""
        found = hashlib.sha256()
        for name, array in sorted(self.columns.items()):
            found.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        found.update(self.usable.tobytes())
        return int.from_bytes(found.digest()[:8], "little") >> 1


class Demonstrated(Sampler):
    """Items of a demonstration, each as likely as any other.

    Args:
        rows: what was played.
        layout: of the run's streams: its batches are read alike.
        last: items are read with last actions and rewards.
        rng: of the draws.
        source: index of this sampler in its mixture.

    ValueError where the rows are not those of ``layout``, or hold no whole item.
    """

    def __init__(
        self, rows: DemonstratedRows, layout: StreamLayout, last: bool, rng: np.random.Generator, source: int
    ) -> None:
        check_items(layout.items)
        self._items: ItemSpec = layout.items
        self._store, self._last, self._rng, self._source = _store_of(rows, layout), last, rng, source
        self._digest = rows.digest()
        self._starts = _starts(self._store, rows.usable, self._items, last)
        self.drawn = 0
        """Items drawn so far."""
        if not len(self._starts):
            raise ValueError(
                f"the demonstration has no whole item of {self._items.n} steps that could be learnt from among its "
                f"{len(rows.usable)} rows; play more of it"
            )

    @property
    def size(self) -> int:
        """Items that can be drawn."""
        return len(self._starts)

    def ready(self, count: int) -> bool:
        """Always."""
        return True

    def missing(self, count: int) -> str:
        """Nothing."""
        return ""

    def select(self, count: int) -> Selection:
        """``count`` items, with replacement."""
        row = self._starts[self._rng.integers(len(self._starts), size=count)]
        self.drawn += count
        return Selection(np.zeros(count, np.int64), row, np.full(count, self._source, np.int64))

    def read(self, selection: Selection) -> tuple[Batch, np.ndarray]:
        """What was selected; all of it may be used."""
        part = selection
        return read_items(self._store, self._items, part.stream, part.row, last=self._last, source=part.source)

    def replayed(self, selection: Selection) -> np.ndarray:
        """All of it: the run has not acted so."""
        return np.ones(len(selection), bool)

    def stats(self) -> dict[str, float]:
        """Items that can be drawn, and rows that were, pretraining included."""
        return {"demonstration_items": float(self.size), "demonstration_rows": float(self.drawn * self._items.trained)}

    def state(self) -> ArrayDict:
        """The generator, the counter, and which demonstration it is."""
        rng = json.dumps(self._rng.bit_generator.state).encode()
        return {"rng": np.frombuffer(rng, np.uint8).copy(), "demonstration": np.array([self._digest, self.drawn])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``; ValueError where it is of another demonstration."""
        digest, drawn = (int(value) for value in state["demonstration"])
        if digest != self._digest:
            raise ValueError("the run was saved with another demonstration; put back the one of demonstrations.path")
        self.drawn = drawn
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())


def check_items(items: ItemSpec) -> None:
    """ValueError where an agent trains on something else than a demonstration holds."""
    if items.kind not in KINDS:
        raise ValueError(
            f"demonstrations.path: the agent trains on {items.kind}s, which hold what only its own network notes while "
            f"it acts; allowed are agents that train on {' or '.join(f'{kind}s' for kind in KINDS)}: dqn, rainbow, "
            "apex, delayed_dqn"
        )


def _store_of(rows: DemonstratedRows, layout: StreamLayout) -> StreamStore:
    """A store over private memory with all the rows in one stream."""
    count = len(rows.usable)
    own = replace(layout, num_streams=1, capacity=count, block=count, num_cursors=0)
    columns = {name: value[None] for name, value in rows.columns.items()}
    made = {name: spec.zeros(1, count) for name, spec in own.columns().items() if name not in columns}
    made["param_version"][:] = NOBODY
    if wrong := _unlike(columns, own):
        raise ValueError(f"rows of the demonstration: {wrong}")
    open_row = {f"observation/{key}": spec.zeros(1) for key, spec in own.observation.items()}
    store = StreamStore.allocate(own)
    none = np.zeros(0, np.int64)
    store.append(
        StreamBlock(
            streams=np.zeros(1, np.int64),
            columns={name: (columns | made)[name] for name in own.columns()},
            open_row=open_row | {"first": np.ones(1, bool), "valid": np.ones(1, bool)},
            core_stream=none,
            core_row=none,
            core_state={},
        )
    )
    return store


def _unlike(columns: ArrayDict, layout: StreamLayout) -> str:
    """Which column is none of the layout's; empty: none."""
    specs = layout.columns()
    for name, value in columns.items():
        spec = specs.get(name)
        if spec is None or value.dtype.name != spec.dtype or value.shape[2:] != spec.shape:
            wanted = "nothing" if spec is None else f"{spec.dtype}{list(spec.shape)}"
            return f"{name}: got {value.dtype}{list(value.shape[2:])}, allowed is {wanted}"
    missing = [name for name in specs if name.startswith("observation/") and name not in columns]
    return f"{missing[0]} is missing" if missing else ""


def _starts(store: StreamStore, usable: np.ndarray, items: ItemSpec, last: bool) -> np.ndarray:
    """Rows [M] int64 at which an item begins whose actions all happened as they say."""
    row = np.flatnonzero(usable)
    taken = take_steps(store, np.zeros(len(row), np.int64), row, items.n, store.layout.history(last))
    strange = np.append(0, np.cumsum(~usable))
    found: np.ndarray = row[taken.ok & (strange[row + taken.steps] == strange[row])]
    return found

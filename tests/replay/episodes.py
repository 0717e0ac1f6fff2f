"""Hand-made episodes of known lengths whose rows say where they lie; for tests of items and their samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from offbeat.replay.items import ItemSpec
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.streams import StreamStore
from offbeat.types import ArraySpec
from tests.replay.twin import vector_layout

NUMBER = ArraySpec(())


def item_layout(items: ItemSpec, **changes: Any) -> StreamLayout:
    """Streams for ``items``, with the Q values that initial priorities need; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "extras": {"q": NUMBER, "q_max": NUMBER},
        "core_state": {"h": ArraySpec((1,))} if items.kind == "sequence" else {},
        "num_streams": 1,
        "capacity": 80,
        "state_period": items.state_period,
        "items": items,
    }
    return vector_layout(**(fields | changes))


class Episodes:
    """Writes to ``store`` episodes of as many actions as ``lengths`` gives for each; all end in termination.

    The observation is (stream, number of the episode, step), the action the step, the reward 1 + step, the state before
    a row its step.
    """

    def __init__(self, store: StreamStore, lengths: Callable[[], int]) -> None:
        self.store, self.lengths = store, lengths
        self.open = [(0, 0, lengths()) for _ in range(store.layout.num_streams)]

    def append(self, s: int, count: int) -> None:
        """The next ``count`` rows of stream ``s``, in blocks."""
        for length in [self.store.layout.block] * (count // self.store.layout.block) + [
            count % self.store.layout.block
        ]:
            if length:
                self.store.produced[s] += length
                self.store.append(self._block(s, length))

    def round(self) -> None:
        """One whole block for every stream."""
        for s in range(self.store.layout.num_streams):
            self.append(s, self.store.layout.block)

    def _block(self, s: int, count: int) -> StreamBlock:
        layout = self.store.layout
        rows = [self.open[s]]
        while len(rows) <= count:
            episode, step, length = rows[-1]
            rows.append((episode, step + 1, length) if step < length else (episode + 1, 0, self.lengths()))
        self.open[s] = rows[-1]
        number, step, length = np.array(rows).T
        columns = {name: spec.zeros(1, count + 1) for name, spec in layout.columns().items()}
        columns["observation/observation"][0] = np.stack([np.full_like(step, s), number, step], 1)
        columns["action"][0], columns["reward"][0] = step, np.where(step < length, 1 + step, 0)
        columns["terminated"][0], columns["discount"][0] = step == length - 1, np.where(step < length - 1, 0.9, 0)
        columns["first"][0], columns["valid"][0] = step == 0, step < length
        names = ("observation/observation", "first", "valid")
        due = np.flatnonzero(layout.state_due(self.store.head[s] + np.arange(count), step[:count]))
        states = {name: step[due][:, None].astype(np.float32) for name in layout.core_state}
        return StreamBlock(
            np.array([s]),
            {name: values[:, :count] for name, values in columns.items()},
            {name: columns[name][:, count] for name in names},
            np.zeros(len(due), np.int64),
            due,
            states,
        )


def write(items: ItemSpec, *lengths: int, **changes: Any) -> StreamStore:
    """One stream with exactly these episodes, final observations included."""
    store, left = StreamStore.allocate(item_layout(items, **changes)), iter((*lengths, 1))
    Episodes(store, lambda: next(left)).append(0, sum(lengths) + len(lengths))
    return store

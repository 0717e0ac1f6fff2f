"""offbeat's own side of ``bench replay``: the streams and prioritised replay of a run, measured as the peers are.

Run as ``python -m offbeat.bench.replay_own``, a process of its own like every peer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from offbeat.bench.peers.drivers import replay_driver as driver
from offbeat.replay.items import ItemSpec
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.mixture import Mixture
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.rate_limiter import RateLimiter
from offbeat.replay.streams import StreamStore
from offbeat.types import OBSERVATION, ArraySpec

TRANSITIONS = ItemSpec("transition", n=driver.N_STEPS)
SEQUENCES = ItemSpec("sequence", n=driver.TAIL, length=driver.LENGTH, burn_in=driver.BURN_IN, period=driver.LENGTH // 2)
"""Overlapping by half, as in Kapturowski et al. 2019."""
WORKLOADS = {"streams": f"{driver.STREAMS} streams of single frames, blocks of {driver.BLOCK} rows of each"}


class Own:
    """See ``replay_driver.Contender``."""

    period = driver.BLOCK
    steps = driver.N_STEPS

    def __init__(self, options: Any, frames: np.ndarray) -> None:
        self.layout = make_layout(options.transitions)
        self.held, self.capacity = options.transitions, driver.STREAMS * self.layout.ring
        self.block = make_block(self.layout, frames)

    def allocate(self) -> None:
        """The streams and the sampler of transitions."""
        self.store = StreamStore.allocate(self.layout)
        self.transitions, self.sampler = self._replay(TRANSITIONS, driver.BATCH)

    def append(self) -> None:
        """A block of every stream, and its transitions into the tree, which a run does when it next draws."""
        self.store.append(self.block)
        self.sampler.sync()

    def prepare(self) -> None:
        """Another sampler over the same streams."""
        self.held = self.sampler.size
        self.sequences, _ = self._replay(SEQUENCES, driver.SEQUENCES)

    def sample(self) -> tuple[Any, Any, Any]:
        """The tensors that an agent is given."""
        batch: Any = self.transitions.sample()
        seen, following = (inputs.observation[OBSERVATION][0] for inputs in (batch.inputs, batch.next_inputs))
        return seen, following, (batch.stream.numpy(), batch.row.numpy())

    def draw(self) -> Any:
        """Without the importance weights, which are microseconds."""
        return self.sampler.select(driver.BATCH)

    def update(self, names: Any, priority: np.ndarray) -> None:
        """As the learner does."""
        self.transitions.feedback(np.zeros(len(priority), np.int64), names[0], names[1], {"priority": priority})

    def sample_sequences(self) -> tuple[Any, Any] | None:
        """Burn-in, rows to train on, tail, and the observation after them."""
        batch: Any = self.sequences.sample()
        return batch.inputs.observation[OBSERVATION], (batch.stream.numpy(), batch.row.numpy())

    def update_sequences(self, names: Any, priority: np.ndarray) -> None:
        """As the learner does."""
        self.sequences.feedback(np.zeros(len(priority), np.int64), names[0], names[1], {"priority": priority})

    def _replay(self, items: ItemSpec, batch_size: int) -> tuple[Mixture, Prioritised]:
        store = StreamStore(replace(self.layout, items=items), self.store.arrays)
        sampler = Prioritised(store, items, np.random.default_rng(0), alpha=driver.ALPHA, beta=lambda: driver.BETA)
        limiter = RateLimiter(store, 0.0, 0, 1, batch_size)
        return Mixture(store, [sampler], [batch_size], last=False, limiter=limiter), sampler


def make_layout(transitions: int) -> StreamLayout:
    """Streams of Atari frames, feed-forward, that hold ``transitions`` besides the rows about to expire."""
    spare = driver.STACK - 1 + driver.BLOCK + driver.N_STEPS
    return StreamLayout(
        observation={OBSERVATION: ArraySpec((1, driver.SIZE, driver.SIZE), "uint8")},
        stacked=(OBSERVATION,),
        frame_stack=driver.STACK,
        stack_padding="zero",
        action=ArraySpec((), "int64"),
        extras={},
        core_state={},
        num_streams=driver.STREAMS,
        capacity=-(-transitions // driver.STREAMS) + spare,
        block=driver.BLOCK,
        items=TRANSITIONS,
    )


def make_block(layout: StreamLayout, frames: np.ndarray) -> StreamBlock:
    """The block that is appended again and again: rows in the middle of an episode."""
    columns = {name: spec.zeros(driver.STREAMS, driver.BLOCK) for name, spec in layout.columns().items()}
    columns[f"observation/{OBSERVATION}"][:, :, 0] = frames.reshape(driver.STREAMS, driver.BLOCK, *frames.shape[1:])
    columns["valid"][:] = True
    columns["reward"][:] = 1
    columns["discount"][:] = driver.DISCOUNT
    open_row = {name: columns[name][:, 0] for name in (f"observation/{OBSERVATION}", "first", "valid")}
    none = np.zeros(0, np.int64)
    return StreamBlock(np.arange(driver.STREAMS), columns, open_row, none, none, {})


if __name__ == "__main__":
    driver.drive("offbeat", Own, WORKLOADS)

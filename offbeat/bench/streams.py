"""How fast streams are: appending blocks and assembling batches, beside a plain copy of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from offbeat.replay.columns import columns_of
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.streams import StreamStore
from offbeat.types import ArraySpec

STREAMS, LENGTH, BATCH, CAPACITY = 32, 20, 32, 640


def bench_streams(seconds: float = 2.0) -> dict[str, float]:
    """Median rates of appends and batch assembly, and of ``memcpy`` on as many bytes, taken in turns for ``seconds``.

    Rows are Atari's: one frame [1, 84, 84] uint8, stacks of 4; blocks and batches of 32 x 20 rows. Keys: ``append`` and
    ``assemble``, each with ``_rows_per_s``, ``_bytes_per_s`` (written, stacks included), ``_memcpy_bytes_per_s`` and
    ``_of_memcpy`` (share of the copy's rate).
    """
    store = StreamStore.allocate(streams_layout())
    streams, rng = np.arange(STREAMS), np.random.default_rng(0)
    block = random_block(store.layout, rng)
    while int(store.head[0]) < CAPACITY:
        store.append(block)

    def assemble() -> int:
        row = store.head[streams] - rng.integers(LENGTH, CAPACITY - 4, BATCH)
        batch, _ = store.read_unrolls(streams[:BATCH], row, LENGTH, last=False)
        return sum(value.nbytes for value in columns_of(batch).values())

    sizes = {"append": sum(values.nbytes for values in block.columns.values()), "assemble": assemble()}
    rows = {"append": STREAMS * LENGTH, "assemble": BATCH * LENGTH}
    work: dict[str, Callable[[], object]] = {"append": lambda: store.append(block), "assemble": assemble}
    for name, size in sizes.items():
        work[f"{name}_memcpy"] = _copier(size)
    times: dict[str, list[float]] = {name: [] for name in work}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times["append"]) < 3:
        for name, run in work.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    result: dict[str, float] = {}
    for name, size in sizes.items():
        own, copy = float(np.median(times[name])), float(np.median(times[f"{name}_memcpy"]))
        result[f"{name}_rows_per_s"] = rows[name] / own
        result[f"{name}_bytes_per_s"] = size / own
        result[f"{name}_memcpy_bytes_per_s"] = size / copy
        result[f"{name}_of_memcpy"] = copy / own
    return result


def streams_layout() -> StreamLayout:
    """Streams like Pong's, feed-forward."""
    return StreamLayout(
        observation={"observation": ArraySpec((1, 84, 84), "uint8")},
        stacked=("observation",),
        frame_stack=4,
        stack_padding="zero",
        action=ArraySpec((), "int64"),
        extras={"behaviour_logits": ArraySpec((6,))},
        core_state={},
        num_streams=STREAMS,
        capacity=CAPACITY,
        block=LENGTH,
    )


def random_block(layout: StreamLayout, rng: np.random.Generator) -> StreamBlock:
    """One block of all streams: rows in the middle of an episode."""
    columns = {name: spec.zeros(STREAMS, LENGTH) for name, spec in layout.columns().items()}
    frames = columns["observation/observation"]
    frames[...] = rng.integers(0, 256, frames.shape, np.uint8)
    columns["valid"][:] = True
    open_row = {name: columns[name][:, 0] for name in ("observation/observation", "first", "valid")}
    none = np.zeros(0, np.int64)
    return StreamBlock(np.arange(STREAMS), columns, open_row, none, none, {})


def _copier(size: int) -> Callable[[], object]:
    """A function that copies ``size`` bytes from anywhere in as much memory as the streams have."""
    source = np.ones(STREAMS * CAPACITY * 84 * 84, np.uint8)
    rng = np.random.default_rng(0)

    def copy() -> np.ndarray:
        start = int(rng.integers(0, len(source) - size))
        return source[start : start + size].copy()

    return copy

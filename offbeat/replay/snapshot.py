"""A StreamStore's books: the ledger in which every row is accounted for, and exact snapshots for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from offbeat.replay.layout import COUNTERS, CURSOR_COUNTERS
from offbeat.replay.rings import Rings
from offbeat.types import ArrayDict


def ledger(store: Rings) -> dict[str, int]:
    """What became of every row, all streams together; see ``StreamStore.ledger``."""
    in_hand = store.produced - store.lost - store.head
    counts = {
        "produced": store.produced,
        "stored": store.stored,
        "expired": store.expired,
        "lost": store.lost,
        "in_hand": in_hand,
        "non_transitions": store.head - store.counted()[0],
    }
    for cursor in range(store.layout.num_cursors):
        _, taken, in_flight, trained, skipped = (store.arrays[name][cursor] for name in CURSOR_COUNTERS)
        counts[f"fifo{cursor}/trained"] = trained
        counts[f"fifo{cursor}/pending"] = in_hand + (store.head - taken) + in_flight
        counts[f"fifo{cursor}/skipped"] = skipped
        counts[f"fifo{cursor}/lost"] = store.lost
    return {name: int(values.sum()) for name, values in counts.items()}


def check_ledger(store: Rings) -> None:
    """Raise RuntimeError, saying which count of which stream does not add up."""
    head, produced, lost = store.head, store.produced, store.lost
    _hold(store.reserved == head, "rows reserved = rows appended", store.reserved, head)
    _hold(produced - lost >= head, "produced - lost >= appended", produced - lost, head)
    transitions = store.counted()[0]
    _hold((transitions >= 0) & (transitions <= head), "transitions <= appended", transitions, head)
    for cursor in range(store.layout.num_cursors):
        row, taken, in_flight, trained, skipped = (store.arrays[name][cursor] for name in CURSOR_COUNTERS)
        pending = (produced - lost - head) + (head - taken) + in_flight
        total = trained + pending + skipped + lost
        _hold(produced == total, f"fifo {cursor}: produced = trained + pending + skipped + lost", produced, total)
        _hold((in_flight >= 0) & (taken <= head), f"fifo {cursor}: handed out <= appended", taken, head)
        _hold(row <= taken, f"fifo {cursor}: released <= handed out", row, taken)


def _hold(holds: np.ndarray, what: str, left: np.ndarray, right: np.ndarray) -> None:
    """Raise where ``holds`` [num_streams] is False."""
    if not holds.all():
        stream = int(np.argmin(holds))
        raise RuntimeError(
            f"ledger of stream {stream} does not close: {what} is broken, {left[stream]} and {right[stream]}"
        )


def save(store: Rings) -> ArrayDict:
    """An exact snapshot: counters, and readable rows, open rows and kept states of all streams one after the other.

    Everything follows from one copy of ``head``. A writer may be in the middle of a block, which touches none of the
    rows below it and gives the open row the observation that it has already; it must not begin another.
    """
    head = store.heads(np.arange(store.layout.num_streams))
    saved = {"head": head, "reserved": head.copy()}
    # A new writer counts as lost what was produced before it: in this order produced - lost is never below the head.
    others = [name for name in (*COUNTERS, *_cursors(store)) if name not in ("head", "reserved", "lost", "produced")]
    saved |= {name: store.arrays[name].copy() for name in ("lost", *others, "produced")}
    saved["transitions"], saved["env_steps"] = store.counted(head)
    saved["non_transitions"] = head - saved["transitions"]
    stream, row = _used_rows(store, head)
    at = store.locate(stream, row)
    for name in (*store.layout.columns(), "age"):
        saved[name] = store.take(name, at)
        if name not in (*store.open_columns, "age"):  # an open row has no action yet, only what an old row left there
            saved[name][row == head[stream]] = 0
    if store.layout.core_state:
        readable = row < head[stream]
        saved["state_stream"], slot = _kept_states(store, stream[readable], row[readable])
        for name in ("core_row", *(f"core/{key}" for key in store.layout.core_state)):
            saved[name] = store.take(name, slot)
    return saved


def load(store: Rings, state: Mapping[str, np.ndarray]) -> None:
    """Go back to ``state``. Raises ValueError where it belongs to another layout."""
    head = state["head"]
    if head.shape != store.head.shape:
        raise ValueError(f"saved streams: {len(head)} of them, this run has {len(store.head)}; use the same number")
    at = store.locate(*_used_rows(store, head))
    for name in (*store.layout.columns(), "age"):
        need = (len(at), *store.take(name, at[:0]).shape[1:])
        if name not in state or state[name].shape != need:
            got = list(state[name].shape) if name in state else "nothing"
            raise ValueError(
                f"saved streams: {name!r} must be {list(need)}, got {got}; use the same replay and agent options"
            )
    for name, array in store.arrays.items():
        if name in (*COUNTERS, *_cursors(store)):
            array[...] = state[name]
    transitions = head - state["non_transitions"]
    steps = state.get("env_steps", transitions)  # checkpoints of before have none: each transition took one
    store.arrays["counted"][...] = np.stack([head, transitions, steps], 1)[:, None]
    store.reserved[...] = head
    for name in (*store.layout.columns(), "age"):
        store.put(name, at, state[name])
    if store.layout.core_state:
        _load_states(store, state)
    if store.layout.num_cursors:
        store.arrays["cursor/skipped"][...] += store.arrays["cursor/in_flight"]
        store.arrays["cursor/in_flight"][...] = 0
        store.arrays["cursor/row"][...] = store.arrays["cursor/taken"]


def settle_cursors(store: Rings) -> None:
    """What was handed out and not trained on is skipped, whatever the learner was about to write when it died."""
    if store.layout.num_cursors:
        row, taken, in_flight, trained, skipped = (store.arrays[name] for name in CURSOR_COUNTERS)
        skipped[...] = taken - trained
        in_flight[...] = 0
        row[...] = taken


def _cursors(store: Rings) -> tuple[str, ...]:
    """Names of the saved cursor arrays; how far writers may be ahead follows from the configuration instead."""
    return CURSOR_COUNTERS if store.layout.num_cursors else ()


def _used_rows(store: Rings, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Streams and absolute rows that are readable or open, stream after stream; none of empty streams."""
    count = np.where(head > 0, np.minimum(head, store.layout.capacity) + 1, 0)
    stream = np.repeat(np.arange(len(head)), count)
    offset = np.arange(len(stream)) - np.repeat(np.cumsum(count) - count, count)
    return stream, head[stream] + 1 - count[stream] + offset


def _kept_states(store: Rings, stream: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stream and flattened slot of the states that are kept before any of these rows."""
    slot = store.take("core_slot", store.locate(stream, row)) - 1
    where = stream * store.layout.kept_states + np.maximum(slot, 0)
    kept = (slot >= 0) & (store.take("core_row", where) == row)
    return stream[kept], where[kept]


def _load_states(store: Rings, state: Mapping[str, np.ndarray]) -> None:
    """Put saved core states back into the slots that they came from: the newest that their streams' writers filled."""
    layout = store.layout
    stream, row = state["state_stream"], state["core_row"]
    from_newest = np.searchsorted(stream, stream, side="right") - np.arange(len(stream))
    number = (store.arrays["core_count"][stream] - from_newest) % layout.kept_states
    slot = stream * layout.kept_states + number
    store.arrays["core_slot"][...] = 0
    store.arrays["core_row"][...] = -1
    store.put("core_slot", store.locate(stream, row), number + 1)
    for name in ("core_row", *(f"core/{key}" for key in layout.core_state)):
        store.put(name, slot, state[name])

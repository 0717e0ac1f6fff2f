"""Readers: unrolls, transitions and sequences gathered from the streams, whole batches at once.

A reader copies first and then asks whether the rows it copied can have been overwritten meanwhile. Indices are aligned
here, once: index t of every field is the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from offbeat.replay import kernels
from offbeat.replay.n_step import take_steps
from offbeat.replay.rings import Rings
from offbeat.replay.stacking import packs, stack_rows, unpack
from offbeat.replay.threads import share_out
from offbeat.types import ArrayDict, CoreState, Inputs, Sequence, Transition, Unroll


@dataclass
class Rows:
    """Rows looked up in the rings: absolute numbers and what says how they hang together, all of one shape [..., B]."""

    stream: np.ndarray  # [B] int64
    row: np.ndarray  # [..., B] int64, absolute
    at: np.ndarray  # [..., B] int64, index into the flattened rings
    age: np.ndarray  # [..., B] int64, rows since the episode's first


def prepare(store: Rings) -> None:
    """Load the compiled loops that reading needs, half a second's work, so that the first batch need not wait."""
    none = np.zeros((1, 0), np.int64)
    for key in store.layout.stacked:
        _observation(store, key, Rows(none[0], none, none, none))


def look_up(store: Rings, stream: np.ndarray, row: np.ndarray) -> Rows:
    """Find rows [..., B] of streams [B]."""
    at = store.locate(stream, row)
    return Rows(stream, row, at, store.take("age", at).astype(np.int64))


def read_unrolls(
    store: Rings, stream: np.ndarray, row: np.ndarray, length: int, *, last: bool, source: np.ndarray | None
) -> tuple[Unroll, np.ndarray]:
    """``length`` rows from ``row`` [B] of ``stream`` [B] and the observation after them; ok [B] False: don't use."""
    ok, low = window(store, stream, row, last)
    ok &= row + length <= store.heads(stream)
    rows = look_up(store, stream, row + np.arange(length + 1)[:, None])
    unroll, kept = _unroll(store, rows, last, source)
    return unroll, store.verify(stream, low, ok & kept)


def read_before(store: Rings, stream: np.ndarray, row: np.ndarray, burn_in: int, *, last: bool) -> Unroll:
    """The ``burn_in`` rows before ``row`` [B] of ``stream`` [B]: see ``Unroll.before``."""
    start = row - burn_in + np.arange(burn_in + 1)[:, None]
    rows = look_up(store, stream, start.clip(0))
    unroll, kept = _unroll(store, rows, last, None)
    known, low = window(store, stream, rows.row[0], last)
    unroll.inputs.first[torch.from_numpy(start < 0)] = True
    unroll.valid[:, torch.from_numpy(~store.verify(stream, low, known & kept))] = False
    return unroll


def read_transitions(
    store: Rings, stream: np.ndarray, row: np.ndarray, n: int, *, last: bool, source: np.ndarray | None
) -> tuple[Transition, np.ndarray]:
    """``n``-step transitions from ``row`` [B] of ``stream`` [B]; ok [B] False: don't use."""
    taken = take_steps(store, stream, row, n, store.layout.history(last))
    here = taken.at[0]
    # Both observations of a transition in one pass: they lie side by side in the ring.
    inputs, next_inputs = _two(_inputs(store, Rows(stream, taken.row, taken.at, taken.age), last))
    transition = Transition(
        inputs=inputs,
        action=_tensor(store, "action", here),
        reward=torch.from_numpy(taken.reward),
        discount=torch.from_numpy(taken.discount),
        next_inputs=next_inputs,
        steps=torch.from_numpy(taken.steps),
        extras={name: _tensor(store, f"extras/{name}", here) for name in store.layout.extras},
        param_version=_tensor(store, "param_version", here),
        elapsed=_tensor(store, "elapsed", here),
        **_names(stream, row, source),
    )
    return transition, store.verify(stream, taken.low, taken.ok)


def read_sequences(
    store: Rings,
    stream: np.ndarray,
    row: np.ndarray,
    burn_in: int,
    length: int,
    tail: int,
    *,
    last: bool,
    source: np.ndarray | None,
    padding: np.ndarray | None = None,
) -> tuple[Sequence, np.ndarray]:
    """Burn-in, training rows and tail from ``row`` [B] of ``stream`` [B]; ok [B] False: don't use.

    Rows after the row with the episode's final observation repeat it, without reward, and are masked. ``padding`` [B]
    rows of the burn-in, where an episode has too few before the training rows, repeat ``row`` in the same way.
    """
    total = burn_in + length + tail
    lead = np.zeros(len(row), np.int64) if padding is None else padding
    ok, low = window(store, stream, row, last)
    head = store.heads(stream)
    step = np.arange(total + 1)[:, None] - lead  # [T + 1, B], below 0 in the padding
    span = row + step.clip(0)
    over = ~store.take("valid", store.locate(stream, span))  # beyond the head anything: refused below
    end = np.where(over.any(0), over.argmax(0) - lead, total + 1)  # rows from ``row`` to the final observation
    ok &= (end > 0) & (row + np.minimum(end, total - lead) <= head)
    rows = look_up(store, stream, row + np.clip(step, 0, end))
    unroll, kept = _unroll(store, rows, last, source)
    padded = torch.from_numpy((step >= end) | (step < 0))
    unroll.valid &= ~padded
    unroll.inputs.first[torch.from_numpy(step < 0)] = False  # the state is reset once, where the episode starts
    padded = padded[:total]
    for values in (unroll.reward, unroll.discount, unroll.terminated, unroll.truncated):
        values[padded] = 0
    mask = ~padded
    mask[:burn_in] = False
    mask[burn_in + length :] = False
    sequence = Sequence(**vars(unroll), mask=mask, burn_in=burn_in)
    return sequence, store.verify(stream, low, ok & kept)


@dataclass
class ScatteredRows:
    """Some rows of B unrolls, for who looks at them without training on them."""

    inputs: Inputs  # [R, B]
    valid: torch.Tensor  # [R, B] bool
    extra: torch.Tensor  # [R, B, ...], one of the behaviour extras
    core_state: CoreState  # name -> [B, ...], before the unrolls' first rows
    ok: np.ndarray  # [B] bool, False: don't use


def read_rows(
    store: Rings, stream: np.ndarray, row: np.ndarray, offsets: np.ndarray, *, last: bool, extra: str
) -> ScatteredRows:
    """Rows ``row + offsets`` [R, B] of unrolls that begin at ``row`` [B] of ``stream`` [B], and their ``extra``."""
    ok, low = window(store, stream, row, last)
    ok &= row + offsets.max(0) < store.heads(stream)
    core_state, kept = _core_state(store, look_up(store, stream, row[None]))
    rows = look_up(store, stream, row + offsets)
    return ScatteredRows(
        inputs=_inputs(store, rows, last),
        valid=_tensor(store, "valid", rows.at),
        extra=_tensor(store, f"extras/{extra}", rows.at),
        core_state=core_state,
        ok=store.verify(stream, low, ok & kept),
    )


def window(store: Rings, stream: np.ndarray, row: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """Whether rows [B] and the history they need are in the window, and the oldest row [B] that will be read."""
    head = store.heads(stream)
    oldest = np.maximum(head - store.layout.capacity, 0)
    age = store.take("age", store.locate(stream, row))
    low = row - np.minimum(age, store.layout.history(last))
    inside: np.ndarray = (row >= oldest) & (low >= oldest) & (row < head)
    return inside, low


def has_state(store: Rings, stream: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Whether an unroll may start at rows [B]: the state is kept, or the network resets there or right after."""
    if not store.layout.core_state:
        return np.ones(len(row), bool)
    at = store.locate(stream, row)
    free = store.take("first", at) | ~store.take("valid", at)
    possible: np.ndarray = free | _find_state(store, stream, row, at)[1]
    return possible


def _unroll(store: Rings, rows: Rows, last: bool, source: np.ndarray | None) -> tuple[Unroll, np.ndarray]:
    """The unroll made of ``rows`` [T + 1, B], and whether its core state is there [B]."""
    inner = rows.at[:-1]
    core_state, kept = _core_state(store, rows)
    names = ("action", "reward", "discount", "terminated", "truncated", "param_version", "elapsed")
    columns: dict[str, Any] = {name: _tensor(store, name, inner) for name in names}
    columns |= _names(rows.stream, rows.row[0], source)
    unroll = Unroll(
        inputs=_inputs(store, rows, last),
        valid=_tensor(store, "valid", rows.at),
        extras={name: _tensor(store, f"extras/{name}", inner) for name in store.layout.extras},
        core_state=core_state,
        fresh=(0, 0),
        **columns,
    )
    return unroll, kept


def _inputs(store: Rings, rows: Rows, last: bool) -> Inputs:
    """What a network reads at ``rows`` [T, B], frame stacks rebuilt."""
    observation = {key: torch.from_numpy(_observation(store, key, rows)) for key in store.layout.observation}
    inputs = Inputs(observation, _tensor(store, "first", rows.at))
    if last:
        before = store.locate(rows.stream, rows.row - 1)
        action, reward = store.take("action", before), store.take("reward", before)
        start = rows.age == 0
        action[start] = 0
        reward[start] = 0
        inputs.last_action, inputs.last_reward = torch.from_numpy(action), torch.from_numpy(reward)
    return inputs


def _two(inputs: Inputs) -> tuple[Inputs, Inputs]:
    """What a network reads at two rows [2, B], as views of one row [1, B] each."""

    def part(i: int) -> Inputs:
        observation = {key: values[i : i + 1] for key, values in inputs.observation.items()}
        last = (None if values is None else values[i : i + 1] for values in (inputs.last_action, inputs.last_reward))
        return Inputs(observation, inputs.first[i : i + 1], *last)

    return part(0), part(1)


def _observation(store: Rings, key: str, rows: Rows) -> np.ndarray:
    """One observation at ``rows`` [T, B], stacked if it is a stacked one."""
    layout = store.layout
    if key not in layout.stacked:
        return store.take(f"observation/{key}", rows.at)
    spec, zero = layout.observation[key], layout.stack_padding == "zero"
    if packs(spec, layout.frame_stack):
        ring = store.column(f"observation/{key}")
        words = kernels.empty_words(*rows.row.shape, spec.shape[1] * spec.shape[2])
        flat = ring.reshape(len(ring), -1)
        stream, row, age = (np.ascontiguousarray(values, np.int64) for values in (rows.stream, rows.row, rows.age))
        gather = partial(kernels.gather_stacks, flat, layout.ring, stream, row, age, zero, words)
        share_out(gather, len(stream), torch.get_num_threads() if words.nbytes >= kernels.LARGE else 1)
        return unpack(words, spec.shape)
    source, padding = stack_rows(rows.row, rows.age, layout.frame_stack)  # [T, B, F]
    frames = store.take(f"observation/{key}", store.locate(rows.stream[:, None], source))  # [T, B, F, C, ...]
    if zero:
        frames[padding] = 0
    shape = spec.shape
    return frames.reshape(*rows.at.shape, layout.frame_stack * shape[0], *shape[1:])


def _core_state(store: Rings, rows: Rows) -> tuple[CoreState, np.ndarray]:
    """The states before ``rows[0]``, zeros where the network resets anyway; and whether they are there [B]."""
    layout = store.layout
    if not layout.core_state:
        return {}, np.ones(len(rows.stream), bool)
    row, at = rows.row[0], rows.at[0]
    free = store.take("first", at) | ~store.take("valid", at)
    slot, _ = _find_state(store, rows.stream, row, at)
    states: ArrayDict = {name: store.take(f"core/{name}", slot) for name in layout.core_state}
    _, kept = _find_state(store, rows.stream, row, at)  # again: a state overwritten while copied is none
    for values in states.values():
        values[~kept] = 0
    return {name: torch.from_numpy(values) for name, values in states.items()}, kept | free


def _find_state(store: Rings, stream: np.ndarray, row: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the states before rows [B] lie in the flattened state rings, and whether they are there."""
    slot = store.take("core_slot", at) - 1
    where = stream * store.layout.kept_states + np.maximum(slot, 0)
    return where, (slot >= 0) & (store.take("core_row", where) == row)


def _names(stream: np.ndarray, row: np.ndarray, source: np.ndarray | None) -> dict[str, torch.Tensor]:
    """The fields that name a batch's columns."""
    source = np.zeros(len(row), np.int64) if source is None else np.asarray(source, np.int64)
    named = {"stream": stream, "row": row, "source": source}
    return {name: torch.from_numpy(values.copy()) for name, values in named.items()}


def _tensor(store: Rings, name: str, at: np.ndarray) -> torch.Tensor:
    """A column's rows as a tensor of its own."""
    return torch.from_numpy(store.take(name, at))

"""What a stream's memory looks like: which arrays there are, how large they are, and the block that writers append.

Everything is allocated once, before anything runs; ``StreamLayout.describe`` says beforehand what it will take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from offbeat.types import UNROLL, ArrayDict, ArraySpec, EnvSpec, ItemSpec

INT64 = ArraySpec((), "int64")
BOOL = ArraySpec((), "bool")
FLOAT32 = ArraySpec((), "float32")
INT32 = ArraySpec((), "int32")

COUNTERS = ("head", "reserved", "produced", "lost", "core_count")
"""int64 [num_streams]: rows appended; rows appended or being written; rows produced; rows that died with their writer;
core states ever kept."""

CURSOR_COUNTERS = ("cursor/row", "cursor/taken", "cursor/in_flight", "cursor/trained", "cursor/skipped")
"""int64 [num_cursors, num_streams], in rows: released so far (writers may go on); handed out so far; handed out and not
yet trained on or skipped; trained on; skipped."""

UNCOUNTED = ("pace", "counted")
"""int64 [1]: rows per stream that rate control lets writers reach; 0: it lets them go on. int64 [num_streams, 2, 3]:
two sets of a head, the transitions among the rows below it and the environment steps that those took. The set of the
stream's head is the true one; writers fill in the other, so that counts change at the same moment as the head."""

SPARE_STATES = 4
"""Core states per stream beyond what the layout needs: a killed writer may have wasted some."""


@dataclass
class StreamBlock:
    """Consecutive rows of some streams, complete, and the observation that follows the last (the *open row*).

    Arrays are [n, L, ...]: n streams, L rows each. ``open_row`` holds observation, ``first`` and ``valid`` of the row
    after them: [n, ...]. ``core_state`` holds states to keep: for entry i the state before row ``core_row[i]`` (offset
    in the block) of ``streams[core_stream[i]]``.
    """

    streams: np.ndarray  # [n] int64
    columns: ArrayDict  # name -> [n, L, ...]
    open_row: ArrayDict  # name -> [n, ...]
    core_stream: np.ndarray  # [m] int64, index into ``streams``
    core_row: np.ndarray  # [m] int64, 0 <= offset < L
    core_state: ArrayDict  # name -> [m, ...]


@dataclass(frozen=True)
class StreamLayout:
    """The shape of all streams of a run. Names of columns: ``observation/<key>``, ``action``, ``extras/<name>``, ..."""

    observation: dict[str, ArraySpec]  # single frames, as EnvSpec.observation
    stacked: tuple[str, ...]  # keys shown as the newest ``frame_stack`` frames
    frame_stack: int
    stack_padding: Literal["zero", "repeat"]
    action: ArraySpec
    extras: dict[str, ArraySpec]  # behaviour extras of the agent
    core_state: dict[str, ArraySpec]  # shapes without batch; {} for feed-forward networks
    num_streams: int
    capacity: int  # readable rows per stream
    block: int  # longest block ever appended
    state_grid: int = 0  # keep the state before rows t with t % state_grid == 0; 0: none
    state_period: int = 0  # ... and before every so-many-th row of each episode; 0: none
    num_cursors: int = 0  # fifo cursors
    items: ItemSpec = UNROLL  # what is trained on

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        for name in ("num_streams", "capacity", "block", "frame_stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} of the streams must be at least 1")
        for key in self.stacked:
            if key not in self.observation or not self.observation[key].shape:
                raise ValueError(f"stacked observation {key!r} must be an observation with at least one axis")

    @property
    def ring(self) -> int:
        """Physical rows per stream: a block in the making and the open row never touch the readable rows."""
        return self.capacity + self.block + 1

    @property
    def kept_states(self) -> int:
        """Core states kept per stream: every one that may be due within the ring, and a few to spare."""
        if not self.core_state:
            return 0
        due = sum(-(-self.ring // every) for every in (self.state_grid, self.state_period) if every)
        return due + SPARE_STATES

    @property
    def state_gap(self) -> int:
        """Most rows in a row at which no unroll may start because no core state is kept before them."""
        every = [period for period in (self.state_grid, self.state_period) if period]
        return min(every) - 1 if self.core_state and every else 0

    def history(self, last: bool = True) -> int:
        """Most rows before a row that a reader of it needs: for stacks, and one for the last action and reward."""
        return max(self.frame_stack - 1 if self.stacked else 0, int(last))

    def columns(self) -> dict[str, ArraySpec]:
        """One spec per column that writers fill: name -> spec of one row."""
        named = {f"observation/{key}": spec for key, spec in self.observation.items()}
        named |= {"action": self.action, "reward": FLOAT32, "discount": FLOAT32, "terminated": BOOL, "truncated": BOOL}
        named |= {"first": BOOL, "valid": BOOL, "param_version": INT64, "elapsed": INT32}
        return named | {f"extras/{name}": spec for name, spec in self.extras.items()}

    def arrays(self) -> dict[str, ArraySpec]:
        """Every array that must be allocated, zeros, with its full shape: name -> spec."""
        rows = self.columns() | {"age": INT32}
        if self.core_state:
            rows["core_slot"] = INT64
        made = {name: _lead(spec, self.num_streams, self.ring) for name, spec in rows.items()}
        if self.core_state:
            states = {"core_row": INT64} | {f"core/{name}": spec for name, spec in self.core_state.items()}
            made |= {name: _lead(spec, self.num_streams, self.kept_states) for name, spec in states.items()}
        made |= {name: _lead(INT64, self.num_streams) for name in COUNTERS} | {"pace": _lead(INT64, 1)}
        made["counted"] = _lead(INT64, self.num_streams, 2, 3)
        if self.num_cursors:
            made |= {name: _lead(INT64, self.num_cursors, self.num_streams) for name in CURSOR_COUNTERS}
            made["cursor/lead"] = _lead(INT64, self.num_cursors)
        return made

    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(spec.nbytes for spec in self.arrays().values())

    def describe(self) -> str:
        """Text: what takes how much memory."""
        groups: dict[str, int] = {}
        for name, spec in self.arrays().items():
            group = name if name.startswith("observation/") else name.split("/")[0]
            group = group if group.startswith(("observation", "extras", "core")) else "everything else"
            group = "core states" if group.startswith("core") else group
            groups[group] = groups.get(group, 0) + spec.nbytes
        parts = sorted(groups.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{name} {_readable(size)}" for name, size in parts)
        return (
            f"streams: {_readable(self.nbytes())} for {self.num_streams} streams of {self.capacity:,} rows "
            f"({self.num_streams * self.capacity:,} agent steps): {listed}"
        )

    def state_due(self, row: np.ndarray, since_first: np.ndarray) -> np.ndarray:
        """Whether the state before these rows must be kept: [n] bool.

        ``row`` [n] int64 is absolute, ``since_first`` [n] int64 counts rows since the episode's first (0 there). An
        episode's first row needs no kept state for its own sake: the network resets there.
        """
        due = np.zeros(np.shape(row), bool)
        if self.core_state and self.state_grid:
            due |= np.asarray(row) % self.state_grid == 0
        if self.core_state and self.state_period:
            due |= (np.asarray(since_first) > 0) & (np.asarray(since_first) % self.state_period == 0)
        return due


class ReplaySize(Protocol):
    """What a layout needs to know of a run's ``ReplayConfig``."""

    @property
    def capacity(self) -> int:
        """Rows that are kept, all streams together."""

    @property
    def samplers(self) -> tuple[Any, ...]:
        """Their configurations."""


def layout_for(
    spec: EnvSpec,
    agent_extras: Mapping[str, ArraySpec],
    core_state: Mapping[str, ArraySpec],
    *,
    num_streams: int,
    replay: ReplaySize,
    unroll_length: int,
    block: int = 0,
    state_period: int = 0,
    items: ItemSpec = UNROLL,
) -> StreamLayout:
    """The layout of a run: as many rows per stream as ``replay`` asks for, or just what its fifos need.

    ``block`` is the longest block of rows that a writer appends (0: ``unroll_length``). ``items``: what is trained on.
    Raises ValueError where the capacity is too small for the samplers.
    """
    block = block or unroll_length
    leads = [getattr(sampler, "max_pending", 1) * unroll_length for sampler in replay.samplers if sampler.paces]
    deep = spec.frame_stack - 1 if spec.stacked else 0
    ahead = unroll_length if core_state else 0  # within that many rows there is a start with a kept state
    if leads:
        ahead = max(leads)
        _check_lead(min(leads), unroll_length, block)
    need = ahead + unroll_length + max(deep, 1)
    if items.kind == "unroll":
        _check_burn_in(items.burn_in, unroll_length)
        items = replace(items, length=unroll_length)
        need += items.burn_in
    else:
        need = items.reach + max(deep, 1) + block
        state_period = items.state_period
    capacity = -(-replay.capacity // num_streams)
    if replay.capacity and capacity < need:
        raise ValueError(
            f"replay.capacity={replay.capacity} gives {capacity} rows to each of {num_streams} streams, but the "
            f"samplers need at least {need}; use {need * num_streams} or more"
        )
    return StreamLayout(
        observation=dict(spec.observation),
        stacked=spec.stacked if spec.frame_stack > 1 else (),
        frame_stack=spec.frame_stack,
        stack_padding=spec.stack_padding,
        action=spec.action.array,
        extras=dict(agent_extras),
        core_state=dict(core_state),
        num_streams=num_streams,
        capacity=-(-max(capacity, need) // block) * block,
        block=block,
        state_grid=unroll_length if core_state and items.kind == "unroll" else 0,
        state_period=state_period,
        num_cursors=len(leads),
        items=items,
    )


def _check_burn_in(rows: int, unroll_length: int) -> None:
    """Refuse rows before an unroll that begin where no state is kept."""
    if rows % unroll_length:
        raise ValueError(
            f"the agent asks for {rows} rows before each unroll, but states are kept where unrolls begin; use a "
            f"multiple of learner.unroll_length={unroll_length}"
        )


def _check_lead(lead: int, length: int, block: int) -> None:
    """Refuse blocks for which writer and fifo would wait for each other for ever."""
    need = max(length, block) if length % block == 0 or block % length == 0 else length + block - 1
    if lead < need:
        raise ValueError(
            f"max_pending={lead // length} lets writers be {lead} rows ahead, but blocks of {block} rows need {need}; "
            f"use max_pending={-(-need // length)} or more"
        )


def _lead(spec: ArraySpec, *lead: int) -> ArraySpec:
    """The spec of an array of ``spec`` with leading axes."""
    return ArraySpec((*lead, *spec.shape), spec.dtype)


def _readable(size: float) -> str:
    """Bytes as text for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"

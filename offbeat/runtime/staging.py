"""Where an actor collects rows until a block is full: one row per step and environment, completed by the next step."""

from __future__ import annotations

import numpy as np

from offbeat.envs.rows import in_order
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.types import ArrayDict, ArraySpec, CoreState, EnvStep

NOBODY = np.zeros(0, np.int64)
"""No environments."""


class Staging:
    """Unfinished blocks of ``length`` rows for K environments, each at a position of its own.

    Where all environments are at one position and come in their order (``env_ids`` are ``in_order`` itself), columns
    are written at one index; else at one for each environment.

    The order of calls for some environments: ``complete`` (what the last action led to), ``take`` (full blocks),
    ``open`` (the new row), ``keep`` where a state is due, ``act`` (action and extras of that row).

    Args:
        layout: columns of the streams.
        streams: stream of each environment, [K] int64.
        length: rows per block.
        discount: gamma.
    """

    def __init__(self, layout: StreamLayout, streams: np.ndarray, length: int, discount: float) -> None:
        self.streams, self.length, self.discount = streams, length, discount
        self.layout = layout
        count = len(streams)
        specs = {f"observation/{key}": spec for key, spec in layout.observation.items()}
        specs |= {"action": layout.action, "reward": ArraySpec(()), "discount": ArraySpec(())}
        specs |= {name: ArraySpec((), "bool") for name in ("terminated", "truncated", "first", "valid")}
        specs |= {"param_version": ArraySpec((), "int64"), "elapsed": ArraySpec((), "int32")}
        specs |= {f"extras/{name}": spec for name, spec in layout.extras.items()}
        self.columns: ArrayDict = {name: spec.zeros(count, length) for name, spec in specs.items()}
        self.position = np.zeros(count, np.int64)
        self.row = np.zeros(count, np.int64)  # absolute index of position 0
        self.since_first = np.zeros(count, np.int64)
        self._everyone = in_order(count)
        self._even: int | None = 0  # the position of all; None: they differ
        self._observed = {key: self.columns[f"observation/{key}"] for key in layout.observation}
        self._extras = {name: self.columns[f"extras/{name}"] for name in layout.extras}
        self._kept: dict[str, list[np.ndarray]] = {}
        self._forget_states()

    def _forget_states(self) -> None:
        names = ("env", "offset", *(f"core/{name}" for name in self.layout.core_state))
        self._kept = {name: [] for name in names}

    def complete(self, step: EnvStep) -> np.ndarray:
        """Fill in what the previous row's action led to; [m] the environments whose block is now full."""
        ids, at = step.env_ids, self._even
        if ids is self._everyone and at is not None:
            if at:
                self._complete((slice(None), at - 1), step, slice(None))
            return ids if at == self.length else NOBODY
        begun = self.position[ids] > 0
        among = slice(None) if begun.all() else begun  # nothing led to an environment's very first row
        ids = ids[among]
        self._complete((ids, self.position[ids] - 1), step, among)
        full: np.ndarray = ids[self.position[ids] == self.length]
        return full

    def _complete(
        self, place: tuple[np.ndarray | slice, np.ndarray | int], step: EnvStep, among: np.ndarray | slice
    ) -> None:
        """Fill in the rows at ``place`` what ``among`` the rows of ``step`` says."""
        columns, terminated = self.columns, step.terminated[among]
        acted = columns["valid"][place]
        alive = acted & ~terminated
        columns["reward"][place] = np.where(acted, step.reward[among], 0.0)
        columns["terminated"][place] = terminated & acted
        columns["truncated"][place] = step.truncated[among] & acted
        columns["elapsed"][place] = elapsed = 1 if step.elapsed is None else step.elapsed[among]
        columns["discount"][place] = np.where(alive, np.power(self.discount, elapsed), 0.0)

    def take(self, ids: np.ndarray, step: EnvStep) -> StreamBlock:
        """The full blocks of environments ``ids`` with the rows of ``step`` as open rows. Append it before ``open``:
        it may hold views.
        """
        whole = ids is self._everyone
        among = slice(None) if len(ids) == len(step.env_ids) else np.isin(step.env_ids, ids)
        open_row = {f"observation/{key}": value[among] for key, value in step.observation.items()}
        open_row |= {"first": step.first[among], "valid": step.valid[among]}
        chosen = slice(None) if whole or np.array_equal(ids, self._everyone) else ids  # all in order: views, no copies
        core_stream, core_row, core_state = self._take_states(ids)
        block = StreamBlock(
            streams=self.streams[ids],
            columns={name: column[chosen] for name, column in self.columns.items()},
            open_row=open_row,
            core_stream=core_stream,
            core_row=core_row,
            core_state=core_state,
        )
        self.position[ids] = 0
        self.row[ids] += self.length
        self._look()
        return block

    def _look(self) -> None:
        """Note whether all environments are at one position now."""
        first = int(self.position[0])
        self._even = first if bool((self.position == first).all()) else None

    def _take_states(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, ArrayDict]:
        """The states kept for these environments, as the last three fields of a block; the others stay."""
        if not self._kept["env"]:
            nothing = np.zeros(0, np.int64)
            empty = {name: spec.zeros(0) for name, spec in self.layout.core_state.items()}
            return nothing, nothing, empty
        kept = {name: np.concatenate(parts) for name, parts in self._kept.items()}
        index = np.full(len(self.streams), -1, np.int64)
        index[ids] = np.arange(len(ids))
        ours = index[kept["env"]] >= 0
        self._forget_states()
        if not ours.all():
            for name, values in kept.items():
                self._kept[name].append(values[~ours])
        state = {name: kept[f"core/{name}"][ours] for name in self.layout.core_state}
        return index[kept["env"][ours]], kept["offset"][ours], state

    def _place(self, ids: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray | int]:
        """Where the open rows of environments ``ids`` are in the columns."""
        if ids is self._everyone and self._even is not None:
            return slice(None), self._even
        return ids, self.position[ids]

    def open(self, step: EnvStep) -> None:
        """Begin the row of ``step``: observation, ``first``, ``valid``."""
        place = self._place(step.env_ids)
        for key, value in step.observation.items():
            self._observed[key][place] = value
        self.columns["first"][place] = step.first
        self.columns["valid"][place] = step.valid
        self.since_first[step.env_ids[step.first]] = 0

    def due(self, ids: np.ndarray) -> np.ndarray:
        """[m] the environments among ``ids`` whose state before the open row must be kept."""
        if not self.layout.core_state:
            return ids[:0]
        due: np.ndarray = ids[self.layout.state_due(self.row[ids] + self.position[ids], self.since_first[ids])]
        return due

    def keep(self, ids: np.ndarray, state: CoreState) -> None:
        """Keep the state [m, ...] before the open row of environments ``ids``."""
        if len(ids):
            self._kept["env"].append(ids.copy())
            self._kept["offset"].append(self.position[ids].copy())
            for name, value in state.items():
                self._kept[f"core/{name}"].append(value.cpu().numpy().copy())

    def act(self, ids: np.ndarray, action: np.ndarray, extras: ArrayDict, version: int) -> None:
        """Write what was done at the open row and move on."""
        place = self._place(ids)
        self.columns["action"][place] = action
        self.columns["param_version"][place] = version
        for name, value in extras.items():
            self._extras[name][place] = value
        if ids is self._everyone:
            self.position += 1
            self.since_first += 1
            self._even = None if self._even is None else self._even + 1
        else:
            self.position[ids] += 1
            self.since_first[ids] += 1
            self._look()

    def adopt(self, rows: ArrayDict) -> None:
        """Go on after another writer's death: its open rows become final observations, so its episodes are cut
        there.
        """
        for name, value in rows.items():
            self.columns[name][:, 0] = value
        self.columns["valid"][:, 0] = False
        for name, column in self.columns.items():
            if name not in rows:
                column[:, 0] = 0
        self.keep_zero_states()
        self.position[:] = self._even = 1
        self.since_first += 1

    def keep_zero_states(self) -> None:
        """States for adopted rows: the dead writer took the real ones along; the row after resets them anyway."""
        due = self.due(np.arange(len(self.streams)))
        if len(due):
            self._kept["env"].append(due)
            self._kept["offset"].append(np.zeros(len(due), np.int64))
            for name, spec in self.layout.core_state.items():
                self._kept[f"core/{name}"].append(spec.zeros(len(due)))

    def state(self, open_rows: bool = False) -> ArrayDict:
        """What must be saved between two blocks (every position 0); ``open_rows``: or anywhere, without a core."""
        saved = {"row": self.row.copy(), "since_first": self.since_first.copy()}
        if open_rows and not self._kept["env"]:
            saved |= {f"columns/{name}": column.copy() for name, column in self.columns.items()}
            return saved | {"position": self.position.copy()}
        if self.position.any() or self._kept["env"]:
            raise ValueError("staging can only be saved at a block boundary")
        return saved

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state."""
        self.row[:], self.since_first[:] = state["row"], state["since_first"]
        self.position[:] = state.get("position", 0)
        for name, column in self.columns.items():
            column[...] = state.get(f"columns/{name}", column)
        self._look()
        self._forget_states()

"""A naive twin of the streams: every row ever made, as dicts in lists; stacks and last actions as acted on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.types import ArraySpec

Row = dict[str, Any]


def image_layout(**changes: Any) -> StreamLayout:
    """A small layout with stacked images, discrete actions and a recurrent state; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "observation": {"observation": ArraySpec((1, 2, 3), "uint8")},
        "stacked": ("observation",),
        "frame_stack": 4,
        "stack_padding": "zero",
        "action": ArraySpec((), "int64"),
        "extras": {"behaviour_logits": ArraySpec((3,))},
        "core_state": {"h": ArraySpec((2,)), "c": ArraySpec((1, 2))},
        "num_streams": 3,
        "capacity": 23,
        "block": 5,
        "state_grid": 5,
        "state_period": 3,
    }
    return StreamLayout(**(fields | changes))


def dict_layout(**changes: Any) -> StreamLayout:
    """Dictionary observations: a stacked two-channel image and a vector; continuous actions; no recurrent state."""
    fields: dict[str, Any] = {
        "observation": {"image": ArraySpec((2, 3, 2), "uint8"), "vector": ArraySpec((4,))},
        "stacked": ("image",),
        "frame_stack": 3,
        "stack_padding": "repeat",
        "action": ArraySpec((2,), "float32"),
        "extras": {"behaviour_log_prob": ArraySpec(()), "value": ArraySpec(())},
        "core_state": {},
    }
    return image_layout(**(fields | changes))


def vector_layout(**changes: Any) -> StreamLayout:
    """A vector as observation, no stacks; states only at every fourth row of an episode."""
    fields: dict[str, Any] = {
        "observation": {"observation": ArraySpec((3,))},
        "stacked": (),
        "frame_stack": 1,
        "extras": {},
        "state_grid": 0,
        "state_period": 4,
    }
    return image_layout(**(fields | changes))


LAYOUTS = {"image": image_layout, "dict": dict_layout, "vector": vector_layout}


@dataclass
class TwinStream:
    """One stream: complete rows, the rows that its writer still holds, and the open row."""

    rows: list[Row] = field(default_factory=list)  # appended
    hand: list[Row] = field(default_factory=list)  # complete, not appended
    open: Row = field(default_factory=dict)
    appended_open: Row | None = None
    lost: int = 0


class Twin:
    """Random environments behind ``layout`` and everything that happened to them."""

    def __init__(self, layout: StreamLayout, rng: np.random.Generator, end: float = 0.15) -> None:
        self.layout, self.rng, self.end = layout, rng, end
        self.streams = [TwinStream() for _ in range(layout.num_streams)]
        for stream in self.streams:
            stream.open = self._row(first=True)

    def step(self, s: int) -> None:
        """Act once on stream ``s``: complete its open row and open the next."""
        stream, row, rng = self.streams[s], self.streams[s].open, self.rng
        row |= {name: self._random(self.layout.columns()[name]) for name in ("action", "param_version")}
        row |= {f"extras/{name}": self._random(spec) for name, spec in self.layout.extras.items()}
        row |= {"reward": np.float32(0), "discount": np.float32(0), "terminated": False, "truncated": False}
        row["elapsed"] = int(rng.integers(1, 4))
        ended = False
        if row["valid"]:
            row["reward"] = np.float32(rng.normal())
            row["terminated"] = bool(rng.random() < self.end)
            row["truncated"] = not row["terminated"] and bool(rng.random() < self.end / 2)
            row["discount"] = np.float32(0 if row["terminated"] else 0.9 ** row["elapsed"])
            ended = row["truncated"] or (row["terminated"] and rng.random() < 0.6)  # else a life was lost
        stream.hand.append(row)
        stream.open = self._row(first=not row["valid"], valid=not ended, before=row)

    def block(self, streams: list[int], length: int) -> StreamBlock:
        """The next ``length`` rows in hand of these streams as a block; they count as appended."""
        parts = [self.streams[s].hand[:length] for s in streams]
        opened = []
        states: list[tuple[int, int, dict[str, np.ndarray]]] = []
        for n, s in enumerate(streams):
            stream = self.streams[s]
            for offset, row in enumerate(parts[n]):
                if self._due(len(stream.rows) + offset, row):
                    row["kept"] = True
                    states.append((n, offset, row["core"]))
            stream.rows += parts[n]
            stream.hand = stream.hand[length:]
            stream.appended_open = stream.hand[0] if stream.hand else stream.open
            opened.append(stream.appended_open)
        self.rng.shuffle(states)  # type: ignore[arg-type]
        columns = {
            name: np.array([[row[name] for row in part] for part in parts], spec.dtype)
            for name, spec in self.layout.columns().items()
        }
        names = [f"observation/{key}" for key in self.layout.observation] + ["first", "valid"]
        return StreamBlock(
            np.array(streams),
            columns,
            {name: np.array([row[name] for row in opened]) for name in names},
            np.array([n for n, _, _ in states], np.int64),
            np.array([offset for _, offset, _ in states], np.int64),
            {
                name: np.array([state[name] for _, _, state in states], np.float32).reshape(-1, *spec.shape)
                for name, spec in self.layout.core_state.items()
            },
        )

    def die(self, s: int) -> None:
        """The writer of ``s`` dies; a new one cuts the episode at the open row that the old one appended last."""
        stream = self.streams[s]
        stream.lost += len(stream.hand)
        stream.hand = []
        if stream.appended_open is None:
            stream.open = self._row(first=True)
            return
        stream.open = {key: value for key, value in stream.appended_open.items() if key != "kept"}
        stream.open |= {"valid": False, "core": self._core()}
        self.step(s)

    def _due(self, t: int, row: Row) -> bool:
        grid, period = self.layout.state_grid, self.layout.state_period
        on_period = bool(period) and row["age"] > 0 and row["age"] % period == 0
        return bool(self.layout.core_state) and ((bool(grid) and t % grid == 0) or on_period)

    def _row(self, first: bool, valid: bool = True, before: Row | None = None) -> Row:
        """A new open row; ``before`` is the row whose action led here."""
        row: Row = {"first": first, "valid": valid, "core": self._core()}
        row["age"] = 0 if first or before is None else before["age"] + 1
        fresh = row["age"] == 0
        row["last_action"] = np.zeros(self.layout.action.shape) if fresh or before is None else before["action"]
        row["last_reward"] = np.float32(0) if fresh or before is None else before["reward"]
        row["seen"] = {}
        for key, spec in self.layout.observation.items():
            row[f"observation/{key}"] = frame = self._random(spec)
            if key in self.layout.stacked:
                depth = self.layout.frame_stack
                padding = np.zeros_like(frame) if self.layout.stack_padding == "zero" else frame
                frames = [padding] * depth if fresh or before is None else before[f"frames/{key}"]
                row[f"frames/{key}"] = [*frames[1:], frame]
                row["seen"][key] = np.concatenate(row[f"frames/{key}"])
            else:
                row["seen"][key] = frame
        return row

    def _core(self) -> dict[str, np.ndarray]:
        return {name: self._random(spec) for name, spec in self.layout.core_state.items()}

    def _random(self, spec: ArraySpec) -> Any:
        if np.dtype(spec.dtype).kind == "f":
            return self.rng.normal(size=spec.shape).astype(spec.dtype)
        return self.rng.integers(1, 256, size=spec.shape).astype(spec.dtype)


class TwinReader:
    """What a reader must give for one start, worked out row by row; None where it must say no."""

    def __init__(self, twin: Twin, last: bool) -> None:
        self.layout, self.streams, self.last = twin.layout, twin.streams, last

    def row(self, s: int, t: int) -> Row | None:
        """Row ``t``, the open row included."""
        stream = self.streams[s]
        if 0 <= t < len(stream.rows):
            return stream.rows[t]
        return stream.appended_open if t == len(stream.rows) else None

    def inside(self, s: int, t: int) -> bool:
        """Whether row ``t`` and all that its stack and last action need are in the window."""
        head = len(self.streams[s].rows)
        oldest = max(0, head - self.layout.capacity)
        need = max(self.layout.frame_stack - 1 if self.layout.stacked else 0, int(self.last))
        if not oldest <= t < head:
            return False
        while need and self.streams[s].rows[t]["age"] > 0:
            t, need = t - 1, need - 1
        return t >= oldest

    def core(self, s: int, t: int) -> dict[str, np.ndarray] | None:
        """The state before row ``t``: zeros where the network resets; None where it is missing."""
        row = self.streams[s].rows[t]
        if row.get("kept"):
            return row["core"]
        if row["first"] or not row["valid"]:
            return {name: np.zeros(spec.shape, np.float32) for name, spec in self.layout.core_state.items()}
        return None if self.layout.core_state else {}

    def unroll(self, s: int, t: int, length: int) -> list[Row] | None:
        """The rows of an unroll, the observation after it last."""
        if not self.inside(s, t) or t + length > len(self.streams[s].rows) or self.core(s, t) is None:
            return None
        return [self.row(s, t + i) for i in range(length + 1)]  # type: ignore[misc]

    def transition(self, s: int, t: int, n: int) -> tuple[Row, float, float, int, Row] | None:
        """First row, summed reward, discount, steps, and the row bootstrapped from."""
        if not self.inside(s, t) or not self.streams[s].rows[t]["valid"]:
            return None
        total, product = 0.0, 1.0
        for i in range(n):
            if t + i >= len(self.streams[s].rows):
                return None
            row, then = self.row(s, t + i), self.row(s, t + i + 1)
            assert row is not None
            assert then is not None
            total += product * float(row["reward"])
            product *= float(row["discount"])
            if row["terminated"] or not then["valid"] or then["first"] or i == n - 1:
                return self.streams[s].rows[t], total, product, i + 1, then
        raise AssertionError

    def sequence(self, s: int, t: int, total: int) -> tuple[list[Row], int] | None:
        """The rows of one episode, its final observation repeated up to ``total + 1`` rows, and how many are real."""
        if not self.inside(s, t) or self.core(s, t) is None or not self.streams[s].rows[t]["valid"]:
            return None
        rows: list[Row] = []
        for i in range(total + 1):
            row = self.row(s, t + i)
            if row is None:
                return None
            rows.append(row)
            if not row["valid"]:
                break
        real = len(rows)
        return rows + [rows[-1]] * (total + 1 - real), real

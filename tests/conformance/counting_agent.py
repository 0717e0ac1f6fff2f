"""The counting agent: its weights are the number of updates, its state counts rows, its extras record what it saw.

``loss`` runs inside the learner and compares every unroll it gets with what the counting environment must have given.
The first thing that is wrong raises, and so ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.envs.counting import counting_reward
from offbeat.types import OBSERVATION, UNROLL, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, Unroll
from tests.conformance.counting_env import FRAME, STACK

WEIGHTS = 257
"""Weights of the agent: all of them hold the number of updates, so that a torn vector shows."""
DISCOUNT = 0.5


@dataclass(frozen=True)
class Allowed:
    """What a run may do that is otherwise a violation."""

    cuts: bool = False
    """Episodes may be cut because their actor died."""
    skips: bool = False
    """The fifo may leave out whole unrolls."""
    rebuilds: bool = False
    """The learner may have died: another one has weights of before, and begins in the middle of the streams."""
    updates_per_round: int = 0
    """Row t must have been acted on with version ``t // T`` times this; 0: with any version up to the learner's."""


class CountingAgent:
    """Acts at random, learns nothing, checks everything."""

    def __init__(self, config: Any, spec: EnvSpec, device: Any = "cpu", allowed: Allowed | None = None) -> None:
        self.config, self.spec = config, spec
        self.network: nn.Module = nn.ParameterDict({"updates": nn.Parameter(torch.zeros(WEIGHTS))}).to(device)
        self.discount, self.wants_last, self.items = DISCOUNT, True, UNROLL
        self.checks = Checks(allowed or Allowed())

    def initial_state(self, batch: int) -> CoreState:
        """Rows since the episode's first one."""
        return {"count": torch.zeros(batch, 1)}

    def row_extras(self) -> dict[str, ArraySpec]:
        """All that ``act`` was shown, and the weights it acted with."""
        return {
            "seen": ArraySpec((3,)),
            "stack": ArraySpec((STACK, 2)),
            "count": ArraySpec(()),
            "first": ArraySpec((), "bool"),
            "last_action": ArraySpec((), "int64"),
            "last_reward": ArraySpec(()),
            "version": ArraySpec((2,)),
            "action": ArraySpec((), "int64"),
        }

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """A random action."""
        first = inputs.first[0]
        count = state["count"].masked_fill(first[:, None], 0.0)
        action = torch.randint(self.spec.action.num_actions, first.shape, generator=generator)
        updates = self._weights()
        assert inputs.last_action is not None
        assert inputs.last_reward is not None
        extras = {
            "seen": inputs.observation[OBSERVATION][0],
            "stack": inputs.observation[FRAME][0].clone(),
            "count": count[:, 0],
            "first": first,
            "last_action": inputs.last_action[0],
            "last_reward": inputs.last_reward[0],
            "version": torch.stack([updates.min(), updates.max()]).expand(len(first), 2),
            "action": action,
        }
        return ActOutput(action, extras, {"count": count + 1})

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Check the batch, count the update; the gradient is zero."""
        weights = self._weights()
        self.checks.batch(batch, version=int(weights[0]))
        with torch.no_grad():
            weights += 1
        counts = {"checked_rows": self.checks.rows, "restarts": self.checks.restarts}
        return LossOutput(weights.sum() * 0.0, {name: torch.tensor(float(count)) for name, count in counts.items()})

    def _weights(self) -> Tensor:
        return self.network.get_parameter("updates")


class Checks:
    """What every unroll must be, given those before it."""

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed
        self.rows = 0
        self.restarts = 0
        self._next: dict[int, dict[str, Any]] = {}  # stream -> the row that its next fifo unroll begins with

    def batch(self, batch: Unroll, version: int) -> None:
        """Check every column; ``version``: updates of the learner so far."""
        length, width = batch.reward.shape
        ids = [(int(batch.stream[b]), int(batch.row[b])) for b in range(width) if int(batch.source[b]) == 0]
        assert len({stream for stream, _ in ids}) == len(ids), f"one stream twice in a batch: {ids}"
        for b in range(width):
            column = Column(batch, b)
            try:
                self._column(column, int(batch.source[b]) == 0, version)
            except AssertionError as error:
                where = f"stream {column.stream}, rows {column.row} to {column.row + length}"
                raise AssertionError(f"{where}, learner at {version}: {error}") from error
        self.rows += length * width

    def _column(self, c: Column, fifo: bool, version: int) -> None:
        before = self._before(c) if fifo else None
        cut, restarted = c.cuts(before), c.restarts()
        assert self.allowed.cuts or not (cut.any() or restarted.any()), f"cut at {cut} although no actor died"
        assert restarted[cut[:-1]].all(), f"cuts {cut}, but another environment starts after {restarted}"
        self.restarts += int(restarted.sum())
        check_order(c, restarted)
        check_rewards(c, cut)
        check_inputs(c, before)
        check_records(c, ~restarted, self.allowed.rebuilds)
        if not (cut[0] or c.first[0]) and (fifo or c.valid[0]):  # a replayed final row needs no state: the next resets
            dead = len(restarted) and restarted[0]
            assert c.core == (0 if dead else c.step[0]), f"core state {c.core} before step {c.step[0]}"
        self._versions(c, ~restarted, version)
        if not self.allowed.cuts:
            want = c.row + np.arange(len(c.seen))
            assert (c.seen[:, 2] == want).all(), f"rows of the environment {c.seen[:, 2]}, of the stream {want}"
        if fifo:
            self._next[c.stream] = c.end()

    def _before(self, c: Column) -> dict[str, Any] | None:
        """The end of this stream's last unroll, which this one must go on from."""
        before = self._next.get(c.stream)
        expected = before["row"] if before else 0
        if self.allowed.rebuilds and before is None and c.row > 0 and c.row % len(c.action) == 0:
            return None
        if self.allowed.skips and c.row > expected and (c.row - expected) % len(c.action) == 0:
            return None
        assert c.row == expected, f"begins with row {c.row}, expected {expected}"
        if before is None:
            assert c.first[0] or (self.allowed.cuts and not c.valid[0]), "the stream's first row starts no episode"
            return None
        assert (c.seen[0] == before["seen"]).all(), f"observation {c.seen[0]}, shown as the last one {before['seen']}"
        assert c.first[0] == before["first"]
        return before

    def _versions(self, c: Column, acted: np.ndarray, version: int) -> None:
        own = c.version[acted]
        assert self.allowed.rebuilds or (own <= version).all(), f"acted with versions {own}"
        assert (own >= 0).all(), f"acted with versions {own}"
        assert (np.diff(own) >= 0).all(), f"versions went back: {own}"
        if self.allowed.updates_per_round:
            want = (c.row + np.arange(len(c.action))) // len(c.action) * self.allowed.updates_per_round
            assert (c.version == want).all(), f"acted with versions {c.version}, the schedule says {want}"


class Column:
    """One unroll of a batch as NumPy arrays; the inputs have one row more."""

    def __init__(self, batch: Unroll, b: int) -> None:
        def one(tensor: Tensor | None) -> np.ndarray:
            assert tensor is not None
            return tensor[:, b].cpu().numpy()

        self.stream, self.row = int(batch.stream[b]), int(batch.row[b])
        self.seen, self.stack = one(batch.inputs.observation[OBSERVATION]), one(batch.inputs.observation[FRAME])
        self.step = self.seen[:, 0]
        self.first, self.valid = one(batch.inputs.first), one(batch.valid)
        self.last_action, self.last_reward = one(batch.inputs.last_action), one(batch.inputs.last_reward)
        self.action, self.reward, self.discount = one(batch.action), one(batch.reward), one(batch.discount)
        self.terminated, self.truncated = one(batch.terminated), one(batch.truncated)
        self.version = one(batch.param_version)
        self.extras = {name: one(value) for name, value in batch.extras.items()}
        self.core = float(batch.core_state["count"][b, 0])

    @property
    def ended(self) -> np.ndarray:
        """[T] bool: the action ended the episode."""
        return self.terminated | self.truncated

    def cuts(self, before: dict[str, Any] | None) -> np.ndarray:
        """[T + 1] bool: final rows of episodes that no action ended."""
        ended = np.concatenate([[before["ended"] if before else True], self.ended])
        return ~self.valid & ~ended

    def restarts(self) -> np.ndarray:
        """[T] bool: the row closed what a dead actor left; the row after it is the first of a new environment."""
        return ~self.valid[:-1] & (self.seen[1:] == 0).all(1)

    def end(self) -> dict[str, Any]:
        """What the next unroll of this stream begins with."""
        return {
            "row": self.row + len(self.action), "seen": self.seen[-1], "first": self.first[-1], "ended": self.ended[-1],
            "action": self.action[-1], "reward": self.reward[-1],
        }  # fmt: skip


def check_order(c: Column, restarted: np.ndarray) -> None:
    """Rows follow each other; episodes end in one row without a transition."""
    assert (c.first[1:] == ~c.valid[:-1]).all(), f"first {c.first}, valid {c.valid}"
    assert (np.diff(c.seen[:, 2])[~restarted] == 1).all(), f"rows {c.seen[:, 2]}"
    assert (np.diff(c.seen[:, 1])[~restarted] == c.first[1:][~restarted]).all(), f"episodes {c.seen[:, 1]}"
    assert (c.step[c.first] == 0).all(), f"steps {c.step}, first {c.first}"
    assert (np.diff(c.step)[~c.first[1:]] == 1).all(), f"steps {c.step}"


def check_rewards(c: Column, cut: np.ndarray) -> None:
    """Reward, discount and ends came from this row's action."""
    valid = c.valid[:-1]
    want = np.where(valid, counting_reward(c.seen[:-1, 2].astype(np.int64), c.action), 0.0)
    assert (c.reward == want).all(), f"rewards {c.reward}, expected {want}"
    want = np.where(valid & ~c.terminated, DISCOUNT, 0.0)
    assert (c.discount == want).all(), f"discounts {c.discount}, expected {want}"
    assert not (c.terminated & c.truncated).any()
    assert not c.ended[~valid].any(), "a row without a transition ends an episode"
    ends = ~c.valid[1:] & ~cut[1:]
    assert (c.ended[valid] == ends[valid]).all(), f"ended {c.ended}, valid {c.valid}"


def check_inputs(c: Column, before: dict[str, Any] | None) -> None:
    """Last actions, last rewards and stacks as the network reads them."""
    for name, own in (("action", c.action), ("reward", c.reward)):
        got = getattr(c, f"last_{name}")
        want = np.concatenate([[before[name] if before else got[0]], own])
        want = np.where(c.first, 0, want)
        assert (got == want).all(), f"last {name}s {got}, expected {want}"
    for back in range(STACK):
        there = c.step >= back
        frame = np.where(there[:, None], c.seen[:, [2, 0]] + 1 - back, 0)
        got = c.stack[:, STACK - 1 - back]
        assert (got == frame).all(), f"frames {back} back: {got.tolist()}, expected {frame.tolist()}"


def check_records(c: Column, acted: np.ndarray, rebuilds: bool) -> None:
    """The extras are those of this row: what was acted on is what is learnt from. Nobody acted where not ``acted``.

    ``rebuilds``: updates may have been lost, so that versions are higher than weights.
    """
    recorded = {
        "seen": c.seen, "stack": c.stack, "count": c.step, "first": c.first, "last_action": c.last_action,
        "last_reward": c.last_reward,
    }  # fmt: skip
    for name, values in recorded.items():
        own = c.extras[name]
        assert (own[acted] == values[:-1][acted]).all(), f"acted on {name} {own.tolist()}, got {values.tolist()}"
    assert (c.extras["action"][acted] == c.action[acted]).all()
    versions = c.extras["version"][acted]
    assert (versions[:, 0] == versions[:, 1]).all(), f"torn weights {versions.tolist()}"
    same = versions[:, 0] <= c.version[acted] if rebuilds else versions[:, 0] == c.version[acted]
    assert same.all(), f"weights {versions.tolist()}, version {c.version}"

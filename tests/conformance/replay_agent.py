"""The counting agents that replay: on transitions and on sequences. What they act is known from what they see.

``loss`` compares every item it gets with what the counting environment must have given, and its importance weight with
the priority that it fed back for that very item the last time. The first thing that is wrong raises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.envs.counting import NUM_ACTIONS, counting_reward
from offbeat.types import (
    OBSERVATION,
    ActOutput,
    ArraySpec,
    CoreState,
    EnvSpec,
    Inputs,
    ItemSpec,
    LossOutput,
    Sequence,
    Transition,
)
from tests.conformance.counting_agent import DISCOUNT, WEIGHTS
from tests.conformance.counting_env import FRAME, STACK

ITEMS = {
    "transition": ItemSpec("transition", n=3),
    "sequence": ItemSpec("sequence", n=2, length=3, burn_in=2, period=2),
}


def action_of(row: np.ndarray) -> np.ndarray:
    """What is done at row ``row`` of the environment."""
    return (5 * row + row // 3) % NUM_ACTIONS


def priority_of(stream: np.ndarray, row: np.ndarray, updates: int) -> np.ndarray:
    """What is fed back for an item in update ``updates``: in (0, 1), so that new items keep the largest, which is 1."""
    return 0.1 + (31 * stream + 7 * row + 13 * updates) % 17 / 20


class ReplayingAgent:
    """Learns nothing, checks everything."""

    def __init__(self, config: Any, spec: EnvSpec, device: Any = "cpu", kind: str = "transition") -> None:
        self.config, self.spec = config, spec
        self.network: nn.Module = nn.ParameterDict({"updates": nn.Parameter(torch.zeros(WEIGHTS))}).to(device)
        self.discount, self.wants_last, self.items = DISCOUNT, True, ITEMS[kind]
        self.given: dict[tuple[int, int], float] = {}
        """(stream, row) -> the priority that was fed back last."""
        self.ends: list[float] = []
        """The discounts at the ends of episodes."""

    def initial_state(self, batch: int) -> CoreState:
        """Rows since the episode's first one."""
        return {"count": torch.zeros(batch, 1)}

    def row_extras(self) -> dict[str, ArraySpec]:
        """What ``act`` was shown, and the weights it acted with."""
        return {"seen": ArraySpec((3,)), "count": ArraySpec(()), "version": ArraySpec((2,))}

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """The action of the row."""
        seen, first = inputs.observation[OBSERVATION][0], inputs.first[0]
        count = state["count"].masked_fill(first[:, None], 0.0)
        updates = self._weights()
        version = torch.stack([updates.min(), updates.max()]).expand(len(first), 2)
        action = torch.from_numpy(action_of(seen[:, 2].numpy().astype(np.int64)))
        return ActOutput(action, {"seen": seen, "count": count[:, 0], "version": version}, {"count": count + 1})

    def loss(self, batch: Any, progress: float) -> LossOutput:
        """Check the batch, feed priorities back, count the update; the gradient is zero."""
        weights = self._weights()
        updates = int(weights[0])
        check = check_sequence if isinstance(batch, Sequence) else check_transition
        for b in range(len(batch.row)):
            try:
                self.ends += check(batch, b, self.items, updates)
            except AssertionError as error:
                raise AssertionError(f"stream {batch.stream[b]}, row {batch.row[b]}, at {updates}: {error}") from error
        assert batch.replayed is not None and batch.replayed.all()
        known = self._check_weights(batch)
        stream, row = batch.stream.numpy(), batch.row.numpy()
        priority = priority_of(stream, row, updates)
        self.given |= {(int(s), int(r)): float(p) for s, r, p in zip(stream, row, priority, strict=True)}
        with torch.no_grad():
            weights += 1
        terminated = np.mean([discount == 0 for discount in self.ends] or [0.0])
        metrics = {"terminated": torch.tensor(float(terminated)), "known": torch.tensor(known)}
        return LossOutput(weights.sum() * 0.0, metrics, {"priority": torch.from_numpy(priority)})

    def _check_weights(self, batch: Any) -> float:
        """With alpha and beta 1 weights are as one over the priorities, by which items are drawn. The share of columns
        that were drawn by one that was fed back.
        """
        names = zip(batch.stream.tolist(), batch.row.tolist(), strict=True)
        priority = np.array([self.given.get(name, 1.0) for name in names])
        product = batch.weight.numpy() * priority
        assert np.allclose(product, product[0], rtol=1e-4), f"weights {batch.weight}, priorities {priority}"
        assert batch.weight.max() == 1
        return float((priority < 1).mean())

    def _weights(self) -> Tensor:
        return self.network.get_parameter("updates")


def check_inputs(inputs: Inputs, t: int, b: int) -> np.ndarray:
    """The row that is read at [t, b] has its own last action and reward and its own stack; what is seen, [3] int64."""
    seen: np.ndarray = inputs.observation[OBSERVATION][t, b].numpy().astype(np.int64)
    step, _, row = seen
    assert inputs.last_action is not None and inputs.last_reward is not None
    before = row - 1
    want = (int(action_of(before)), float(counting_reward(before, action_of(before)))) if step else (0, 0.0)
    got = (int(inputs.last_action[t, b]), float(inputs.last_reward[t, b]))
    assert got == want, f"last action and reward {got} at {seen}, expected {want}"
    stack = inputs.observation[FRAME][t, b].numpy().reshape(STACK, 2)
    for back in range(STACK):
        frame = [row + 1 - back, step + 1 - back] if step >= back else [0, 0]
        assert stack[STACK - 1 - back].tolist() == frame, f"frame {back} back of {seen}: {stack.tolist()}"
    return seen


def check_acted(extras: dict[str, np.ndarray], seen: np.ndarray, version: int, updates: int) -> None:
    """What is learnt from is what was acted on, with whole weights of that version."""
    assert (extras["seen"] == seen).all(), f"acted on {extras['seen']}, got {seen}"
    assert extras["count"] == seen[0], f"acted with state {extras['count']} at {seen}"
    assert (extras["version"] == version).all(), f"acted with {extras['version']}, version {version}"
    assert 0 <= version <= updates


def check_transition(batch: Transition, b: int, items: ItemSpec, updates: int) -> list[float]:
    """Column ``b``: from one row over at most n steps to another of the same episode; its discount if that ended."""
    seen, then = check_inputs(batch.inputs, 0, b), check_inputs(batch.next_inputs, 0, b)
    steps = int(then[2] - seen[2])
    assert bool(batch.inputs.first[0, b]) == (seen[0] == 0)
    assert 1 <= steps <= items.n and then[0] - seen[0] == steps and then[1] == seen[1], f"from {seen} to {then}"
    assert int(batch.steps[b]) == steps
    rows = seen[2] + np.arange(steps)
    assert int(batch.action[b]) == action_of(rows[0])
    want = float((DISCOUNT ** np.arange(steps) * counting_reward(rows, action_of(rows))).sum())
    assert float(batch.reward[b]) == want, f"reward {batch.reward[b]}, expected {want}"
    assert float(batch.discount[b]) in (0.0, DISCOUNT**steps), f"discount {batch.discount[b]} after {steps} steps"
    extras = {name: value[b].numpy() for name, value in batch.extras.items()}
    check_acted(extras, seen, int(batch.param_version[b]), updates)
    return [float(batch.discount[b])] if steps < items.n else []


def check_sequence(batch: Sequence, b: int, items: ItemSpec, updates: int) -> list[float]:
    """Column ``b``: burn-in, trained rows and tail of one episode, padded at both ends where it has no rows; its
    discount where that ended.
    """
    total = items.burn_in + items.length + items.n
    seen = np.stack([check_inputs(batch.inputs, t, b) for t in range(total + 1)])
    start = seen[items.burn_in]
    assert start[0] % items.period == 0, f"trains from step {start[0]}"
    expected = start[0] + np.arange(total + 1) - items.burn_in
    end = int(seen[:, 0].max())  # the final observation, or the sequence's last row
    assert (seen[:, 0] == expected.clip(0, end)).all(), f"steps {seen[:, 0]}, expected {expected}"
    assert (seen[:, 1] == start[1]).all() and (seen[:, 2] - seen[:, 0] == start[2] - start[0]).all()
    padded = (expected < 0) | (expected >= end) if end < expected[-1] else expected < 0
    over = expected > end
    inner = padded[:-1]
    mask = ~inner & (np.arange(total) >= items.burn_in) & (np.arange(total) < items.burn_in + items.length)
    assert (batch.mask[:, b].numpy() == mask).all(), f"mask {batch.mask[:, b]}, expected {mask}"
    assert mask.any() and batch.burn_in == items.burn_in
    valid = batch.valid[:, b].numpy()
    assert not valid[padded].any() and valid[:-1][~inner].all(), f"valid {valid}, padded {padded}"
    rows = seen[:-1, 2]
    reward, discount = batch.reward[:, b].numpy(), batch.discount[:, b].numpy()
    assert (reward == np.where(inner, 0, counting_reward(rows, action_of(rows)))).all(), f"rewards {reward}"
    assert (batch.action[:, b].numpy()[~inner] == action_of(rows)[~inner]).all()
    last = np.flatnonzero(~inner)[-1]
    ends = over.any() or (expected[-1] == end and not valid[-1])
    assert set(discount[inner].tolist()) <= {0.0} and set(discount[:last][~inner[:last]].tolist()) <= {DISCOUNT}
    assert discount[last] in ((0.0, DISCOUNT) if ends else (DISCOUNT,)), f"discounts {discount}"
    first = batch.inputs.first[:, b].numpy()
    assert (first[expected >= 0] == (expected[expected >= 0] == 0)).all(), f"first {first} at {expected}"
    at = max(0, int(expected[0]))
    core = float(batch.core_state["count"][b, 0])
    assert core == at, f"core state {core} before step {at}"
    for t in np.flatnonzero(~inner):
        extras = {name: value[t, b].numpy() for name, value in batch.extras.items()}
        check_acted(extras, seen[t], int(batch.param_version[t, b]), updates)
    return [float(discount[last])] if over.any() else []

"""The checks of the counting agent notice each thing that may go wrong with an unroll."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from offbeat.envs.counting import Counting
from offbeat.run.train import train
from offbeat.types import LossOutput, Unroll
from tests.conformance.counting_agent import Allowed, Checks, CountingAgent
from tests.conformance.counting_env import FRAME, make_counting
from tests.conformance.runs import counting_config


class Collecting(CountingAgent):
    """Keeps the batches that it learns from."""

    batches: list[Unroll]

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Keep it, then check it."""
        self.batches.append(copy.deepcopy(batch))
        return super().loss(batch, progress)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Unroll]:
    """The first batches of a run, of the same streams."""
    kept: list[Unroll] = []

    def make(config: Any, spec: Any, device: Any) -> Collecting:
        agent = Collecting(config, spec, device)
        agent.batches = kept
        return agent

    out = tmp_path_factory.mktemp("runs") / "run"
    config = counting_config(out, engine="inline", actor__workers=1, total_frames=200)
    train(config, env_factory=make_counting, agent_factory=make)
    return kept


def check(batches: list[Unroll]) -> None:
    """As a learner would, one after the other."""
    checks = Checks(Allowed(updates_per_round=1))
    for version, batch in enumerate(batches):
        checks.batch(batch, version)


def add_one(values: torch.Tensor) -> None:
    """Another number, or the opposite, in row 2 of column 1."""
    values[2, 1] = ~values[2, 1] if values.dtype == torch.bool else values[2, 1] + 1


MISTAKES: dict[str, Callable[[Unroll], object]] = {
    "reward": lambda b: add_one(b.reward),
    "reward of the row before": lambda b: b.reward.copy_(b.reward.roll(1, 0)),
    "action": lambda b: add_one(b.action),
    "discount": lambda b: add_one(b.discount),
    "terminated": lambda b: add_one(b.terminated),
    "truncated": lambda b: add_one(b.truncated),
    "first": lambda b: add_one(b.inputs.first),
    "valid": lambda b: add_one(b.valid),
    "version": lambda b: add_one(b.param_version),
    "last action": lambda b: add_one(b.inputs.last_action),  # type: ignore[arg-type]
    "last reward": lambda b: add_one(b.inputs.last_reward),  # type: ignore[arg-type]
    "observation": lambda b: add_one(b.inputs.observation["observation"]),
    "stack": lambda b: add_one(b.inputs.observation[FRAME]),
    "core state": lambda b: b.core_state["count"].add_(1),
    "extras": lambda b: b.extras["count"].copy_(b.extras["count"].roll(1, 0)),
    "columns swapped": lambda b: b.row.copy_(b.row.flip(0) + 5 * torch.arange(4)),
}


def test_the_batches_as_they_came_are_right(batches: list[Unroll]) -> None:
    steps = [batch.fresh[0] for batch in batches]
    assert sum(steps[:-1]) < 200 <= sum(steps), "final observations are no steps"
    check(batches)
    assert Counting(1, 4).limit == 8


@pytest.mark.parametrize("what", list(MISTAKES))
def test_a_mistake_is_noticed(what: str, batches: list[Unroll]) -> None:
    wrong = copy.deepcopy(batches)
    MISTAKES[what](wrong[3])
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize("order", [(0, 2, 1), (0, 1, 1), (0, 2), (1,)], ids=["reordered", "doubled", "lost", "late"])
def test_order_matters(order: tuple[int, ...], batches: list[Unroll]) -> None:
    with pytest.raises(AssertionError):
        check([batches[index] for index in order])

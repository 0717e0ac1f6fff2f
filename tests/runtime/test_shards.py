"""A learner's update in its three steps: what two learners collect adds up to what one learner of the whole does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offbeat.replay.columns import columns_of, from_columns
from offbeat.runtime.joint import Joint
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import GIVEN, Together
from tests.agents.test_float64 import CASES, made


def shards(batch: Any) -> list[Any]:
    """The batch in two parts of different sizes."""
    columns = columns_of(batch)
    width = len(batch.stream)
    others = {"burn_in": batch.burn_in} if hasattr(batch, "burn_in") else {}
    cut = [slice(0, 1), slice(1, width)]
    return [from_columns(type(batch), {n: v[part] for n, v in columns.items()}, **others) for part in cut]


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("case", list(CASES))
def test_two_learners_of_half_a_batch_are_one_of_the_whole(case: str, clip: float) -> None:
    config = LearnerConfig(optimizer="adam", learning_rate=1e-2, schedule="constant", epsilon=1e-3, clip_norm=clip)
    (whole, batch), *two = made(case), made(case), made(case)
    for agent in (whole, two[0][0], two[1][0]):
        agent.network.double()
    work = LearnerWork(whole, config, total_frames=100)
    works = [LearnerWork(agent, config, total_frames=100) for agent, _ in two]
    for _ in range(3):
        assert work.train_step(whole, batch) is not None
        collected = [one.collect(part) for one, part in zip(works, shards(batch), strict=True)]
        gradient = sum(one.optimiser.gradient() for one in works)
        total = sum(output.total.detach() for output in collected)
        counts = [output.count for output in collected]
        count = None if counts[0] is None else sum(counts)  # type: ignore[arg-type]
        for one, part, output in zip(works, shards(batch), collected, strict=True):
            one.optimiser.set_gradient(gradient)  # type: ignore[arg-type]
            assert one.apply(part, output, total, count)  # type: ignore[arg-type]
    for one in works:
        torch.testing.assert_close(one.optimiser.flat, work.optimiser.flat, rtol=1e-7, atol=1e-9)
    assert torch.equal(works[0].optimiser.flat, works[1].optimiser.flat)


class Doubled:
    """A reduction whose other learner gives the same gradient, and three times the count."""

    def give(self, gradient: torch.Tensor, numbers: Any, found: Any) -> None:
        """Keep it."""
        self.gradient, self.numbers = gradient, dict(numbers)

    def together(self, names: Any, timeout_s: float) -> Together:
        """Both."""
        other = self.numbers | {"count": 3 * self.numbers["count"]}
        return Together(2 * self.gradient, {name: [self.numbers[name], other[name]] for name in GIVEN}, {})


def test_what_all_gave_takes_the_place_of_what_one_collected() -> None:
    agent, batch = made("dqn")
    work = LearnerWork(agent, LearnerConfig(optimizer="rmsprop", clip_norm=0.0), total_frames=100)
    reduction: Any = Doubled()
    work.joint = Joint(reduction, work.optimiser, leads=True)
    output = work.gradient(batch)
    alone = work.optimiser.gradient().norm() / 6
    whole = work.whole(batch, output)
    assert whole is not None and (whole.divisor, whole.trained) == (24, (2 * batch.rows, 2 * batch.env_steps))
    assert work.apply(batch, output, whole.total, whole.divisor)
    assert (reduction.numbers["loss"], reduction.numbers["count"]) == (pytest.approx(float(output.total.detach())), 6)
    assert float(work.told.sums["gradient_norm"]) == pytest.approx(float(alone) / 2, rel=1e-5)
    assert float(work.told.sums["loss"]) == pytest.approx(float(output.loss.detach()) / 2, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("one_gradient", [False, True])
def test_a_sum_steps_as_the_mean_does(optimizer: Any, clip: float, one_gradient: bool) -> None:
    """A gradient that is divided afterwards, and one of a loss that was divided before."""
    config = LearnerConfig(optimizer=optimizer, learning_rate=0.1, schedule="constant", epsilon=0.3, clip_norm=clip)
    torch.manual_seed(0)
    summed = torch.nn.Linear(3, 2)
    averaged = torch.nn.Linear(3, 2)
    averaged.load_state_dict(summed.state_dict())
    one, other = FlatOptimiser(summed, config, one_gradient), FlatOptimiser(averaged, config, one_gradient)
    for _ in range(3):
        x = torch.randn(24, 3)
        one.zero()
        other.zero()
        summed(x).square().sum().backward()
        averaged(x).square().sum().div(24).backward()
        (norm, fine), (expected, also) = one.step(0.0, torch.zeros(()), 24.0), other.step(0.0, torch.zeros(()))
        assert fine and also
        torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(one.flat, other.flat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("one_gradient", [False, True])
def test_a_gradient_comes_back_as_it_was(one_gradient: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimiser = FlatOptimiser(network, LearnerConfig(), one_gradient)
    network(torch.ones(2, 3)).sum().backward()
    kept = optimiser.gradient()
    assert kept.shape == optimiser.flat.shape
    optimiser.zero()
    assert not optimiser.gradient().any()
    optimiser.set_gradient(kept)
    assert torch.equal(optimiser.gradient(), kept)

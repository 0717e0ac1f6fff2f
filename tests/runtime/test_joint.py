"""Learners that step together against one learner of the whole batch: L x B/L is 1 x B."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offbeat.replay.columns import columns_of, from_columns
from offbeat.replay.make import check_mixture
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.runtime.joint import Joint, Sums, Whole, check_joint
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.reduction import SharedReduction
from offbeat.types import ItemSpec
from tests.agents.test_float64 import made
from tests.replay.twin import vector_layout
from tests.runtime.test_batches import FIFO

CASES = ("impala", "impala-lstm", "impala-replay", "dqn", "r2d2", "impact-lstm")
WIDTH = 8
UPDATES = 50


def widened(batch: Any, number: int) -> Any:
    """``WIDTH`` columns of the batch, drawn by its ``number``, with rewards and importance weights of their own."""
    random = torch.Generator().manual_seed(number)
    index = torch.randint(len(batch.stream), (WIDTH,), generator=random)
    columns = {name: values[index] for name, values in columns_of(batch).items()}
    columns["reward"] = columns["reward"] + torch.randn(columns["reward"].shape, generator=random)
    columns["weight"] = torch.rand(WIDTH, generator=random)
    others = {"burn_in": batch.burn_in} if hasattr(batch, "burn_in") else {}
    return from_columns(type(batch), columns, **others)


def columns_at(learner: int, learners: int) -> list[int]:
    """Which columns a learner has."""
    return [b for b in range(WIDTH) if min(b * learners // (WIDTH - 1), learners - 1) == learner]


def share(batch: Any, learner: int, learners: int) -> Any:
    """A learner's columns; shares are of different sizes."""
    index = columns_at(learner, learners)
    columns = {name: values[index] for name, values in columns_of(batch).items()}
    others = {"burn_in": batch.burn_in} if hasattr(batch, "burn_in") else {}
    return from_columns(type(batch), columns, **others)


class Crew:
    """Learners of one process that step together, each in its turn."""

    def __init__(self, case: str, learners: int, double: bool, **options: Any) -> None:
        self.agents = [made(case)[0] for _ in range(learners)]
        for agent in self.agents if double else ():
            agent.network.double()
        config = LearnerConfig(**({"optimizer": "adam", "schedule": "constant", "epsilon": 1e-3} | options))
        self.works = [LearnerWork(agent, config, total_frames=100) for agent in self.agents]
        size = len(self.works[0].optimiser.flat)
        self.shared = SharedReduction(size, WIDTH, learners, None, "float64" if double else "float32")
        for number, work in enumerate(self.works):
            work.joint = Joint(self.shared.end(number), work.optimiser, leads=not number)


def whole_of(work: LearnerWork, part: Any, output: Any) -> Whole:
    """What all led to, once all have given."""
    whole = work.whole(part, output)
    assert whole is not None
    return whole


def update(crew: Crew, batch: Any) -> list[Whole]:
    """One update of all."""
    works, number = crew.works, len(crew.works)
    shares = [share(batch, learner, number) for learner in range(number)]
    outputs = [work.gradient(part) for work, part in zip(works, shares, strict=True)]
    for work, part, output in list(zip(works, shares, outputs, strict=True))[:-1]:
        assert work.whole(part, output) is None, "the last one has not given yet"
    wholes = [whole_of(*one) for one in list(zip(works, shares, outputs, strict=True))[::-1]][::-1]
    for work, part, output, whole in zip(works, shares, outputs, wholes, strict=True):
        assert work.apply(part, output, whole.total, whole.divisor)
        for state in work.states.values():
            state.trained(part, work.updates)
    return wholes


@pytest.mark.parametrize("learners", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_learners_of_shares_are_one_of_the_whole(case: str, learners: int) -> None:
    crew = Crew(case, learners, double=True, learning_rate=3e-3, clip_norm=0.5)
    alone, base = made(case)
    alone.network.double()
    work = LearnerWork(alone, crew.works[0].config, total_frames=100)
    for number in range(UPDATES):
        batch = widened(base, number)
        output = work.train_step(alone, batch)
        assert output is not None
        for state in work.states.values():
            state.trained(batch, work.updates)
        wholes = update(crew, batch)
        assert [float(whole.total) for whole in wholes] == [pytest.approx(float(output.total.detach()))] * learners
        assert {whole.trained for whole in wholes} == {Sums(batch.rows, batch.env_steps)}
        for name, values in output.feedback.items():
            order = [b for learner in range(learners) for b in columns_at(learner, learners)]
            torch.testing.assert_close(wholes[0].feedback[name], values[order].double(), rtol=1e-6, atol=1e-7)
    for one in crew.works:
        torch.testing.assert_close(one.optimiser.flat, work.optimiser.flat, rtol=0, atol=1e-6)
        assert torch.equal(one.optimiser.flat, crew.works[0].optimiser.flat), "the same bits in each"
    crew.shared.close()


@pytest.mark.parametrize("learners", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_the_first_gradient_is_that_of_the_whole_in_float32(case: str, learners: int) -> None:
    crew = Crew(case, learners, double=False)
    alone, base = made(case)
    work = LearnerWork(alone, crew.works[0].config, total_frames=100)
    batch = widened(base, 0)
    output = work.collect(batch)
    expected = work.optimiser.gradient()
    for number, one in enumerate(crew.works):
        part = share(batch, number, learners)
        one.whole(part, one.gradient(part))
    for number, one in enumerate(crew.works[:-1]):
        whole_of(one, share(batch, number, learners), output)
    for one in crew.works:
        assert float((one.optimiser.gradient() - expected).norm() / expected.norm()) < 1e-5
    crew.shared.close()


def test_a_share_that_holds_nothing_adds_nothing() -> None:
    crew = Crew("impala", 2, double=True)
    alone, base = made("impala")
    alone.network.double()
    work = LearnerWork(alone, crew.works[0].config, total_frames=100)
    batch = widened(base, 0)
    work.collect(batch)
    empty = from_columns(type(batch), {name: values[:0] for name, values in columns_of(batch).items()})
    nothing = crew.works[1].gradient(empty)
    assert crew.works[1].whole(empty, nothing) is None
    whole = whole_of(crew.works[0], batch, crew.works[0].gradient(batch))
    torch.testing.assert_close(crew.works[0].optimiser.gradient(), work.optimiser.gradient(), rtol=1e-12, atol=1e-12)
    assert whole.divisor == int(batch.valid[:-1].sum())
    crew.shared.close()


def test_what_cannot_be_shared_is_refused_by_name() -> None:
    items = ItemSpec("unroll", length=5)
    layout = vector_layout(num_streams=2, capacity=60, num_cursors=1, state_grid=5, state_period=0, items=items)
    fits = check_mixture(layout, FIFO, 2, True)
    check_joint(made("impala")[0], fits, 2)
    with pytest.raises(
        ValueError, match=r"learner\.count=3: what the agent keeps in the learner as kl needs whole batch"
    ):
        check_joint(made("impact")[0], fits, 3)
    copies = check_mixture(layout, ReplayConfig(samplers=(sampler_config("circular"),)), 2, True)
    with pytest.raises(
        ValueError, match=r"learner\.count=2: the first learner deals .* or come from elsewhere: 0 \(\w+\); "
    ):
        check_joint(made("impala")[0], copies, 2)

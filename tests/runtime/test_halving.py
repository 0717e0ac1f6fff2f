"""Batches that do not fit into memory: cut in parts, they give the update of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from offbeat.agents import rainbow
from offbeat.runtime.halving import together
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.types import Batch, LossOutput
from tests.agents.test_float64 import CASES, made, q_agent
from tests.runtime.parts import Metrics

Made = tuple[Any, Any]
COMPLAINT = "CUDA out of memory. Tried to allocate 2.00 GiB.\nThe rest of it"
FITTING = [case for case in CASES if not case.startswith("r2ac")]


def noisy() -> Made:
    """A Rainbow whose loss draws noise, and a batch of it."""
    torch.manual_seed(3)
    return q_agent(rainbow, atoms=7, noisy_sigma=0.5)


def small_memory(agent: Any, most: int) -> list[int]:
    """The agent's loss has room for so many columns; the sizes that it is given."""
    loss, sizes = agent.loss, []

    def limited(batch: Batch, progress: float) -> LossOutput:
        sizes.append(len(batch.stream))
        output: LossOutput = loss(batch, progress)  # what it draws is drawn when it fails too
        if sizes[-1] > most:
            raise torch.OutOfMemoryError(COMPLAINT)
        return output

    agent.loss = limited
    return sizes


def work_of(agent: Any, **options: Any) -> LearnerWork:
    """A learner in double precision, so that the order of sums hardly shows."""
    agent.network.double()
    if hasattr(agent, "target"):
        agent.target.double()
    config: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-2, "schedule": "constant", "epsilon": 1e-3}
    return LearnerWork(agent, LearnerConfig(**config | options), total_frames=100)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("make", [*(pytest.param(lambda c=c: made(c), id=c) for c in FITTING), noisy])
def test_parts_give_the_update_of_the_whole(make: Callable[[], Made], most: int) -> None:
    (whole, batch), (parted, _) = make(), make()
    width = len(batch.stream)
    most = min(most, width - 1)
    sizes = small_memory(parted, most)
    work, other = work_of(whole), work_of(parted)
    outputs = []
    for one, agent in ((work, whole), (other, parted)):
        torch.manual_seed(5)
        outputs.append([one.train_step(agent, batch) for _ in range(3)])
        outputs[-1].append(torch.rand(()).item())
    torch.testing.assert_close(other.optimiser.flat, work.optimiser.flat, rtol=1e-9, atol=1e-12)
    assert outputs[0].pop() == outputs[1].pop(), "the generator goes on as it would have"
    assert max(sizes[-2:]) <= most
    assert sum(size > most for size in sizes) == other.halving.failures, "what was learnt holds for the rest of the run"
    assert other.halving.parts == min(2**other.halving.failures, width)
    for ours, theirs in zip(outputs[1], outputs[0], strict=True):
        torch.testing.assert_close(ours.total, theirs.total)
        if theirs.count is not None:
            assert float(ours.count) == float(theirs.count)
        assert ours.feedback.keys() == theirs.feedback.keys()
        for name, value in theirs.feedback.items():
            torch.testing.assert_close(ours.feedback[name], value, msg=name)
        assert ours.metrics.keys() == theirs.metrics.keys()
        for name in {"entropy", "ratio_mean", "value_mean", "td_error"} & theirs.metrics.keys():
            torch.testing.assert_close(ours.metrics[name], theirs.metrics[name], msg=name)


def test_what_a_backward_pass_left_half_done_is_forgotten() -> None:
    (whole, batch), (parted, _) = made("impala-lstm"), made("impala-lstm")
    work, other = work_of(whole), work_of(parted)
    first, calls = next(iter(parted.network.parameters())), [0]

    def fail_once(gradient: torch.Tensor) -> None:
        calls[0] += 1
        if calls[0] == 2:  # the second update; gradients of all later layers are there
            raise torch.OutOfMemoryError(COMPLAINT)

    first.register_hook(fail_once)
    for one, agent in ((work, whole), (other, parted)):
        for _ in range(3):
            assert one.train_step(agent, batch) is not None
    assert other.halving.counted() == {"out_of_memory": 1, "batch_parts": 2}
    torch.testing.assert_close(other.optimiser.flat, work.optimiser.flat, rtol=1e-9, atol=1e-12)


def test_it_is_said_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    agent, batch = made("dqn")
    small_memory(agent, 2)
    work = work_of(agent)
    assert work.halving.counted() == {}
    for _ in range(2):
        assert work.train_step(agent, batch) is not None
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a batch of 6 does not fit into the memory of cpu" in said
    assert "learner.batch_size" in said
    metrics = Metrics()
    work.told.seen(0.0, {})
    work.report(metrics, force=True)
    (values,) = metrics.of("learner")
    assert (values["out_of_memory"], values["batch_parts"]) == (2, 4)


def test_one_item_that_does_not_fit_ends_the_run_with_what_to_lower() -> None:
    agent, batch = made("r2d2")
    small_memory(agent, 0)
    work = work_of(agent)
    with pytest.raises(RuntimeError, match=r"not even one of the \d items .* lower learner.unroll_length.*CUDA") as e:
        work.train_step(agent, batch)
    assert "The rest" not in str(e.value)


def test_an_agent_that_carries_something_along_is_not_cut() -> None:
    agent, batch = made("r2ac-rtu")
    small_memory(agent, 1)
    work = work_of(agent)
    with pytest.raises(RuntimeError, match=r"a batch of 3 does not .* cannot be cut; lower learner.batch_size"):
        work.train_step(agent, batch)
    assert work.halving.parts == 1


def test_metrics_are_means_over_rows_feedback_is_joined_and_sums_add_up() -> None:
    def part(total: float, metric: float, priority: list[float], count: float | None) -> LossOutput:
        return LossOutput(torch.tensor(total), {"m": torch.tensor(metric)}, {"p": torch.tensor(priority)}, count)

    joined = together([3, 1], [part(1.0, 2.0, [1.0, 2.0], 2), part(4.0, 6.0, [3.0], 1.5)])
    assert (float(joined.total), float(joined.metrics["m"]), joined.feedback["p"].tolist()) == (5.0, 3.0, [1, 2, 3])
    assert joined.count is not None
    assert float(joined.count) == 3.5
    assert together([3, 1], [part(1.0, 2.0, [1.0], None), part(4.0, 6.0, [3.0], None)]).count is None
    nothing = together([0, 0], [part(0.0, 2.0, [1.0], None), part(0.0, 4.0, [3.0], None)])
    assert float(nothing.metrics["m"]) == 3.0

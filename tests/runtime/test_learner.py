"""The learner's loop with batches from a list: what it counts, publishes, skips and reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from offbeat.runtime import learner
from offbeat.runtime.learner import LearnerWork, run_learner
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.learner_report import NonFinite
from offbeat.types import Batch, LossOutput, TensorDict, Unroll
from tests.agents.unrolls import make_spec, with_episode_ends
from tests.runtime.parts import Metrics, StopAfter, private_params

LENGTH, WIDTH = 4, 3
STEPS = LENGTH * WIDTH
ROWS = int(with_episode_ends(make_spec(), LENGTH, WIDTH)[1][:-1].sum())
NONE_SKIPPED = {"skipped": 0, "bad_in_a_row": 0}


class Slope:
    """An agent of one weight: the loss is the mean reward times the weight, so rewards are the gradient."""

    def __init__(self, priorities: bool = False) -> None:
        self.network: nn.Module = nn.ParameterDict({"w": nn.Parameter(torch.ones(1))})
        self.priorities = priorities
        self.progress: list[float] = []

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """Mean reward times weight."""
        self.progress.append(progress)
        slope = batch.reward.mean()
        fresh = {"priority": batch.reward.sum(0)} if self.priorities else {}
        return LossOutput(self.network.get_parameter("w").sum() * slope, {"slope": slope}, fresh)


class Listed:
    """A batch source over a list; None in it means nothing was ready. A batch counts for twelve steps."""

    def __init__(self, batches: list[Unroll | None], steps: int = 0) -> None:
        self.batches, self.trained = list(batches), steps
        self.finished: list[Unroll] = []
        self.skipped: list[Unroll] = []

    def next(self, timeout_s: float) -> Unroll | None:
        """The next one."""
        return self.batches.pop(0)

    def done(self, batch: Unroll) -> None:
        """Count."""
        self.finished.append(batch)
        self.trained += STEPS

    def skip(self, batch: Unroll) -> None:
        """Note it."""
        self.skipped.append(batch)

    def steps(self) -> int:
        """Trained on so far."""
        return self.trained

    def frames(self) -> int:
        """Four each."""
        return 4 * self.trained

    def stats(self) -> dict[str, float]:
        """A number of its own."""
        return {"pending_unrolls_0": 2.5}


class Priorities:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Batch, TensorDict]] = []

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """Remember."""
        self.sent.append((batch, found))


def batch(reward: float = 1.0, version: int = 0) -> Unroll:
    """An unroll of equal rewards."""
    inputs, valid = with_episode_ends(make_spec(), LENGTH, WIDTH)
    full = torch.full((LENGTH, WIDTH), reward)
    flags = torch.zeros(LENGTH, WIDTH, dtype=torch.bool)
    versions = torch.full((LENGTH, WIDTH), version, dtype=torch.int64)
    ids = torch.arange(WIDTH)
    return Unroll(inputs, valid, flags.long(), full, full, flags, flags, {}, {}, versions, ids, 10 * ids, ids * 0)


def make_work(agent: Slope, total: int = 1000, **changes: Any) -> LearnerWork:
    """Plain steps of 0.1 (RMSProp without memory on a gradient of 1 is a step of the rate)."""
    options = {"learning_rate": 0.1, "schedule": "constant", "rmsprop_decay": 0.0, "epsilon": 1e-8, "clip_norm": 0.0}
    return LearnerWork(agent, LearnerConfig(**(options | changes)), total_frames=4 * total, frame_skip=4)  # type: ignore


def learn(agent: Slope, source: Listed, work: LearnerWork, looks: int, priorities: Priorities | None = None):  # type: ignore
    """Run the loop; its events, versions published at each, metrics."""
    params, metrics = private_params(len(work.optimiser.flat)), Metrics()
    events = []
    for event in run_learner(agent, source, params, priorities, metrics, StopAfter(looks), work):  # type: ignore
        events.append((event, params.version()))
    return events, params, metrics


def test_updates_are_counted_and_published() -> None:
    agent = Slope()
    work, source = make_work(agent), Listed([batch(), None, batch(), batch()])
    events, params, _ = learn(agent, source, work, 4)
    assert events == [("trained", 1), ("idle", 1), ("trained", 2), ("trained", 3)]
    counted = {
        "updates": 3,
        "agent_steps": 3 * STEPS,
        "frames": 12 * STEPS,
        "samples": 3 * ROWS,
        "sample_frames": 12 * ROWS,
    }
    assert work.counters() == counted | NONE_SKIPPED
    flat = torch.zeros_like(work.optimiser.flat)
    assert params.pull(flat) == (3, 3 * STEPS, 12 * STEPS)
    assert flat[0] == pytest.approx(0.7), "three steps of 0.1 down from 1"
    assert len(source.finished) == 3


def test_weights_carry_the_counters_that_they_are_from_and_final_ones_do_not_hide_the_schedule() -> None:
    agent = Slope()
    work = make_work(agent, total=5 * STEPS, publish_every=2)
    params = private_params(len(work.optimiser.flat))
    seen = []
    for _ in run_learner(agent, Listed([batch()] * 5), params, None, Metrics(), StopAfter(), work):  # type: ignore
        flat, point = params.newest()
        seen.append((*point, round(float(flat[0]), 3)))
        assert work.scheduled is None
    four = (4, 4 * STEPS, 16 * STEPS, 0.6)
    assert seen == [(0, 0, 0, 1.0), *[(2, 2 * STEPS, 8 * STEPS, 0.8)] * 2, *[four] * 2]
    assert params.newest()[1] == (5, 5 * STEPS, 20 * STEPS), "for the last evaluation"
    assert work.scheduled is not None
    assert (*work.scheduled[1], round(float(work.scheduled[0][0]), 3)) == four


class Followed(Slope):
    """Keeps something in the learner, which notes with which updates and batches it was told of."""

    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float, float]] = []

    def learner_states(self) -> dict[str, Followed]:
        """Itself."""
        return {"followed": self}

    def trained(self, batch: Unroll, updates: int) -> None:
        """Note the update, the batch and the weight after it."""
        weight = float(self.network.get_parameter("w").detach())
        self.seen.append((updates, float(batch.reward.mean()), weight))

    def state(self) -> TensorDict:
        """Nothing."""
        return {}

    def load_state(self, state: TensorDict) -> None:
        """Nothing."""


def test_what_an_agent_keeps_is_told_of_each_update_after_it_was_made() -> None:
    agent = Followed()
    learn(agent, Listed([batch(), batch(float("nan")), None, batch(2.0)]), make_work(agent), 4)
    assert [updates for updates, *_ in agent.seen] == [1, 2], "not of those that were skipped"
    assert [reward for _, reward, _ in agent.seen] == [1.0, 2.0]
    assert [weight for *_, weight in agent.seen] == pytest.approx([0.9, 0.8])


def test_weights_are_published_every_so_many_updates_and_at_the_end() -> None:
    agent = Slope()
    work = make_work(agent, publish_every=3)
    events, params, _ = learn(agent, Listed([batch() for _ in range(8)]), work, 8)
    assert [version for _, version in events] == [0, 0, 3, 3, 3, 6, 6, 6]
    assert params.version() == 8


def test_the_run_ends_when_all_steps_are_trained_on() -> None:
    agent = Slope()
    work = make_work(agent, total=3 * STEPS - 1)
    events, _, _ = learn(agent, Listed([batch() for _ in range(9)]), work, 100)
    assert len(events) == 3
    assert work.finished()
    assert work.progress == 1.0


def test_the_rate_follows_the_progress() -> None:
    agent = Slope()
    work = make_work(agent, total=4 * STEPS, schedule="linear")
    learn(agent, Listed([batch() for _ in range(4)]), work, 100)
    assert agent.progress == [0.0, 0.25, 0.5, 0.75]
    moved = 0.1 * (1.0 + 0.75 + 0.5 + 0.25)
    assert float(agent.network.get_parameter("w").detach()) == pytest.approx(1 - moved)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_updates_that_are_not_finite_are_skipped_and_counted(bad: float) -> None:
    agent, priorities = Slope(priorities=True), Priorities()
    work = make_work(agent, nonfinite_limit=2)
    source = Listed([batch(), batch(bad), batch(), batch(bad), batch()])
    events, _, _ = learn(agent, source, work, 5, priorities)
    assert [version for _, version in events] == [1, 1, 2, 2, 3]
    counted = {
        "updates": 3,
        "agent_steps": 3 * STEPS,
        "frames": 12 * STEPS,
        "samples": 3 * ROWS,
        "sample_frames": 12 * ROWS,
    }
    assert work.counters() == counted | {"skipped": 2, "bad_in_a_row": 0}
    assert work.bad_rewards == 2
    assert (len(source.finished), len(source.skipped)) == (3, 2), "skipped batches are in the ledger too"
    assert len(priorities.sent) == 3
    assert float(agent.network.get_parameter("w").detach()) == pytest.approx(0.7)


def test_too_many_in_a_row_end_the_run_with_a_diagnosis() -> None:
    agent = Slope()
    work = make_work(agent, nonfinite_limit=3)
    bad = batch(float("inf"))
    source = Listed([batch(), bad, bad, batch(), bad, bad, bad, batch()])
    with pytest.raises(NonFinite, match=r"3 updates in a row .*\(loss inf.*rewards .* \[inf, inf\].*finite: True") as e:
        learn(agent, source, work, 100)
    assert "offbeat envs check" in str(e.value)
    assert work.skipped == 5
    assert len(source.batches) == 1


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), 1e39])
def test_updates_that_lead_to_weights_that_are_not_finite_are_undone_and_end_the_run(rate: float) -> None:
    agent = Slope()
    work = make_work(agent, nonfinite_limit=3, learning_rate=rate)
    source = Listed([batch() for _ in range(9)])
    with pytest.raises(NonFinite, match=r"\(loss 1, gradient norm 1, but the weights .* were not\).*finite: True"):
        learn(agent, source, work, 100)
    assert float(agent.network.get_parameter("w").detach()) == 1.0
    assert (work.updates, work.skipped, work.samples, work.agent_steps) == (0, 3, 0, 0)
    assert not source.finished
    assert work.optimiser.finite()


def test_averages_of_a_vanished_gradient_become_zero_not_subnormal() -> None:
    """After 900 updates without a gradient 0.9^n is subnormal; arithmetic on such numbers is many times slower."""
    agent = Slope()
    work = make_work(agent, total=10**6, optimizer="adam")
    learn(agent, Listed([batch(), *(batch(0.0) for _ in range(900))]), work, 901)
    assert work.updates == 901
    average = work.optimiser.state()["exp_avg"]
    assert not average.any()
    assert work.optimiser.state()["exp_avg_sq"].any(), "this one has only fallen to 0.4 of what it was"


def test_frames_are_the_environment_steps_of_what_was_trained_on_times_the_frame_skip() -> None:
    slow, whole = batch(), batch()
    slow.elapsed = torch.arange(LENGTH * WIDTH, dtype=torch.int32).view(LENGTH, WIDTH)
    assert slow.env_steps == int(slow.elapsed[slow.valid[:-1]].sum()) != slow.rows == whole.env_steps
    agent = Slope()
    work = make_work(agent)
    learn(agent, Listed([slow, whole]), work, 2)
    assert work.sample_frames == 4 * (slow.env_steps + whole.rows)


class Looking(Slope):
    """Looks at what the network gives before it is trained, as double Q-learning and burn-ins do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 2), nn.Conv1d(2, 2, 1))

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """The sum of what the network gives for ones."""
        assert torch.is_autocast_enabled("cpu")
        ones = torch.ones(2, 3)
        with torch.no_grad():
            self.network[1](self.network[0](ones).unsqueeze(-1))
        return LossOutput(self.network[1](self.network[0](ones).unsqueeze(-1)).float().sum(), {})


def test_a_forward_without_gradients_takes_none_from_the_one_that_is_trained_in_bf16() -> None:
    """Weights that autocast has rounded without history would, in older versions of torch, be used again."""
    agent = Looking()
    work = make_work(agent, precision="bf16")
    work.collect(batch())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in agent.network.parameters())


def test_priorities_go_to_the_items_that_they_belong_to() -> None:
    agent, priorities = Slope(priorities=True), Priorities()
    learn(agent, Listed([batch(2.0)]), make_work(agent), 1, priorities)
    ((named, found),) = priorities.sent
    assert (named.stream.tolist(), named.row.tolist()) == ([0, 1, 2], [0, 10, 20])
    assert found["priority"].tolist() == [8.0, 8.0, 8.0]


def test_reports_are_means_since_the_last_one() -> None:
    agent, metrics = Slope(), Metrics()
    work = make_work(agent, total=100 * STEPS)
    source = Listed([batch(1.0, 0), batch(3.0, 0), batch(8.0, 1)])
    learn(agent, source, work, 2)
    work.report(metrics, force=True)
    learn(agent, source, work, 1)
    work.report(metrics, force=True)
    one, two = metrics.of("learner")
    assert (one["slope"], two["slope"]) == (2.0, 8.0)
    assert one["loss"] == pytest.approx((1.0 + 3.0 * 0.9) / 2)
    assert one["gradient_norm"] == pytest.approx(2.0)
    assert one["policy_lag"] == pytest.approx(1.5), "versions 0 and 0 after updates 1 and 2"
    assert two["policy_lag"] == pytest.approx(2.0)
    assert (one["updates"], two["updates"]) == (2, 3)
    assert (two["samples"], two["agent_steps"], two["frames"]) == (3 * ROWS, 3 * STEPS, 12 * STEPS)
    assert (one["learning_rate"], one["skipped"], one["pending_unrolls_0"]) == (0.1, 0, 2.5)
    work.report(metrics, force=True)
    assert len(metrics.of("learner")) == 2, "nothing new, no report"


def test_a_resumed_learner_goes_on_from_its_counters() -> None:
    agent = Slope()
    work = make_work(agent, total=10 * STEPS)
    learn(agent, Listed([batch(), batch()]), work, 2)
    again_agent = Slope()
    again_agent.network.load_state_dict(agent.network.state_dict())
    again = make_work(again_agent, total=10 * STEPS)
    again.optimiser.load_state(work.optimiser.state())
    again.load_counters(work.counters())
    assert again.counters() == work.counters()
    events, params, _ = learn(again_agent, Listed([batch()], steps=2 * STEPS), again, 1)
    assert events == [("trained", 3)]
    assert again_agent.progress == [0.2]
    assert params.version() == 3


class NotingAutocast(Slope):
    """Notes whether autocast is on while its loss is computed."""

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """The same loss."""
        self.seen = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()
        return super().loss(batch, progress)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keeps", [True, False])
def test_autocast_keeps_rounded_weights_only_where_gradients_survive_it(
    precision: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "keeps_history", lambda device_type: keeps)
    agent = NotingAutocast()
    work = make_work(agent, precision=precision)
    work.train_step(agent, batch())  # type: ignore[arg-type]
    assert agent.seen == (precision == "bf16", keeps or precision == "fp32")
    assert torch.is_autocast_cache_enabled()

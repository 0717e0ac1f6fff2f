"""The learner's record: means of what was added, the newest counters, and only when something is new and due."""

from __future__ import annotations

import torch

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.learner_report import REPORT_S, LearnerReport, diagnosed
from offbeat.types import Batch, Inputs, Transition
from tests.runtime.parts import Metrics


def test_a_record_holds_the_means_since_the_last_one_and_comes_when_it_is_due() -> None:
    clock, metrics = VirtualClock(), Metrics()
    told = LearnerReport(clock)
    told.write(metrics, {}, force=True)
    assert not metrics.records, "nothing is new"
    for loss, lag in ((1.0, 0.0), (4.0, 3.0)):
        told.add({"loss": torch.tensor(loss)})
        told.seen(lag, {"queue": 2.0, "assembly_s": 0.1 + lag})
    told.wait_s, told.train_s = 0.25, 0.5
    told.write(metrics, {"updates": 2})
    assert not metrics.records, "too early"
    clock.sleep(REPORT_S)
    told.write(metrics, {"updates": 2})
    (values,) = metrics.of("learner")
    assert values.pop("assembly_s") == 0.1 + 0.1 + 3.0, "seconds add up"
    assert values == {"loss": 2.5, "policy_lag": 1.5, "queue": 2.0, "updates": 2, "wait_s": 0.25, "train_s": 0.5}
    told.add({"loss": torch.tensor(1.0)})
    told.seen(0.0, {"queue": 1.0, "assembly_s": 0.5})
    told.write(metrics, {"updates": 3}, force=True)
    assert metrics.of("learner")[-1]["assembly_s"] == 0.5
    assert (told.wait_s, told.train_s, told.sums) == (0.0, 0.0, {})


def batch_of(reward: float, seen: float) -> Batch:
    """One transition."""
    zero, number = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    inputs = Inputs({"angle": torch.tensor([[seen]]), "picture": torch.zeros(1, 1, 4, dtype=torch.uint8)}, zero > 0)
    return Transition(
        inputs, number, torch.tensor([reward]), zero, inputs, number, {}, number, number, number, number
    )  # fmt: skip


def test_what_is_not_finite_of_the_environment_is_named() -> None:
    one, nan = torch.tensor(1.0), torch.tensor(float("nan"))
    fine = str(diagnosed(20, nan, nan, batch_of(2.0, 1.0), True))
    assert "20 updates in a row" in fine and "Try a lower learner.learning_rate" in fine
    wrong = str(diagnosed(20, nan, one, batch_of(float("inf"), 1.0), True))
    assert "The environment gives rewards that are not finite: mend it" in wrong and "Try a lower" not in wrong
    seen = str(diagnosed(20, nan, nan, batch_of(1.0, float("nan")), True))
    assert "The environment gives observations 'angle' that are not finite" in seen
    both = str(diagnosed(20, nan, nan, batch_of(float("nan"), float("nan")), True))
    assert "gives rewards and observations 'angle' that" in both

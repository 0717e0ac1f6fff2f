"""The learner's record: means of what was added, the newest counters, and only when something is new and due."""

from __future__ import annotations

import torch

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.learner_report import REPORT_S, LearnerReport, diagnosed
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


def test_rewards_that_are_not_finite_are_the_environments() -> None:
    one, nan = torch.tensor(1.0), torch.tensor(float("nan"))
    fine = str(diagnosed(20, nan, nan, torch.tensor([0.0, 2.0]), True))
    assert "20 updates in a row" in fine and "Try a lower learner.learning_rate" in fine
    wrong = str(diagnosed(20, nan, one, torch.tensor([0.0, float("inf")]), True))
    assert "The environment gives rewards that are not finite: mend it" in wrong and "Try a lower" not in wrong

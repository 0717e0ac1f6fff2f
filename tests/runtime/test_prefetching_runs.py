"""Runs of the local engine that find out themselves how many batches to have ready; slow parts are made so by sleep."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from offbeat.agents.dqn import Agent as DQN
from offbeat.replay.mixture import Mixture
from offbeat.run.train import train
from offbeat.types import Batch, LossOutput, Transition
from tests.conformance.runs import records
from tests.runtime.parts import item_config

SLOW_S = 0.03
"""What the slow part takes for each batch; the other one takes next to nothing. Unit: seconds."""


class SlowLearner(DQN):
    """Takes long for each update."""

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """DQN's, later."""
        time.sleep(SLOW_S)
        return super().loss(batch, progress)


def with_slow_sampler(*arguments: Any) -> DQN:
    """A DQN in whose process copies of batches take long; not in that of the tests, which makes one too."""
    if multiprocessing.parent_process() is not None:
        copy = Mixture.copy

        def slow(mixture: Mixture, *given: Any) -> Batch | None:
            time.sleep(SLOW_S)
            return copy(mixture, *given)

        Mixture.copy = slow  # type: ignore[assignment, method-assign]
    return DQN(*arguments)


def last_record(folder: Path, agent_factory: Any) -> dict[str, Any]:
    """The learner's newest line of a run of about 300 updates."""
    config = item_config(
        "dqn", engine="local", out=str(folder), total_frames=320, log__every_s=0.5, evaluation__at_end=False,
        replay__samples_per_insert=8.0, learner__prefetch="auto", learner__assemblers="auto",
    )  # fmt: skip
    result = train(config, agent_factory=agent_factory)
    assert result.updates > 200
    return [line for line in records(result.run) if line["kind"] == "learner"][-1]


@pytest.mark.slow
def test_a_slow_learner_has_one_batch_ready_and_a_slow_sampler_more_of_more_threads(tmp_path: Path) -> None:
    learner = last_record(tmp_path / "learner", SlowLearner)
    assert (learner["prefetch_depth"], learner["assemblers"]) == (1, 1)
    assert learner["batch_age_largest"] <= 1
    assert learner["held_up_s"] < 0.1 * learner["train_s"]
    sampler = last_record(tmp_path / "sampler", with_slow_sampler)
    assert sampler["prefetch_depth"] >= 3
    assert sampler["assemblers"] >= 3
    assert sampler["assembly_s"] > 2 * sampler["held_up_s"] > sampler["train_s"]

"""What a loss gives is checked once; a run whose agent fails in the learner is saved all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import offbeat
from offbeat.agents import dqn, impala
from offbeat.errors import UserError
from offbeat.run.train import resume, train
from offbeat.storage.checkpoint import find, load
from offbeat.types import LossOutput
from tests.runtime.parts import item_config, small_config


def changed(**fields: Any) -> type[Any]:
    """An agent whose loss has other fields."""

    class Agent(impala.Agent):
        def loss(self, batch: Any, progress: float) -> LossOutput:
            return replace(super().loss(batch, progress), **fields)

    return Agent


SCALAR = torch.tensor(1.0)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "float": ({"total": 1.5}, r"LossOutput.total: expected a tensor \[\] with gradients, got float 1.5"),
    "detached": ({"total": SCALAR}, r"LossOutput.total: .*, got a tensor \[\] without gradients"),
    "vector": (
        {"total": torch.ones(3, requires_grad=True)},
        r"LossOutput.total: .*, got a tensor \[3\] with gradients",
    ),
    "count": (
        {"count": torch.ones(3)},
        r"LossOutput.count: expected None, a number or a tensor \[\], got a tensor \[3\]",
    ),
    "nothing": ({"count": 0.0}, "LossOutput.count: expected a number above 0, got 0"),
    "negative": ({"count": torch.tensor(-4.0)}, "LossOutput.count: expected a number above 0, got -4"),
    "no number": ({"count": float("nan")}, "LossOutput.count: expected a number above 0, got nan"),
    "metric": ({"metrics": {"x": 1.5}}, r"LossOutput.metrics\['x'\]: expected a detached tensor \[\], got float 1.5"),
    "own metric": ({"metrics": {"loss": SCALAR}}, "'loss' is what the learner reports itself"),
    "feedback": (
        {"feedback": {"priority": torch.ones(7)}},
        r"feedback\['priority'\]: expected a detached tensor \[2\], got",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_a_loss_gives_wrong_is_said_and_the_run_saved(name: str, tmp_path: Path) -> None:
    fields, says = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=says):
        train(small_config(out=str(tmp_path / "run")), agent_factory=changed(**fields))
    assert load(find(tmp_path / "run"))[1]["counters"]["updates"] == 0


class Failing(impala.Agent):
    """What it keeps in the learner fails at the first update."""

    class State:
        exact = False

        def trained(self, batch: Any, updates: int) -> None:
            raise RuntimeError("my mistake")

        def state(self) -> dict[str, torch.Tensor]:
            return {}

        def load_state(self, state: dict[str, torch.Tensor]) -> None:
            """Nothing."""

    def learner_states(self) -> dict[str, Any]:
        return {"mine": Failing.State()}


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_a_failure_between_an_update_and_its_count_loses_nothing(engine: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="my mistake"):
        train(small_config(out=str(tmp_path / "run"), engine=engine), agent_factory=Failing)
    said = (tmp_path / "run" / "run.log").read_text()
    assert "saving failed too" not in said
    assert load(find(tmp_path / "run"))[1]["counters"]["updates"] == 1


class Rounded(dqn.Agent):
    """Its priorities come as they are under bfloat16."""

    def loss(self, batch: Any, progress: float) -> LossOutput:
        output = super().loss(batch, progress)
        return replace(output, feedback={name: value.bfloat16() for name, value in output.feedback.items()})


def test_feedback_may_be_bfloat16(tmp_path: Path) -> None:
    sampler = [{"kind": "prioritised", "min_rows": 20}]
    assert train(
        item_config("dqn", out=str(tmp_path / "run"), replay__samplers=sampler), agent_factory=Rounded
    ).finished


class Left(impala.Agent):
    """Always goes left."""

    def act(self, *arguments: Any, **options: Any) -> Any:
        output = super().act(*arguments, **options)
        return replace(output, action=torch.zeros_like(output.action))


def test_a_run_of_an_own_agent_is_never_taken_for_one_of_ours(tmp_path: Path) -> None:
    run = train(small_config(out=str(tmp_path / "run")), agent_factory=Left).run
    for use in (resume, offbeat.load, offbeat.evaluate, offbeat.export, offbeat.record):
        with pytest.raises(UserError, match=r"agent of your own, agent_factory=tests\.runtime\.test_outputs\.Left"):
            use(run)
    assert isinstance(offbeat.load(run, agent_factory=Left).agent, Left)
    assert offbeat.evaluate(run, episodes=2, agent_factory=Left).complete
    with pytest.raises(UserError, match="takes its network's best action, whatever else act"):
        offbeat.export(run, agent_factory=Left)
    assert offbeat.export(run, check=0, agent_factory=Left).exists()
    assert resume(run, total_frames=600, agent_factory=Left).finished

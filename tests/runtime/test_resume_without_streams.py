"""Runs resumed from a checkpoint that holds no streams: actors start anew, samplers start empty, counters go on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.config.run_config import RunConfig, apply_overrides
from offbeat.run.train import RunResult, resume, train
from offbeat.types import Unroll
from tests.conformance.counting_agent import Allowed, CountingAgent
from tests.conformance.counting_env import make_counting
from tests.conformance.runs import counting_config
from tests.runtime.parts import ITEM_AGENTS, Metrics, item_config, make_host, small_config, small_world
from tests.runtime.test_roles import Run

START = "the checkpoint holds no streams: actors start new episodes and replay starts empty, so the run does not go on"
TOO_LARGE = "are more than checkpoint.max_replay_gb=0: checkpoints leave them out"


def again(folder: Path, config: RunConfig, checkpoint: Path) -> Run:
    """All roles of a resumed run."""
    world, metrics = small_world(folder, config), Metrics()
    roles = ["learner", *(f"actor-{index}" for index in range(config.actor.workers))]
    learner, *actors = (
        make_host(world, role, metrics, free=False, checkpoint=checkpoint, incarnation=1) for role in roles
    )
    return Run(world, learner, actors, metrics)


def saved(run: Run, rounds: int, folder: Path) -> None:
    """So many rounds, then a checkpoint."""
    for _ in range(rounds):
        run.round()
    run.save(folder)


def test_the_first_batch_is_of_the_weights_and_inputs_that_were_acted_on(tmp_path: Path) -> None:
    config = small_config(learner__learning_rate=0.0, checkpoint__replay=False)
    run = Run.start(tmp_path, config)
    run.learner.work.optimiser.flat.data.mul_(4.0)  # so that a wrong last action or state is seen
    saved(run, 3, tmp_path)
    other = again(tmp_path, config, tmp_path)
    for actor in other.actors:
        actor.advance()
    batch = other.learner.batches.next(0.0)
    assert isinstance(batch, Unroll)
    assert batch.row.tolist() == [0, 0]
    assert batch.inputs.first[0].all(), "streams begin with an episode"
    ratio = float(other.learner.agent.loss(batch, 0.0).metrics["ratio_mean"])
    assert ratio == pytest.approx(1.0, abs=1e-6)


def test_counters_go_on_and_seeds_are_new(tmp_path: Path) -> None:
    config = item_config("dqn", checkpoint__replay=False, total_frames=4_000)
    run = Run.start(tmp_path, config)
    saved(run, 6, tmp_path)
    other = again(tmp_path, config, tmp_path)
    before = run.learner.work.counters()
    assert before["updates"] > 0
    assert other.learner.work.counters() == before
    assert other.world.store.head.sum() == 0
    assert other.learner.batches.mixture.stats()["sampled_rows"] == 0
    steps = run.actors[0].work.observer.steps
    assert other.actors[0].work.observer.steps == steps > 0, "exploration goes on where it was"
    for done in range(1, 8):
        status = other.round()
        assert status["agent_steps"] <= before["agent_steps"] + 20 * done
    assert status["updates"] > before["updates"]
    assert status["agent_steps"] > before["agent_steps"]
    first, fresh = (one.world.store.arrays["observation/observation"][:, :1] for one in (run, other))
    assert not np.array_equal(first, fresh)


def shortened(config: RunConfig, **changes: Any) -> RunConfig:
    """Without evaluations."""
    options = {"evaluation.at_end": False, "log.dashboard": False} | changes
    return apply_overrides(config, options.items())


@pytest.mark.parametrize("agent", list(ITEM_AGENTS))
def test_every_agent_goes_on_and_says_how(agent: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Games are so long that those under way would fill the first rows after the resume."""
    run, options = tmp_path / agent, {"total_frames": 300, "checkpoint__replay": False, "env__length": 60}
    half = train(shortened(item_config(agent, **options), out=str(run)))
    assert START not in capfd.readouterr().out
    whole = resume(run, total_frames=700)
    assert whole.updates > half.updates
    assert whole.agent_steps > half.agent_steps
    said = capfd.readouterr().out
    assert said.count(START) == 1
    assert TOO_LARGE not in said


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_stacks_are_those_acted_on(engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The counting agent refuses a batch whose stacks, states or records are not those of its rows."""
    run = tmp_path / "run"
    own: dict[str, Any] = {
        "env_factory": make_counting,
        "agent_factory": partial(CountingAgent, allowed=Allowed()),
    }
    options = {"engine": engine, "deterministic": True, "total_frames": 430, "checkpoint__max_replay_gb": 0.0}
    half = train(counting_config(run, **options), **own)
    said = capfd.readouterr().out
    assert said.count(TOO_LARGE) == 1
    whole: RunResult = resume(run, total_frames=1000, **own)
    assert whole.finished
    assert whole.updates > half.updates
    said = capfd.readouterr().out
    assert said.count(START) == said.count(TOO_LARGE) == 1

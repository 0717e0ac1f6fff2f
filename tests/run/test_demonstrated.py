"""Runs that learn from a demonstration: before the first frame, beside their own rows, and exactly on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.acting.demonstrating import Recorder, facts_of
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import make_env
from offbeat.errors import UserError
from offbeat.run.hooks import STOP
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints
from offbeat.runtime.demonstrated import demonstrated
from offbeat.storage.checkpoint import load, newest
from offbeat.storage.demonstrations import write_demonstration
from tests.runtime.parts import ITEM_AGENTS, small_config

CATCH = EnvConfig(id="toy/catch", length=6)


def play_well(file: Path, episodes: int = 6) -> Path:
    """Catch, played without a miss by a script."""
    env, recorder, ended = make_env(CATCH, 1), Recorder(), 0
    env.reset(0)
    while ended < episodes:
        step = env.recv()
        recorder.row(step)
        ended += int(not step.valid[0])
        board = step.observation["observation"][0]
        ball, paddle = int(np.argmax(board[:-1].max(0))), int(np.argmax(board[-1]))
        action = np.array([1 + np.sign(ball - paddle)])
        recorder.sent(action)
        env.send(action)
    made = recorder.demonstration(facts_of(CATCH, env.spec, 0, "a script"))
    assert made is not None
    return write_demonstration(file, made)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play_well(tmp_path_factory.mktemp("demo") / "catch")


def config_of(out: Path, demo: Path, agent: str = "dqn", **options: Any) -> RunConfig:
    """A short run that learns from ``demo``; ``a__b`` stands for ``a.b``."""
    own = {f"agent.{name}": value for name, value in ITEM_AGENTS[agent].items()}
    given: dict[str, Any] = own | {
        "out": str(out), "total_frames": 60, "evaluation.at_end": False, "learner.batch_size": 8,
        "learner.publish_every": 7, "learner.schedule": "constant", "agent.hidden_size": [8],
        "replay.samplers": '[{kind = "prioritised", min_rows = 20}]', "replay.samples_per_insert": 4.0,
        "demonstrations.path": str(demo), "demonstrations.share": 0.25, "demonstrations.pretrain_steps": 130,
    }  # fmt: skip
    changes = {key.replace("__", "."): value for key, value in options.items()}
    return apply_overrides(small_config(), [*given.items(), *changes.items()])


@pytest.mark.parametrize("agent", ["dqn", "rainbow"])
def test_pretraining_comes_before_the_first_frame_and_goes_on_bit_for_bit_after_a_stop(
    agent: str, demo: Path, tmp_path: Path
):
    seen: list[dict[str, Any]] = []

    def stop_amid(told: dict[str, Any]) -> Any:
        seen.append(told)
        return STOP

    whole = train(config_of(tmp_path / "whole", demo, agent))
    often = config_of(tmp_path / "half", demo, agent, checkpoint__every_updates=50)
    half = train(often, hooks={"on_checkpoint": stop_amid})
    assert not half.finished and (half.updates, half.frames, half.agent_steps) == (100, 0, 0) and seen
    saved = newest(half.run)
    assert saved is not None and saved.meta["counters"]["updates"] == 100 and saved.agent_steps == 0
    assert resume(half.run).finished
    compared = compare_checkpoints(whole.run, half.run)
    assert not compared.differing and compared.arrays > 20
    streams = load(newest(whole.run))[0]["streams"]  # type: ignore[arg-type]
    rows = int(np.asarray(streams["mixture/1/demonstration"])[1])
    assert rows == 130 * 8 + (whole.updates - 130) * 2 and whole.updates > 130
    versions = np.asarray(streams["streams/param_version"])
    assert (versions < 130).sum() <= 4  # nobody acted with weights of before; open rows have no version yet


def test_it_also_waits_for_nobody_in_processes(demo: Path, tmp_path: Path):
    result = train(config_of(tmp_path / "run", demo, engine="local"))
    assert result.finished and result.updates > 130
    streams = load(newest(result.run))[0]["streams"]  # type: ignore[arg-type]
    versions = np.asarray(streams["streams/param_version"])
    rows = int(np.asarray(streams["mixture/1/demonstration"])[1])
    assert (versions < 130).sum() <= 4 and rows >= 130 * 8
    assert "130 updates on it come before the first frame" in (result.run / "run.log").read_text()


def test_a_run_goes_on_with_the_same_demonstration_alone(tmp_path: Path):
    file = play_well(tmp_path / "mine")
    result = train(config_of(tmp_path / "run", file))
    play_well(tmp_path / "mine", episodes=7)
    with pytest.raises(UserError, match="was saved with another demonstration") as error:
        resume(result.run, total_frames=120)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "says"), [
    ({"demonstrations__path": ""}, "demonstrations.pretrain_steps=130 needs a demonstration"),
    ({"demonstrations__pretrain_steps": 0, "demonstrations__share": 0.0}, "has no effect without"),
    ({"demonstrations__share": 0.3}, "demonstrations.share=0.3 of learner.batch_size=8 is 2.4 items"),
    ({"learner__count": 2, "engine": "local"}, "learner.count=2: one learner alone draws from it"),
    ({"env__length": 7, "eval_env__length": 7}, "its env.length: got 6, allowed is 7"),
    ({"demonstrations__path": "/nowhere/demo.safetensors"}, "no demonstration that can be read"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_there_is_a_folder(
    options: dict[str, Any], says: str, demo: Path, tmp_path: Path
):
    with pytest.raises(UserError, match=says) as error:
        train(config_of(tmp_path / "run", demo, **options))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_agents_that_train_on_other_items_are_refused(demo: Path, tmp_path: Path):
    given = {"env.length": 6, "out": str(tmp_path / "run"), "demonstrations.path": str(demo)}
    unrolls = apply_overrides(load_preset("impala-catch"), [*given.items(), ("demonstrations.pretrain_steps", 10)])
    with pytest.raises(UserError, match="the agent trains on unrolls"):
        train(unrolls)
    config = config_of(tmp_path / "run", demo, demonstrations__path="", demonstrations__pretrain_steps=0)
    assert demonstrated(config, None, lambda: 0.9) is None  # type: ignore[arg-type]

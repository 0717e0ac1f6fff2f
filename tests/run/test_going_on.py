"""Runs that are gone on with: their counters from the first moment, finished ones, longer ones; and runs that cannot go
on at all.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from offbeat.cli import main
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset, read_config
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints
from offbeat.runtime.engines import local
from offbeat.runtime.stuck import NoProgress
from offbeat.storage.checkpoint import load, newest


def catch(out: Path, **overrides: Any) -> RunConfig:
    """A short run on Catch; ``a__b`` stands for ``a.b``."""
    options = {
        "out": str(out), "engine": "inline", "total_frames": 400, "device": "cpu", "actor.envs_per_worker": 4,
        "learner.batch_size": 4, "learner.unroll_length": 5, "evaluation.every_frames": 0, "evaluation.at_end": False,
        "log.tensorboard": False,
    }  # fmt: skip
    options |= {name.replace("__", "."): value for name, value in overrides.items()}
    return apply_overrides(load_preset("debug"), options.items())


UNIFORM = {"replay__samplers": [{"kind": "uniform", "share": 1.0}], "replay__capacity": 1000}


def test_replay_without_a_queue_trains_in_rounds_as_it_does_freely(tmp_path: Path) -> None:
    """As many rows in each round as came in it; the same in one thread and in processes."""
    inline = train(catch(tmp_path / "inline", **UNIFORM))
    lockstep = train(catch(tmp_path / "lockstep", engine="local", deterministic=True, **UNIFORM))
    assert inline.finished
    assert inline.updates >= 15
    result = compare_checkpoints(inline.run, lockstep.run)
    assert result.equal, result.differing


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_run_that_can_never_train_is_ended_with_an_explanation(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner would skip every unroll: none is ever as new as it asks for."""
    monkeypatch.setattr(sys.modules["offbeat.run.train"], "validate", lambda config, **options: None)
    config = catch(tmp_path / "run", engine=engine, total_frames=10**9, learner__publish_every=50)
    config = apply_overrides(config, [("learner.max_policy_lag", 1)])
    with pytest.raises(NoProgress, match=r"can make no progress .*learner.max_policy_lag"):
        train(config)
    found = newest(tmp_path / "run")
    assert found is not None
    assert load(found)[1]["counters"]["updates"] > 0


def test_a_run_of_a_gpu_goes_on_on_the_processor_if_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(catch(tmp_path / "run"))
    path = first.run / "config.toml"
    text = path.read_text().replace('device = "cpu"', 'device = "cuda"')
    path.write_text(text.replace('device = [\n    "cpu"', 'device = [\n    "cuda:1", "cuda:2"'))
    assert 'device = "cpu"' not in path.read_text() and "cuda:2" in path.read_text()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["resume", str(first.run), "--total-frames", "600"]) == 2
    assert "device='cuda', but torch" in capsys.readouterr().err
    assert main(["resume", str(first.run), "--total-frames", "600", "--device", "cpu"]) == 0
    config = read_config(path)
    assert (config.device, config.learner.device, config.inference.device) == ("cpu", "cpu", ("cpu",))
    assert resume(first.run).updates > first.updates, "it stays there"


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_is_where_it_was(tmp_path: Path) -> None:
    first = train(catch(tmp_path / "run", engine="local"))
    again = resume(first.run)
    assert again.finished
    assert (again.frames, again.agent_steps, again.updates) == (first.frames, first.agent_steps, first.updates)
    assert first.frames >= 400


@pytest.mark.slow
def test_a_finished_run_can_still_be_scored(tmp_path: Path) -> None:
    first = train(catch(tmp_path / "run", engine="local"))
    (first.run / "config.toml").write_text(
        (first.run / "config.toml").read_text().replace("at_end = false", "at_end = true")
    )
    again = resume(first.run)
    assert again.evaluation_mean is not None
    scores = [
        record
        for line in (first.run / "metrics.jsonl").read_text().splitlines()
        if (record := json.loads(line))["kind"] == "evaluation"
    ]
    assert [(score["frames"], score["version"]) for score in scores] == [(first.frames, first.updates)]


@pytest.mark.slow
def test_roles_of_a_resumed_run_see_its_counters_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(catch(tmp_path / "run", engine="local"))
    seen = []
    start = local.Supervisor.start

    def look(supervisor: local.Supervisor) -> None:
        board = supervisor.world.board
        seen.append(tuple(int(board[name][0]) for name in ("updates", "agent_steps", "frames")))
        start(supervisor)

    monkeypatch.setattr(local.Supervisor, "start", look)
    resume(first.run, total_frames=600)
    assert seen == [(first.updates, first.agent_steps, first.frames)]


def test_a_linear_schedule_that_is_lengthened_says_how_the_rate_jumps(tmp_path: Path, capfd: Any) -> None:
    first = train(catch(tmp_path / "run", learner__learning_rate=0.01, learner__schedule="linear"))
    resume(first.run, total_frames=800)
    said = capfd.readouterr().out
    assert "the run is now 800 frames long instead of 400, so its linear schedule goes on along another line" in said
    assert "the learning rate jumps from 0 to 0.004" in said
    resume(first.run)
    assert "the learning rate jumps" not in capfd.readouterr().out


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_updates_that_are_skipped_are_no_standstill(engine: str, tmp_path: Path) -> None:
    """The run ends with the diagnosis of its weights, however few rows the streams hold."""
    config = catch(tmp_path / "run", engine=engine, total_frames=100_000, learner__learning_rate=1e30)
    with pytest.raises(RuntimeError, match="20 updates in a row were skipped because"):
        train(config)


def test_a_run_keeps_to_its_folder_wherever_the_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that changes the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(sys.modules["offbeat.run.train"], "write_environment", lambda *a, **b: os.chdir("elsewhere"))
    result = train(catch(Path("run")))
    assert result.finished
    assert newest(tmp_path / "run") is not None
    assert not (tmp_path / "elsewhere" / "run").exists()


class Stubborn(gymnasium.Env[Any, Any]):
    """Cannot be closed, and raises exceptions without a text."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps > 60:
            raise Untold
        return np.zeros(2, np.float32), 0.0, self.steps % 5 == 0, False, {}

    def close(self) -> None:
        raise BrokenPipeError("the emulator is gone")


class Untold(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_a_users_environment_may_fail_in_any_way(tmp_path: Path, capfd: Any) -> None:
    config = catch(tmp_path / "run", env__id="stubborn", env__length=20, eval_env__id="stubborn", eval_env__length=20)
    with pytest.warns(UserWarning, match=r"stubborn: close\(\) raised BrokenPipeError"), pytest.raises(Untold):
        train(config, env_factory=Stubborn)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "in step" in log, "its traceback"
    assert "the run ended with an error: " in log
    assert "closing it failed" in log
    assert newest(tmp_path / "run") is not None


def test_users_are_told_how_their_own_objects_go_on(tmp_path: Path, capfd: Any) -> None:
    config = catch(tmp_path / "run", env__id="own", env__length=20, eval_env__id="own", eval_env__length=20)
    train(config, env_factory=partial(gymnasium.make, "CartPole-v1"))
    said = capfd.readouterr().out
    assert f"train longer: offbeat.resume('{tmp_path / 'run'}', total_frames=800, env_factory=...)" in said
    assert f"score it:     offbeat.evaluate('{tmp_path / 'run'}', episodes=20, env_factory=...)" in said
    assert f"watch it:     offbeat.record('{tmp_path / 'run'}', env_factory=...)" in said
    assert "offbeat eval" not in said.replace("offbeat.evaluate", "")

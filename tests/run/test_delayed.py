"""Runs with a simulated delay: the options, exact resume, and weights that are scored under another delay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.cli import main
from offbeat.config.run_config import RunConfig, apply_overrides, from_dict, load_preset, to_dict
from offbeat.errors import UserError
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints, verify_resume
from offbeat.scoring.evaluate import evaluate_run
from offbeat.storage.checkpoint import load, newest

SHORT: dict[str, Any] = {
    "env.length": 6, "actor.envs_per_worker": 4, "learner.schedule": "constant", "evaluation.every_frames": 0,
    "evaluation.at_end": False, "device": "cpu",
}  # fmt: skip
VARYING: dict[str, Any] = {
    "delay.distribution": "uniform", "delay.high": 3, "delay.default": "random", "delay.history": 3,
}  # fmt: skip


def debug(out: Path | str, frames: int, **options: Any) -> RunConfig:
    """The preset debug, short, with delays that vary unless ``options`` say otherwise."""
    given = SHORT | {"total_frames": frames, "out": str(out)} | (options or VARYING)
    return apply_overrides(load_preset("debug"), given.items())


def test_without_a_delay_the_weights_are_those_of_the_plain_loop(tmp_path: Path) -> None:
    alone = {"actor.envs_per_worker": 1, "learner.batch_size": 1}
    plain = train(debug(tmp_path / "plain", 400, **alone))
    late = train(debug(tmp_path / "late", 400, **alone, **{"delay.mode": "background"}))
    found = [newest(plain.run), newest(late.run)]
    assert found[0] is not None and found[1] is not None
    (parts, meta), (others, other_meta) = load(found[0]), load(found[1])
    assert any(name.startswith("0/rows/") for name in _names(others["actor-0"])), "it is wrapped"
    for part in ("learner", "streams"):
        assert parts[part].keys() == others[part].keys()
        for name, value in parts[part].items():
            same = np.asarray(value) == np.asarray(others[part][name])
            if name == "streams/elapsed":  # of rows that are no transitions it means nothing
                same |= ~np.asarray(parts[part]["streams/valid"])
            assert np.all(same), name
    assert meta["counters"] == other_meta["counters"] and plain.updates == late.updates > 20


def _names(part: dict[str, Any]) -> list[str]:
    return [name.removeprefix("envs/") for name in part]


def test_a_run_that_is_resumed_ends_like_one_that_was_longer(tmp_path: Path) -> None:
    whole = train(debug(tmp_path / "whole", 1200))
    half = train(debug(tmp_path / "half", 600))
    assert 600 <= half.frames < 1200
    resumed = resume(half.run, total_frames=1200)
    result = compare_checkpoints(whole.run, resumed.run)
    assert result.equal, result.differing


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_killed_and_resumed_equals_never_killed(engine: str, tmp_path: Path) -> None:
    config = debug("", 20_000, **VARYING | {"engine": engine, "checkpoint.every_updates": 25})
    assert verify_resume(replace(config, out=""), kills=2, folder=tmp_path)


def test_frames_are_counted_as_they_go_by(tmp_path: Path) -> None:
    in_turn = {"delay.mode": "sequential", "delay.inference_frames": 1, "delay.learn_frames": 1}
    result = train(debug(tmp_path / "run", 600, **in_turn))
    assert 1.5 * result.agent_steps < result.frames <= 2 * result.agent_steps


def test_the_section_goes_to_both_environments_and_into_the_file() -> None:
    config = debug("", 100)
    assert config.env.delay == config.eval_env.delay == config.delay
    assert (config.delay.high, config.delay.history) == (3, 3)
    data = to_dict(config)
    assert data["delay"]["high"] == 3 and "delay" not in data["env"] and "delay" not in data["eval_env"]
    assert from_dict(data) == config
    assert from_dict({name: value for name, value in data.items() if name != "delay"}).env.delay.active is False
    for refused in ({"env": {"delay": {"high": 3}}}, {"eval_env": {"delay": 3}}):
        with pytest.raises(UserError, match=r"a delay is the section \[delay\]"):
            from_dict(refused)
    with pytest.raises(UserError, match="a delay is set by options of its own"):
        apply_overrides(config, [("env.delay", "3")])


def test_the_command_line_trains_with_a_delay_and_scores_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    options = [f"--{name}={value}" for name, value in SHORT.items()]
    late = ["--delay.inference-frames", "2", "--delay.mode", "sequential", "--delay.history", "4"]
    assert main(["train", "debug", "--total-frames", "300", "--out", run, *options, *late]) == 0
    capsys.readouterr()
    lengths = {}
    for frames in ("0", "2"):
        assert main(["eval", run, "--episodes", "4", "--delay.inference-frames", frames]) == 0
        lengths[frames] = capsys.readouterr().out.rsplit(", ", 1)[1].strip()
    assert lengths == {"0": "5 steps each", "2": "2 steps each"}, "decisions in an episode of five frames"
    assert main(["export", run, "--check", "20"]) == 0
    for wrong, told in (
        (["eval", run, "--delay.history", "0"], "has another observation than the agent was trained on"),
        (["eval", run, "--delay.noops", "2"], "goes with delay.semantics=published only"),
        (["train", "debug", "--delay.mode", "late"], "choose one of: async, sequential, learn_first, background"),
        (["train", "debug", "--delay.learn-frames", "2"], "allowed with sequential and learn_first"),
        (["resume", run, "--delay.inference-frames", "3"], "cannot be another when a run goes on"),
    ):
        assert main(wrong) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("trained", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_stacks_of_frames_fit_with_and_without_a_delay(trained: int, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    options = {
        "env.id": "Pong", "env.max_frames": 200, "actor.envs_per_worker": 2, "learner.batch_size": 2,
        "engine": "inline",
        "total_frames": 160, "evaluation.every_frames": 0, "evaluation.at_end": False, "device": "cpu",
        "delay.inference_frames": trained, "out": str(tmp_path / "run"), "log.tensorboard": False,
    }  # fmt: skip
    run = train(apply_overrides(load_preset("impala-atari"), options.items())).run
    for frames in (0, 3):
        result = evaluate_run(run, 1, options=[("delay.inference_frames", frames)])
        assert result.complete and result.lengths.tolist() == [200 // 4 - frames]
        assert result.frames == 200

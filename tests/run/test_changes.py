"""What may be another when a run goes on is checked and written down; the rest is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.options import all_options
from offbeat.config.run_config import RunConfig, read_config
from offbeat.errors import UserError
from offbeat.run.changes import MAY_CHANGE, REASONS, changed

SHORT: dict[str, Any] = {"total_frames": 200, "evaluation": {"every_frames": 0}, "log": {"tensorboard": False}}


def test_what_may_change_is_taken_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = offbeat.train("debug", out=str(tmp_path / "run"), **SHORT).run
    command = ["resume", str(run), "--total-frames", "300", "--learner.learning-rate=1e-4", "--log.every-s", "2"]
    assert main([*command, "--evaluation.episodes", "40", "--checkpoint.keep", "3"]) == 0
    config = read_config(run / "config.toml")
    assert (config.total_frames, config.learner.learning_rate, config.log.every_s) == (300, 1e-4, 2.0)
    assert (config.evaluation.episodes, config.checkpoint.keep) == (40, 3)
    assert offbeat.resume(run, 400, evaluation={"episodes": 20}, learner__threads=1).finished
    assert read_config(run / "config.toml").evaluation.episodes == 20
    capsys.readouterr()
    for given, says in (
        (["--env.length", "7"], "env.length cannot be another when a run goes on: it decides what the saved streams"),
        (["--agent.discount", "0.5"], "agent.discount cannot be another when a run goes on: the saved weights are"),
        (["--learner.learning-rate", "fast"], "learner.learning_rate='fast' is not a number"),
        (["--learner.learning-rate", "-1"], "learner.learning_rate=-1.0 is out of range"),
        (["--learner.lerning-rate", "1"], "did you mean"),
        (["--log.every-s"], "needs a value"),
        (["--seed", "3"], "seed cannot be another when a run goes on: the saved generators go on from it"),
        (["--engine=local"], "engine cannot be another when a run goes on"),
    ):
        assert main(["resume", str(run), *given]) == 2
        said = capsys.readouterr().err
        assert says in said and len(said.splitlines()) == 1
    with pytest.raises(
        UserError, match="seed cannot be another when a run goes on: the saved generators go on from it"
    ):
        offbeat.resume(run, seed=3)


def test_a_deterministic_run_keeps_what_changes_a_rounding() -> None:
    config = RunConfig(deterministic=True)
    assert changed(config, [("evaluation.episodes", 20)]).evaluation.episodes == 20
    for name, value in (("learner.precision", "bf16"), ("learner.threads", 3), ("actor.threads", 2)):
        with pytest.raises(UserError, match=f"{name} cannot be another when a deterministic run goes on"):
            changed(config, [(name, value)])
        assert changed(RunConfig(), [(name, value)])


def test_every_option_may_change_or_has_a_reason() -> None:
    names = {option.name for option in all_options()}
    for pattern in MAY_CHANGE:
        assert any(name == pattern or name.startswith(pattern.removesuffix("*")) for name in names), pattern
    assert {name.partition(".")[0] for name in names} <= {*REASONS, *(p.partition(".")[0] for p in MAY_CHANGE)}


def test_a_length_that_the_run_is_past_is_refused_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = offbeat.train("debug", out=str(tmp_path / "run"), **SHORT)
    written = (result.run / "config.toml").read_text()
    assert main(["resume", str(result.run), "--total-frames", "100"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"total_frames=100 is no new length of {result.run}, which has {result.frames} frames already" in line
    for given in ((100,), (result.frames - 1,)):
        with pytest.raises(UserError, match="is no new length"):
            offbeat.resume(result.run, *given)
    assert (result.run / "config.toml").read_text() == written
    assert offbeat.resume(result.run, SHORT["total_frames"]).finished, "the same length again"
    assert offbeat.resume(result.run, result.frames + 1).finished


def test_the_length_that_is_advised_is_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = offbeat.train("debug", out=str(tmp_path / "run"), **SHORT | {"total_frames": 1})
    assert f"--total-frames {2 * result.frames}\n" in capsys.readouterr().out

"""Switches of a preset that another environment has no use for are left out, in one line that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.fitting import fitted, left_out
from offbeat.config.run_config import apply_overrides, load_preset


def said(preset: str, *options: tuple[str, str]) -> str:
    config = apply_overrides(load_preset(preset), options)
    return left_out(config, fitted(config, [name for name, _ in options]))


def test_the_line_names_what_was_left_out() -> None:
    assert said("impala-breakout", ("env", "CartPole-v1")) == (
        "preset impala-breakout sets env.life_loss, which means nothing to CartPole-v1: its default is taken"
    )
    assert said("impala-catch", ("env", "CartPole-v1"), ("env.sticky", "0")) == (
        "preset impala-catch sets env.length, which means nothing to CartPole-v1: its default is taken"
    )
    assert said("apex-dev", ("env", "toy/copy")) == (
        "preset apex-dev sets env.stack_padding, env.life_loss, which mean nothing to toy/copy: "
        "their defaults are taken"
    )


def test_nothing_is_said_where_nothing_was() -> None:
    assert said("impala-breakout") == said("impala-breakout", ("env", "Pong")) == ""
    assert said("impala-cartpole", ("env", "Acrobot-v1"), ("evaluation.episodes", "7")) == ""


def test_the_line_is_said_once_before_all_others_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "preset debug sets env.length, which means nothing to CartPole-v1: its default is taken"
    few = {"total_frames": 100, "evaluation__at_end": False}
    offbeat.train("debug", env="CartPole-v1", out=str(tmp_path / "a"), **few)
    shown = capsys.readouterr().out
    assert shown.splitlines()[1] == line and shown.count("means nothing") == 1
    assert line in (tmp_path / "a" / "run.log").read_text()
    offbeat.train("debug", out=str(tmp_path / "b"), **few)
    assert "means nothing" not in capsys.readouterr().out


def test_a_switch_that_was_given_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", "debug", "--env", "CartPole-v1", "--env.length", "5", "--out", str(tmp_path / "a")]
    assert main(asked) == 2
    assert "length=5 means nothing to CartPole-v1" in capsys.readouterr().err

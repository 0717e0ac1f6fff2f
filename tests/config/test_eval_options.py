"""``offbeat eval`` with options of the evaluation environment laid over the run's, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.fitting import fitted
from offbeat.config.run_config import RunConfig, apply_overrides, read_config
from offbeat.errors import UserError
from offbeat.scoring.evaluate import evaluate_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on Catch, whose games have 10 steps."""
    out = tmp_path_factory.mktemp("eval") / "run"
    evaluation = {"every_frames": 0, "episodes": 2}
    return offbeat.train("debug", out=str(out), total_frames=100, env={"length": 10}, evaluation=evaluation).run


def test_the_environment_is_as_asked_for_and_the_file_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, short = tmp_path / "whole.json", tmp_path / "deep" / "short.json"
    assert main(["eval", str(run), "--episodes", "4", "--out", str(whole)]) == 0
    assert main(["eval", str(run), "--episodes=4", "--eval_env.max_steps", "3", "--out", str(short)]) == 0
    assert main(["eval", str(run), "--eval-env.max-steps=3", "--episodes", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].rsplit(",", 1)[1] == lines[2].rsplit(",", 1)[1] == " 3 steps each"
    whole_record, short_record = (json.loads(path.read_text()) for path in (whole, short))
    assert whole_record["eval_env"] == {}
    assert short_record["eval_env"] == {"eval_env.max_steps": "3"}
    assert (whole_record["length"], short_record["length"]) == (9, 3)
    for record in (whole_record, short_record):
        assert record["frames"] >= 100
        assert record["frames"] == record["agent_steps"]
        assert record["updates"] == record["version"] > 0
        assert len(record["returns"]) == record["episodes"] == 4
    assert [path.name for path in short.parent.iterdir()] == ["short.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eval_env.life_los", "ignore"], "did you mean 'eval_env.life_loss'"),
        (["--eval-env.max-steps"], "option --eval_env.max_steps needs a value"),
        (["--eval-env.max-steps", "many"], "many"),
        (["--eval-env.length", "12"], "with eval_env.length=12 the evaluation environment has another observation"),
        (["--eval-env.frame-stack", "2"], "frame_stack=2 means nothing to toy/catch"),
        (["--render", "--eval-env.max-steps", "3"], "--render goes with neither"),
        (["--eval-env.sticky", "0.5"], "sticky=0.5 means nothing to toy/catch"),
    ],
)
def test_names_what_is_wrong(run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_only_the_evaluation_environment_can_be_changed(run: Path) -> None:
    with pytest.raises(UserError, match="another observation"):
        evaluate_run(run, 1, options=[("eval_env.length", 12)])
    assert evaluate_run(run, 2, options=[("eval_env.max_steps", 2)]).lengths.tolist() == [2, 2]


@pytest.mark.parametrize(("env_id", "options", "envs"), [
    ("toy/catch", {"evaluation.episodes": 3}, 3), ("toy/catch", {"evaluation.episodes": 14}, 7),
    ("toy/catch", {"evaluation.episodes": 13}, 1), ("toy/catch", {"evaluation.episodes": 40}, 10),
    ("toy/catch", {"evaluation.episodes": 3, "evaluation.envs": 10}, 10), ("toy/catch", {"seed": 3}, 10),
])  # fmt: skip
def test_evaluations_take_no_more_environments_than_share_the_episodes_that_were_asked_for(
    env_id: str, options: dict[str, int], envs: int
) -> None:
    config = apply_overrides(RunConfig(), [("env", env_id), *options.items()])
    assert fitted(config, list(options)).evaluation.envs == envs


def test_players_of_one_game_stay_together() -> None:
    pytest.importorskip("pyspiel")
    config = apply_overrides(RunConfig(), [("env", "hanabi/very-small"), ("evaluation.episodes", 4)])
    assert fitted(config, ["evaluation.episodes"]).evaluation.envs == 8
    odd = apply_overrides(config, [("evaluation.envs", 5)])
    assert fitted(odd, ["evaluation.episodes"]).evaluation.envs == 5, "is refused by its own line"


def test_three_episodes_are_evaluated_where_nothing_else_was_given(tmp_path: Path) -> None:
    evaluation = {"every_frames": 0, "episodes": 3}
    result = offbeat.train("debug", out=str(tmp_path / "run"), total_frames=100, evaluation=evaluation)
    assert result.evaluation_mean is not None
    assert read_config(result.run / "config.toml").evaluation.envs == 1, "debug has 2"
    assert offbeat.resume(result.run, 200).finished
    with pytest.raises(UserError, match=r"evaluation\.episodes=3 cannot be shared equally by evaluation\.envs=10"):
        offbeat.train("debug", out=str(tmp_path / "other"), evaluation=evaluation | {"envs": 10})

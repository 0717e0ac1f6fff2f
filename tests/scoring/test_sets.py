"""Scores on several sets of environments: at a run's end and by ``offbeat eval --sets``, which are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig
from offbeat.envs.toy import ToyVector
from offbeat.errors import UserError
from offbeat.scoring.sets import evaluate_sets, planned
from offbeat.types import EnvStep

GAME = 6
SETS = {"vary": "length", "values": "100,300", "train_set": True, "episodes": 4, "envs": 2}


class Levels(ToyVector):
    """Catch, always of one size, in which ``env.length`` is the level: each step of a game earns that much more."""

    def __init__(self, config: EnvConfig, num_envs: int, **options: Any) -> None:
        super().__init__(replace(config, id="toy/catch", length=GAME), num_envs)
        self._level = config.length

    def recv(self) -> EnvStep:
        """The rows, with what the level pays."""
        rows = super().recv()
        return replace(rows, raw_reward=np.where(rows.first, 0.0, rows.raw_reward + self._level).astype(np.float32))


def train(folder: Path, **options: Any) -> Any:
    """A short run on level 10 that ends with three sets."""
    given: dict[str, Any] = {
        "total_frames": 200, "device": "cpu", "engine": "inline", "out": str(folder), "env": {"length": 10},
        "actor": {"envs_per_worker": 4}, "learner": {"batch_size": 4, "unroll_length": 5},
        "evaluation": {"every_frames": 0, "at_end": False}, "log": {"tensorboard": False}, "final": SETS,
    }  # fmt: skip
    return offbeat.train("debug", env_factory=Levels, **(given | options))


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It."""
    made: Path = train(tmp_path_factory.mktemp("sets") / "run").run
    return made


def test_a_run_ends_with_its_sets(run: Path) -> None:
    found = lines(run, "final")
    assert [(line["set"], line["test"]) for line in found] == [("train", 0), ("length=100", 1), ("length=300", 1)]
    for line, level in zip(found, (10, 100, 300), strict=True):
        assert line["episodes"] == 4 and line["policy"] == "greedy"
        caught = [score - level * steps for score, steps in zip(line["returns"], line["lengths"], strict=True)]
        assert set(caught) <= {-1.0, 1.0}, "whole games of this level"
    (total,) = lines(run, "final_summary")
    assert total["train_mean"] == found[0]["mean"] and total["test_sets"] == 2
    assert total["test_mean"] == pytest.approx((found[1]["mean"] + found[2]["mean"]) / 2, rel=1e-6)
    assert total["test_std"] == pytest.approx(abs(found[1]["mean"] - found[2]["mean"]) / 2, rel=1e-6)
    said = (run / "run.log").read_text()
    assert "mean of 2 test sets" in said and said.count("playing 4 episodes of ") == 3


def test_the_same_sets_are_the_same_games_afterwards(run: Path) -> None:
    again = offbeat.evaluate_sets(run, env_factory=Levels)
    assert again.complete
    assert [got.returns.tolist() for _, got in again.played] == [line["returns"] for line in lines(run, "final")]
    assert again.played[0][1].at["updates"] == lines(run, "final")[0]["updates"]
    other = offbeat.evaluate_sets(run, env_factory=Levels, seed=7, final={"values": (5,), "train_set": False})
    assert [score.name for score in other.scores] == ["length=5"] and other.summary()["test_std"] == 0


def test_a_run_of_processes_plays_them_too(run: Path, tmp_path: Path) -> None:
    made = train(tmp_path / "run", engine="local", final=SETS | {"sets": 0}).run
    assert [line["set"] for line in lines(made, "final")] == ["train", "length=100", "length=300"]
    assert len(lines(made, "final_summary")) == 1


def test_the_command_prints_a_table_and_writes_all_of_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, env = tmp_path / "sets.json", ["--env", "tests.scoring.test_sets:Levels"]
    assert main(["eval", str(run), "--sets", "--out", str(out), *env]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in table] == ["set", "train", "length=100", "length=300", "mean"]
    written = json.loads(out.read_text())
    assert [one["set"] for one in written["sets"]] == ["train", "length=100", "length=300"]
    assert f"{written['test_mean']:.2f}" in table[-1] and written["options"] == {}
    seeds = ["--final.values", "", "--final.train-set", "false", "--final.sets", "2"]
    assert main(["eval", str(run), "--sets", *seeds, "--final-env.max-steps", "3", "--episodes", "2", *env]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[1:3]] == ["seed=0", "seed=1"] and [row[1] for row in rows[1:3]] == ["30.00"] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--final.sets", "2"], "--final.sets goes with --sets only"),
        (["--sets", "--final.sets", "2"], "final.sets=2 with final.values=[100, 300]"),
        (["--sets", "--final.vary", "lenght"], "unknown final.vary 'lenght'; did you mean 'length'"),
        (["--sets", "--final.episodes", "0"], "final.episodes=0 is out of range"),
        (["--sets", "--render"], "--render goes with neither"),
    ],
)
def test_names_what_is_wrong(run: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), *options, "--env", "tests.scoring.test_sets:Levels"]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_run_without_sets_says_how_to_name_some(tmp_path: Path) -> None:
    made = train(tmp_path / "run", final={"sets": 0}).run
    with pytest.raises(UserError, match="names no sets of environments"):
        planned(made)


def test_a_run_that_is_over_is_scored_on_other_sets_when_it_is_resumed(tmp_path: Path) -> None:
    made = train(tmp_path / "run").run
    assert offbeat.resume(made, env_factory=Levels, final={"values": "50"}).finished
    assert [line["set"] for line in lines(made, "final")] == ["train", "length=50"]
    assert len(lines(made, "final_summary")) == 1


def test_a_stop_leaves_the_sets_that_are_whole(run: Path) -> None:
    ended: list[int] = []
    got = evaluate_sets(
        run,
        env_factory=Levels,
        on_progress=lambda count, frames: ended.append(count),
        stop=lambda: max(ended, default=0) > 5,
    )
    assert not got.complete and [one.name for one, _ in got.played] == ["train"]
    assert "test_mean" not in got.record()

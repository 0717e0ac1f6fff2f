"""Runs that are validated, in every engine: when, on what, which weights are kept; a resume changes nothing of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import offbeat
from offbeat.acting.episodes import play_episodes
from offbeat.cli import main
from offbeat.envs.registry import make_env
from offbeat.errors import UserError
from offbeat.run.load import load_agent, run_config
from offbeat.run.train import train
from offbeat.runtime.brief import Brief
from offbeat.runtime.topology import topology
from offbeat.storage.checkpoint import load_weights
from offbeat.storage.named import BEST, EXTRA, chosen
from offbeat.types import UNROLL
from tests.conformance.realtime_runs import DecidingAgent, realtime_config
from tests.conformance.serial_engine import serialising

ENGINES: dict[str, dict[str, Any]] = {
    "inline": {"engine": "inline"}, "lockstep": {"engine": "local", "deterministic": True}, "free": {"engine": "local"},
}  # fmt: skip


def run(folder: Path, engine: str = "inline", **options: Any) -> Any:
    """A short run on Catch that is validated every 100 agent steps."""
    given: dict[str, Any] = {
        "total_frames": 600, "device": "cpu", "out": str(folder), "actor": {"envs_per_worker": 4},
        "learner": {"batch_size": 4, "unroll_length": 5, "learning_rate": 0.02, "schedule": "constant"},
        "evaluation": {"every_frames": 0, "at_end": False},
        "validation": {"every_steps": 100, "episodes": 6, "envs": 2}, "log": {"every_updates": 5, "tensorboard": False},
        "checkpoint": {"every_updates": 10, "every_s": 0},
    }  # fmt: skip
    return offbeat.train("debug", **(given | ENGINES[engine] | options))


def validations(run: Path) -> list[dict[str, Any]]:
    """Their records, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["kind"] == "validation"]
    return [{name: value for name, value in line.items() if name not in ("time", "seconds")} for line in found]


def replayed(run: Path) -> np.ndarray:
    """Returns of the games that a validation plays, with the weights of the checkpoint ``best``."""
    config = run_config(run)
    row = topology(config, UNROLL).row("validator")
    seeds = Brief.seeds(SimpleNamespace(run_seed=config.seed, role_seed=row.seed), 0)  # type: ignore[arg-type]
    agent, _ = load_agent(run, config, checkpoint="best")
    env = make_env(config.valid_env, config.validation.envs)
    return play_episodes(env, agent, episodes=config.validation.episodes, seed=seeds[0]).returns


@pytest.mark.parametrize("engine", ["inline", "free", pytest.param("lockstep", marks=pytest.mark.slow)])
def test_the_weights_that_are_kept_are_those_that_were_validated_best(engine: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    made = run(tmp_path / "run", engine).run
    found = validations(made)
    assert {record["role"] for record in found} == {"validator"}
    steps = [record["agent_steps"] for record in found]
    if engine != "free":
        assert [step // 100 for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps == sorted(steps) and steps
    best = max(found, key=lambda record: record["mean"])  # the first of equal ones
    weights, meta = load_weights(chosen(made, "best"))
    assert (meta["version"], meta["frames"]) == (best["version"], best["frames"])
    assert meta["validation_mean"] == pytest.approx(best["mean"], rel=1e-6)
    np.testing.assert_array_equal(replayed(made), best["returns"])
    newest = load_weights(made)[0]
    assert weights.keys() == newest.keys()
    assert meta["version"] == load_weights(made)[1]["version"] or any(
        not torch.equal(weights[name], newest[name]) for name in newest
    )
    if engine == "inline":
        rows = (made / "progress.csv").read_text().splitlines()
        last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
        assert float(last["valid_mean"]) == found[-1]["mean"] and float(last["valid_best"]) == best["mean"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    made: Path = run(tmp_path_factory.mktemp("whole") / "run", checkpoint=OFTEN).run
    return made


OFTEN = {"every_updates": 10, "every_s": 0, "extra_at": 250, "keep": 10}


def same(one: Path, other: Path) -> None:
    """Both have validated the same, and kept the same weights."""
    assert validations(one) == validations(other)
    for name in (BEST, EXTRA):
        (weights, meta), (wanted, told) = (load_weights(chosen(folder, name)) for folder in (one, other))
        assert meta["counters"] == told["counters"], name
        assert all(torch.equal(weights[key], wanted[key]) for key in wanted)


def test_a_longer_run_goes_on_validating_as_one_that_was_never_that_short(whole: Path, tmp_path: Path) -> None:
    short = run(tmp_path / "run", total_frames=330, checkpoint=OFTEN).run
    extra = (short / "checkpoints" / "extra" / "manifest.json").stat().st_mtime_ns
    assert offbeat.resume(short, 600).finished
    same(short, whole)
    assert (short / "checkpoints" / "extra" / "manifest.json").stat().st_mtime_ns == extra, "it was made once"


def test_a_run_that_was_killed_after_its_best_was_kept_comes_to_the_same(whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "run"
    shutil.copytree(whole, killed)
    steps = sorted(path for path in (killed / "checkpoints").glob("0*"))
    for path in steps[1:]:
        shutil.rmtree(path)
    assert int(steps[0].name) < 250, "the extra checkpoint and the best are from later on"
    assert offbeat.resume(killed).finished
    same(killed, whole)


def test_what_is_kept_can_be_scored_exported_and_started_from(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    assert main(["eval", str(whole), "--checkpoint", "best", "--episodes", "2", "--out", str(out)]) == 0
    best = load_weights(chosen(whole, "best"))[1]
    assert json.loads(out.read_text())["updates"] == best["version"]
    assert offbeat.evaluate(whole, episodes=2, checkpoint="extra").at["agent_steps"] == 252
    assert main(["export", str(whole), "--checkpoint", "best", "--out", str(tmp_path / "best.pt2")]) == 0
    agent = offbeat.load(whole, checkpoint="best")
    assert agent.act(agent.spec.observation["observation"].zeros()) in (0, 1, 2)
    for source in (whole / "checkpoints" / "best", str(whole / "checkpoints" / "extra")):
        again = run(tmp_path / Path(source).name, total_frames=20, from_run=source, validation={"every_steps": 0})
        assert again.finished
    capsys.readouterr()
    assert main(["eval", str(whole), "--checkpoint", "worst"]) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint 'worst': there are best, extra, " in said and said.count("\n") == 1


@pytest.mark.parametrize("engine", ["free", pytest.param("lockstep", marks=pytest.mark.slow)])
def test_the_best_weights_cross_as_bytes_where_roles_share_no_memory(engine: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with serialising():
        made = run(tmp_path / "run", engine, total_frames=300).run
    best = max(validations(made), key=lambda record: record["mean"])
    assert load_weights(chosen(made, "best"))[1]["version"] == best["version"]
    np.testing.assert_array_equal(replayed(made), best["returns"])


def test_a_world_that_never_waits_is_validated_too(tmp_path: Path) -> None:
    every = {"validation__every_steps": 60, "validation__episodes": 2, "validation__envs": 2}
    made = train(realtime_config(tmp_path / "run", **every), agent_factory=DecidingAgent).run
    found = validations(made)
    best = max(one["mean"] for one in found)
    assert load_weights(chosen(made, "best"))[1]["validation_mean"] == pytest.approx(best, rel=1e-6)


def test_minutes_do_not_count_in_a_fixed_schedule_which_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(tmp_path / "run", total_frames=60, validation={"every_minutes": 1e-9, "episodes": 6, "envs": 2}).run
    assert validations(made) == []
    assert "no validation will be played: validation.every_minutes=1e-09 does not count" in capsys.readouterr().out


def test_minutes_count_where_roles_run_freely(tmp_path: Path) -> None:
    every = {"every_minutes": 1e-9, "episodes": 6, "envs": 2}
    made = run(tmp_path / "run", "free", total_frames=2000, validation=every).run
    assert validations(made) and (made / "checkpoints" / "best").is_dir()


def test_validations_are_played_in_environments_of_their_own(tmp_path: Path) -> None:
    made = run(tmp_path / "run", total_frames=230, valid_env={"max_steps": 4}, eval_env={"max_steps": 5}).run
    assert [record["lengths"] for record in validations(made)] == [[4] * 6] * 2
    own = make_env(run_config(made).valid_env, 1)
    assert own.spec.max_episode_steps == 4 and run_config(made).final_env.max_steps == 5


def test_a_run_without_validations_has_no_validator_and_no_best(tmp_path: Path) -> None:
    made = run(tmp_path / "run", total_frames=100, validation={"every_steps": 0}).run
    assert validations(made) == []
    assert topology(run_config(made), UNROLL).of("validator") == []
    with pytest.raises(UserError, match="has no checkpoint 'best'"):
        offbeat.load(made, checkpoint="best")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"validation": {"every_steps": 9, "episodes": 5, "envs": 2}},
            "validation.episodes=5 cannot be shared",
        ),
        ({"valid_env": {"length": 9}}, "valid_env 'toy/catch' has other observations"),
        ({"valid_env": {"sticky": 0.5}}, r"\[valid_env\] sticky=0.5 means nothing"),
        ({"validation": {"every_steps": -1}}, "validation.every_steps=-1 is out of range"),
        (
            {"final": {"values": (8, 9), "vary": "length"}},
            "final_env 'toy/catch' has other observations",
        ),
        ({"final": {"sets": 2, "episodes": 3, "envs": 2}}, r"final.episodes=3 cannot be shared equally"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_starts(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()

"""Whole runs on several games: what engines agree on, each game's scores, and that a killed run goes on bit for bit."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.errors import UserError
from offbeat.run.records import read_records
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints, verify_resume
from offbeat.scoring.evaluate import evaluate_run
from tests.conformance.serial_engine import serialising

GAMES = ["minatar/breakout", "minatar/freeway", "minatar/asterix"]


@pytest.fixture(autouse=True)
def _needs_minatar() -> None:
    pytest.importorskip("minatar")


def config(out: Path, several: str, updates: int = 30, **options: Any) -> RunConfig:
    """2 actors with 4 environments each, updates of 20 rows; ``a__b`` stands for ``a.b``."""
    fixed = {
        "out": str(out), "engine": "inline", "total_frames": updates * 20, "device": "cpu", "env.ids": GAMES,
        "env.several": several, "env.max_steps": 30, "env.length": 20, "agent.torso": "mlp",
        "actor.workers": 2, "actor.envs_per_worker": 4, "learner.batch_size": 4, "learner.unroll_length": 5,
        "evaluation.every_frames": 0, "evaluation.at_end": False, "log.tensorboard": False,
    }  # fmt: skip
    fixed |= {name.replace("__", "."): value for name, value in options.items()}
    return apply_overrides(load_preset("debug"), fixed.items())


@pytest.mark.slow
@pytest.mark.parametrize("several", ["at_once", "in_turn"])
def test_inline_and_lockstep_give_the_same_weights_bit_for_bit(several: str, tmp_path: Path) -> None:
    inline = train(config(tmp_path / "inline", several))
    lockstep = train(config(tmp_path / "lockstep", several, engine="local", deterministic=True))
    result = compare_checkpoints(inline.run, lockstep.run)
    assert result.equal, result.differing
    for run in (inline.run, lockstep.run):
        assert games_of(run) == set(GAMES)


@pytest.mark.parametrize("several", ["at_once", "in_turn"])
def test_a_run_that_is_resumed_ends_like_one_that_was_longer(several: str, tmp_path: Path) -> None:
    """Turns are of 200 frames, and the run is cut in the second one."""
    same = {"learner__schedule": "constant"} | ({"env__turn_frames": 200} if several == "in_turn" else {})
    whole = train(config(tmp_path / "whole", several, 30, **same))
    half = train(config(tmp_path / "half", several, 14, **same))
    resumed = resume(half.run, total_frames=30 * 20)
    result = compare_checkpoints(whole.run, resumed.run)
    assert result.equal, result.differing
    played = [[record["game"], record["return"]] for record in episodes_of(whole.run)]
    assert played == [[record["game"], record["return"]] for record in episodes_of(resumed.run)]
    assert {game for game, _ in played} == set(GAMES)


@pytest.mark.slow
@pytest.mark.parametrize("several", ["at_once", "in_turn"])
def test_killed_and_resumed_equals_never_killed(several: str, tmp_path: Path) -> None:
    one = config(tmp_path / "unused", several, 60)
    assert verify_resume(replace(one, out=""), kills=2, folder=tmp_path)


@pytest.mark.parametrize("several", [pytest.param("at_once", marks=pytest.mark.slow), "in_turn"])
def test_a_run_at_its_own_pace_plays_all_games(several: str, tmp_path: Path) -> None:
    result = train(config(tmp_path / "run", several, 60, engine="local"))
    assert result.finished and games_of(result.run) == set(GAMES)


@pytest.mark.slow
@pytest.mark.parametrize("several", ["at_once", "in_turn"])
def test_so_does_one_whose_roles_share_no_memory(several: str, tmp_path: Path) -> None:
    with serialising():
        result = train(config(tmp_path / "run", several, 60, engine="local"))
    assert result.finished and games_of(result.run) == set(GAMES)


def episodes_of(run: Path) -> list[dict[str, Any]]:
    """Training episodes, in order."""
    return [record for record in read_records(run / "metrics.jsonl") if record["kind"] == "episode"]


def games_of(run: Path) -> set[str]:
    """What the run's training episodes were of."""
    return {str(record["game"]) for record in episodes_of(run)}


def test_scores_are_of_every_game(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of those that are not trained on yet, or not any more."""
    scored = {"evaluation__episodes": 4, "evaluation__envs": 2, "evaluation__every_frames": 200}
    run = train(config(tmp_path / "run", "in_turn", **scored, evaluation__at_end=True)).run
    lines = capsys.readouterr().out
    assert "3 games in turn, 200 frames each, the list once" in lines
    assert "minatar/breakout has 4 of 7 channels and 3 of 5 actions" in lines
    found = [record for record in read_records(run / "metrics.jsonl") if record["kind"] == "evaluation"]
    assert len(found) == 3
    for record in found:
        assert record["episodes"] == 12 and record["games"] == ",".join(GAMES)
        means = []
        for index, game in enumerate(GAMES):
            own = [r for r, of in zip(record["returns"], record["game_each"], strict=True) if of == index]
            assert len(own) == 4
            means.append(sum(own) / 4)
            assert record[f"return_{game.replace('/', '_')}"] == pytest.approx(means[-1])
        assert record["mean"] == pytest.approx(sum(means) / 3)
    with (run / "progress.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    for game in GAMES:
        name = game.replace("/", "_")
        assert float(row[f"eval_{name}"]) == pytest.approx(found[-1][f"return_{name}"])
        assert row[f"return_{name}"] or game == "minatar/freeway"
    result = evaluate_run(run, 2)
    assert len(result.returns) == 6 and list(result.of_games()) == GAMES
    said = result.summary().splitlines()
    assert [line.split(":")[0] for line in said] == [*GAMES, "all 3 games"]


def test_what_cannot_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    for options, said in [
        ({"env__ids": ["minatar/breakout", "toy/catch"]}, "cannot be in one list"),
        ({"eval_env__id": "minatar/asterix"}, "has other observations or actions"),
        ({"actor__workers": 1, "actor__envs_per_worker": 2}, "names 3 games at once and there are 2"),
    ]:
        with pytest.raises(UserError, match=said):
            train(config(tmp_path / "run", "at_once", **options))
        assert not (tmp_path / "run").exists()

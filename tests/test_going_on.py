"""Runs that are gone on with: their counters from the first moment, finished ones, longer ones; and runs that cannot go
on at all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from offbeat.checkpoint import load, newest
from offbeat.config import RunConfig, apply_overrides, load_preset
from offbeat.runtime.engines import local
from offbeat.runtime.progress import NoProgress
from offbeat.train import resume, train
from offbeat.verify import compare_checkpoints


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
    monkeypatch.setattr(sys.modules["offbeat.train"], "validate", lambda config, **options: None)
    config = catch(tmp_path / "run", engine=engine, total_frames=10**9, learner__publish_every=50)
    config = apply_overrides(config, [("learner.max_policy_lag", 1)])
    with pytest.raises(NoProgress, match=r"can make no progress .*learner.max_policy_lag"):
        train(config)
    found = newest(tmp_path / "run")
    assert found is not None
    assert load(found)[1]["counters"]["updates"] > 0


def test_a_finished_run_that_is_resumed_is_where_it_was(tmp_path: Path) -> None:
    first = train(catch(tmp_path / "run", engine="local"))
    again = resume(first.run)
    assert again.finished
    assert (again.frames, again.agent_steps, again.updates) == (first.frames, first.agent_steps, first.updates)
    assert first.frames >= 400


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

"""One run of a campaign: its commands, and whether what lies in its folder is it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.config.auto import decide
from offbeat.config.run_config import to_toml
from offbeat.errors import UserError
from offbeat.run.planned import Planned


def planned(folder: Path, frames: int = 400, batch: int = 4, preset: str = "debug") -> Planned:
    options = (("total_frames", frames), ("learner.batch_size", batch), ("agent.hidden_size", [8]))
    return Planned("tiny", preset, 3, options, folder / "tiny-seed3", entry="tiny")


def test_its_commands(tmp_path: Path) -> None:
    run = planned(tmp_path)
    whole = ["--total_frames", "400", "--learner.batch_size", "4", "--agent.hidden_size"]
    start = ["train", "debug", "--seed", "3", "--out", str(run.folder), *whole, "[8]"]
    assert run.command() == start
    assert run.command({"learner.threads": 2}) == [*start, "--learner.threads", "2"]
    own = replace(run, own=("mine:Env", "Env"))
    assert own.command() == [*start, "--env", "mine:Env"]
    assert own.config().env.id == own.config().eval_env.id == "Env"


def test_a_folder_of_other_options_is_not_taken_for_it(tmp_path: Path) -> None:
    run = planned(tmp_path)
    run.check()
    run.folder.mkdir(parents=True)
    (run.folder / "config.toml").write_text(to_toml(decide(run.config())))
    run.check()
    assert run.going_on() == ["resume", str(run.folder)]
    longer = planned(tmp_path, frames=800)
    longer.check()
    assert longer.going_on() == ["resume", str(run.folder), "--total-frames", "800"]
    assert planned(tmp_path, frames=200).going_on() == ["resume", str(run.folder)]
    with pytest.raises(UserError, match=r"holds a run with learner.batch_size = 4, and the campaign says 8: give"):
        planned(tmp_path, batch=8).check()
    with pytest.raises(UserError, match="preset = 'debug', and the campaign says 'impala-catch'"):
        planned(tmp_path, preset="impala-catch").check()
    with pytest.raises(UserError, match=r"env.id = 'toy/catch', and the campaign says 'Env'"):
        replace(run, own=("mine:Env", "Env")).check()
    (run.folder / "config.toml").write_text(to_toml(decide(replace(run, own=("mine:Env", "Env")).config())))
    with pytest.raises(UserError, match=r"env.id = 'Env', and the campaign says 'toy/catch': .* needs its --env again"):
        run.check()

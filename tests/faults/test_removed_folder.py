"""A run whose folder is removed or moved while it trains: nothing is saved, and it says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from offbeat.storage import checkpoint as checkpoints
from offbeat.storage.checkpoint import CheckpointError
from tests.faults.command import intact, saved, training

GONE = "its folder was removed or moved"


def remove(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)  # what was written meanwhile


def move(run: Path) -> None:
    (run.parent / "elsewhere").mkdir()
    run.rename(run.parent / "elsewhere" / "run")


@pytest.mark.parametrize("take_away", [remove, move])
def test_a_run_without_its_folder_says_that_nothing_is_saved(take_away: Callable[[Path], None], tmp_path: Path) -> None:
    with training(tmp_path, "--checkpoint.every-updates", "50") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        take_away(tmp_path / "run")
        command.until_said(f"checkpoint failed, the run goes on and earlier ones are kept: cannot write {tmp_path}")
        command.press_ctrl_c()
        assert command.wait() == 2, command.output
        last = command.output.strip().splitlines()[-1]
        assert "the run's end is not saved" in last
        assert GONE in last
        assert "go on with" not in command.output
        assert "and saved at" not in command.output
        assert "Traceback" not in command.output
    assert not (tmp_path / "run").exists(), "no folder that holds checkpoints alone"
    if take_away is move:
        assert intact(tmp_path / "elsewhere"), "what was saved before is there"


@pytest.mark.parametrize("when", ["before", "between", "at the end"])
def test_a_draft_makes_no_run_folder_anew(when: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()

    def save() -> None:
        if when == "before":
            run.rmdir()
        draft = checkpoints.begin(run, 5)
        if when == "between":
            shutil.rmtree(run)
        draft.write("learner", {})
        shutil.rmtree(run)
        draft.commit({}, keep=1)

    with pytest.raises(CheckpointError, match=f"cannot write .*{GONE} while the run was at work; nothing is saved"):
        save()
    assert not run.exists()

"""What breaks a run of unrolls breaks one of transitions or sequences in the same way, and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import (
    command,
    test_disk,
    test_environments,
    test_hangs,
    test_output,
    test_removed_folder,
    test_signals,
)
from tests.faults.command import intact, saved, training

OFTEN = ("--checkpoint.every-updates", "20")
RAISES = test_environments.test_an_environment_that_raises_ends_the_run_with_its_traceback
FAULTS: dict[str, Callable[..., None]] = {
    "raises": partial(RAISES, "local"),
    "raises in lock-step": partial(RAISES, "lockstep"),
    "raises inline": partial(RAISES, "inline"),
    "hangs": test_environments.test_a_hanging_actor_is_reported_with_its_stack_and_replaced_within_bounds,
    "keeps dying": test_environments.test_an_actor_that_keeps_dying_is_replaced_only_so_often,
    "gives no numbers": partial(
        test_environments.test_rewards_that_are_no_numbers_stop_the_run_with_a_diagnosis, "local"
    ),
    "learner is stopped": test_hangs.test_ctrl_c_does_not_wait_for_a_stopped_learner,
    "actor is stopped": partial(test_hangs.test_ctrl_c_in_lockstep_does_not_wait_for_a_stopped_role, "actor-0"),
    "ctrl-c": test_signals.test_ctrl_c_saves_and_the_run_goes_on_later,
    "sigterm at the start": partial(test_signals.test_sigterm_while_the_run_starts_up, ()),
    "two ctrl-c": test_signals.test_a_second_ctrl_c_ends_the_run_at_once,
    "killed learner": test_signals.test_a_killed_learner_is_rebuilt_and_the_run_goes_on_from_what_it_saves_then,
    "killed learner, nothing kept": (
        test_signals.test_a_killed_learner_that_nothing_is_kept_of_ends_the_run_and_leaves_the_last_checkpoint
    ),
    "killed server": partial(test_signals.test_any_other_killed_role_ends_the_run_which_saves, "inference"),
    "killed command": test_signals.test_no_role_outlives_a_killed_command_not_even_one_that_hangs,
    "disk": test_disk.test_a_full_disk_ends_no_run,
    "file": test_disk.test_a_file_that_cannot_grow_costs_one_checkpoint_only,
    "folder": partial(
        test_removed_folder.test_a_run_without_its_folder_says_that_nothing_is_saved, test_removed_folder.remove
    ),
    "reader": test_output.test_a_reader_that_has_seen_enough_leaves_the_run_training,
}
"""The faults of unrolls, as they are tried there."""
QUICK = {("gives no numbers", "r2d2")}


@pytest.mark.parametrize(
    ("fault", "agent"),
    [
        pytest.param(fault, agent, marks=() if (fault, agent) in QUICK else pytest.mark.slow)
        for agent in ("dqn", "r2d2")
        for fault in FAULTS
    ],
)
def test_a_run_of_items_ends_as_one_of_unrolls(
    fault: str, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TRAINED", agent)
    options: dict[str, Any] = {"tmp_path": tmp_path}
    FAULTS[fault](**options)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["dqn", "r2d2"])
def test_a_run_of_items_that_is_killed_goes_on_from_its_replay(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TRAINED", agent)
    with training(tmp_path, *OFTEN) as run:
        run.until(lambda: len(saved(tmp_path)) >= 2, "two checkpoints")
        run.process.kill()
        run.wait()
    assert intact(tmp_path)
    said = command.resumes(tmp_path, int(saved(tmp_path)[-1]) + 200)
    assert "finished" in said and "no streams" not in said

"""Whole runs of several learners: one is killed in its turn, the others go on, all is counted, and a resume goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat.agents import dqn
from offbeat.config.run_config import RunConfig
from offbeat.run.train import resume, train
from offbeat.storage.checkpoint import load, newest
from offbeat.types import TensorDict
from tests.conformance.runs import ledger, records
from tests.runtime.parts import item_config


class Dies:
    """Kept by an agent: the first ``learner-1`` is killed in the middle of a turn."""

    exact = False

    def __init__(self, note: Path) -> None:
        self._note = note

    def trained(self, batch: Any, updates: int) -> None:
        """Half of the step is made: the optimiser has stepped, nobody else has seen it."""
        if multiprocessing.current_process().name == "offbeat-learner-1" and not self._note.exists():
            self._note.write_text(json.dumps(updates))
            os.kill(os.getpid(), signal.SIGKILL)

    def state(self) -> TensorDict:
        """Nothing."""
        return {}

    def load_state(self, state: TensorDict) -> None:
        """Nothing."""


class Agent(dqn.Agent):
    """DQN that dies in one learner."""

    def __init__(self, *arguments: Any, note: Path) -> None:
        super().__init__(*arguments)
        self._dies = Dies(note)

    def learner_states(self) -> dict[str, Any]:
        """The target network, and who dies."""
        return {**super().learner_states(), "dies": self._dies}


def config_in(folder: Path) -> RunConfig:
    """A short run of two learners."""
    return item_config(
        "dqn", engine="local", total_frames=3000, learner__mode="async", learner__count=2, out=str(folder / "run"),
        replay__samples_per_insert=2.0, evaluation__at_end=False, log__every_s=0.5,
    )  # fmt: skip


def test_a_run_goes_on_when_a_learner_is_killed_in_its_turn(tmp_path: Path) -> None:
    config = replace(config_in(tmp_path), total_frames=10**7)
    restarted: list[int] = []

    def watch(line: dict[str, Any]) -> object:
        """End the run when the learner that took the place of the dead one has learnt."""
        if line["kind"] == "restart":
            restarted.append(line["values"]["learner"])
        learnt = line["kind"] == "learner" and line["role"] == "learner-1" and line["values"]["own_updates"] > 20
        return offbeat.STOP if restarted and learnt else None

    note = tmp_path / "killed"
    result = train(config, agent_factory=partial(Agent, note=note), hooks={"on_metrics": watch})
    assert restarted == [1] and not result.finished
    assert json.loads(note.read_text()) < result.updates
    assert "learner-1 was killed by SIGKILL; replaced (1 of at most 5 times)" in (result.run / "run.log").read_text()
    check_ledger(result.run)
    found = newest(result.run)
    assert found is not None
    part, meta = load(found)[0]["learner"], load(found)[1]
    assert meta["counters"]["updates"] == result.updates == int(np.sum(part["master/staleness"]))
    assert float(part["optimiser/step"]) == result.updates
    assert meta["counters"]["samples"] == config.learner.batch_size * result.updates


@pytest.mark.slow
def test_a_run_is_resumed_with_as_many_learners_and_with_one(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    first = train(config)
    again = resume(first.run, 5000)
    assert again.finished and again.frames >= 5000 and again.updates > first.updates
    check_books(again.run, again.updates, config.learner.batch_size)
    assert {line["role"] for line in records(again.run) if line["kind"] == "learner"} == {"learner", "learner-1"}
    alone = resume(again.run, 5400, changes=[("learner.mode", "sync"), ("learner.count", 1)])
    assert alone.finished and alone.updates > again.updates


def check_ledger(run: Path) -> None:
    """Every row is somewhere."""
    rows = ledger(run)
    assert all(count >= 0 for count in rows.values()), rows
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows


def check_books(run: Path, updates: int, batch: int) -> None:
    """The ledger closes, every update is counted once with its staleness, and so is every sample."""
    check_ledger(run)
    (stale,) = [line for line in records(run) if line["kind"] == "staleness"]
    assert sum(stale["counts"]) == stale["updates"] == updates
    assert stale["counts"][0] < updates, "some gradients were older"
    learner = [line for line in records(run) if line["kind"] == "learner"]
    assert max(line["updates"] for line in learner) == updates
    assert max(line["samples"] for line in learner) == batch * updates

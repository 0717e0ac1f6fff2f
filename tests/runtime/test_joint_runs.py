"""Whole runs of learners that step together: the same weights in each, all counted, resumed, ended by a death."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from offbeat.agents import dqn, impala
from offbeat.config.run_config import RunConfig
from offbeat.run.train import resume, train
from offbeat.runtime.supervisor import RoleFailed
from offbeat.storage.checkpoint import load, newest
from offbeat.types import TensorDict
from tests.conformance.runs import ledger, records
from tests.runtime.parts import item_config, small_config


class Notes:
    """Kept by an agent: writes a hash of the weights after each update, one file for each learner."""

    exact = False
    shards = True

    def __init__(self, folder: Path, network: Any, dies_at: int, dies: str) -> None:
        self._folder, self._network, self._dies_at, self._dies = folder, network, dies_at, f"offbeat-{dies}"

    def trained(self, batch: Any, updates: int) -> None:
        """Write it down; or be killed."""
        name = multiprocessing.current_process().name
        if name == self._dies and updates == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        flat = b"".join(value.numpy().tobytes() for value in self._network.state_dict().values())
        with (self._folder / f"{name}.txt").open("a") as file:
            file.write(json.dumps([updates, hashlib.sha256(flat).hexdigest(), batch.rows]) + "\n")

    def state(self) -> TensorDict:
        """Nothing."""
        return {}

    def load_state(self, state: TensorDict) -> None:
        """Nothing."""


def noting(kind: str, *arguments: Any, folder: Path, dies_at: int = 0, dies: str = "learner-1") -> Any:
    """An agent that keeps notes."""
    agent = {"impala": impala, "dqn": dqn}[kind].Agent(*arguments)
    own = dict(agent.learner_states()) if hasattr(agent, "learner_states") else {}
    agent.learner_states = lambda: own | notes
    notes = {"notes": Notes(folder, agent.network, dies_at, dies)}
    return agent


def notes_of(folder: Path) -> dict[str, list[Any]]:
    """Learner -> its notes."""
    return {path.stem: [json.loads(line) for line in path.open()] for path in sorted(folder.glob("*learner*.txt"))}


def run_of(kind: str, folder: Path, **options: Any) -> RunConfig:
    """A short run of two learners."""
    options |= {"engine": "local", "learner__count": 2, "evaluation__at_end": False, "out": str(folder / "run")}
    if kind == "impala":
        return small_config(total_frames=2000, learner__batch_size=3, **options)
    return item_config("dqn", total_frames=2000, replay__samples_per_insert=2.0, **options)


@pytest.mark.parametrize("kind", ["impala", pytest.param("dqn", marks=pytest.mark.slow)])
def test_two_learners_have_the_same_weights_after_each_update_also_when_resumed(kind: str, tmp_path: Path) -> None:
    config = run_of(kind, tmp_path)
    factory = partial(noting, kind, folder=tmp_path)
    first = train(config, agent_factory=factory)
    again = resume(first.run, 3000, agent_factory=factory)
    assert again.finished and again.updates > first.updates
    one, other = notes_of(tmp_path).values()
    assert [note[:2] for note in one] == [note[:2] for note in other]
    assert [note[0] for note in one] == list(range(1, again.updates + 1))
    rows = sum(note[2] for note in (*one, *other))
    counters = load(newest(again.run))[1]["counters"]  # type: ignore[arg-type]
    assert counters["samples"] == rows
    found = ledger(again.run)
    assert found["produced"] == found["stored"] + found["expired"] + found["lost"] + found["in_hand"], found
    if kind == "impala":
        assert again.agent_steps == counters["samples"], "each transition once"
    assert {line["role"] for line in records(again.run) if line["kind"] == "learner"} == {"learner", "learner-1"}


@pytest.mark.parametrize("dies", ["learner-1", pytest.param("learner", marks=pytest.mark.slow)])
def test_all_are_rebuilt_with_the_same_weights_when_one_of_them_is_killed(dies: str, tmp_path: Path) -> None:
    config = run_of("impala", tmp_path, learner__mirror_every=7)
    result = train(config, agent_factory=partial(noting, "impala", folder=tmp_path, dies_at=40, dies=dies))
    assert result.finished
    log = (result.run / "run.log").read_text()
    assert f"{dies} was killed by SIGKILL; rebuilt with those that step with it" in log
    one, other = ({tuple(note[:2]) for note in notes} for notes in notes_of(tmp_path).values())
    both = one & other
    assert len(one ^ other) <= 2, "the update in which one was killed, which the other may have made"
    assert max(updates for updates, _ in both) == result.updates and len(both) > 45
    found = ledger(result.run)
    assert found["learner_restarts"] == 1 and found["lost_updates"] <= 7
    assert found["produced"] == found["stored"] + found["expired"] + found["lost"] + found["in_hand"], found


@pytest.mark.slow
def test_a_run_ends_saved_when_one_of_them_is_killed_and_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    config = run_of("impala", tmp_path, learner__mirror_every=0)
    with pytest.raises(RoleFailed, match=r"learner-1 was killed by SIGKILL"):
        train(config, agent_factory=partial(noting, "impala", folder=tmp_path, dies_at=20))
    found = newest(tmp_path / "run")
    assert found is not None and load(found)[1]["counters"]["updates"] in (19, 20)
    again = resume(tmp_path / "run", agent_factory=partial(noting, "impala", folder=tmp_path))
    assert again.finished
    assert multiprocessing.active_children() == []

"""Whole runs whose learner is killed: it is rebuilt, all is counted, what is saved then goes on; or the run ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from offbeat.agents.make import make_agent
from offbeat.config.run_config import RunConfig
from offbeat.run.train import resume, train
from offbeat.runtime.supervisor import RoleFailed
from offbeat.storage.checkpoint import load, newest
from offbeat.types import TensorDict
from tests.conformance.runs import ledger, records
from tests.runtime.parts import item_config, small_config
from tests.runtime.test_rebuilding import r2ac

EVERY = 7
"""Updates between two copies at most."""


class Dies:
    """Kept by an agent: kills its learner in the middle of an update, after so many others of this process."""

    exact = False
    shards = True

    def __init__(self, folder: Path, after: int, times: int, role: str) -> None:
        self._folder, self._left, self._times, self._role = folder, after, times, role

    def trained(self, batch: Any, updates: int) -> None:
        """The optimiser has stepped; nobody else has seen it."""
        deaths = len(list(self._folder.glob("death-*")))
        self._left -= 1
        if multiprocessing.current_process().name == self._role and self._left < 0 and deaths < self._times:
            (self._folder / f"death-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def state(self) -> TensorDict:
        """Nothing."""
        return {}

    def load_state(self, state: TensorDict) -> None:
        """Nothing."""


def dying(
    options: Any, spec: Any, device: Any = "cpu", *, name: str, kept: Any, folder: Path, after: int = 20,
    times: int = 1, role: str = "offbeat-learner",
) -> Any:  # fmt: skip
    """The agent ``name``, made of ``kept``, whose learner dies."""
    agent = make_agent(name, kept, spec, device)
    own, dies = getattr(agent, "learner_states", dict), {"dies": Dies(folder, after, times, role)}
    agent.learner_states = lambda: {**own(), **dies}  # type: ignore[attr-defined]
    return agent


def factory(config: RunConfig, folder: Path, **options: Any) -> Any:
    """Makes such an agent of the agent of ``config``."""
    return partial(dying, name=config.agent_name, kept=config.agent, folder=folder, **options)


def config_of(kind: str, folder: Path, **options: Any) -> RunConfig:
    """A short run of processes."""
    given = {"engine": "local", "evaluation__at_end": False, "out": str(folder / "run"), "total_frames": 1500}
    options = given | {"learner__mirror_every": EVERY, "log__every_s": 0.2} | options
    if kind == "impala":
        return small_config(**options)
    if kind == "r2ac":
        return replace(r2ac(), total_frames=1500, out=str(folder / "run"))
    return item_config(kind, replay__samples_per_insert=2.0, **options)


def check_run(run: Path, deaths: int) -> None:
    """Every row is somewhere, the restarts are counted, and no counter ever fell."""
    rows = ledger(run)
    assert all(count >= 0 for count in rows.values()), rows
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows
    if "fifo0/trained" in rows:
        assert rows["produced"] == sum(rows[f"fifo0/{n}"] for n in ("trained", "pending", "skipped", "lost")), rows
    lines = records(run)
    lost = [line["lost_updates"] for line in lines if line["kind"] == "restart"]
    assert len(lost) == deaths == rows["learner_restarts"] and sum(lost) == rows["lost_updates"]
    assert all(0 <= count <= EVERY for count in lost), lost
    learner = [line for line in lines if line["kind"] == "learner"]
    for name in ("updates", "agent_steps", "frames", "samples"):
        values = [line[name] for line in learner]
        assert values == sorted(values), name


SLOW = ("dqn", "apex", "r2d2", "r2ac")


@pytest.mark.parametrize("kind", ["impala", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_a_run_goes_on_when_its_learner_is_killed(kind: str, tmp_path: Path) -> None:
    config = config_of(kind, tmp_path)
    result = train(config, agent_factory=factory(config, tmp_path))
    assert result.finished and result.frames >= 1500
    check_run(result.run, deaths=1)
    log = (result.run / "run.log").read_text()
    assert "learner was killed by SIGKILL; rebuilt" in log and "(1 of at most 5 times)" in log
    found = newest(result.run)
    assert found is not None
    part, counters = load(found)[0]["learner"], load(found)[1]["counters"]
    lost = ledger(result.run)["lost_updates"]
    assert counters["updates"] == result.updates == float(part["optimiser/step"]) + lost + 1
    assert part["published/point"][0] == result.updates
    if kind != "impala":
        return
    again = resume(result.run, 2000, agent_factory=factory(config, tmp_path))
    assert again.finished and again.updates > result.updates
    assert "rebuilt" not in (result.run / "run.log").read_text()[len(log) :]


def test_a_learner_that_dies_again_before_an_update_ends_the_run(tmp_path: Path) -> None:
    config = config_of("impala", tmp_path)
    with pytest.raises(RoleFailed, match="SIGKILL; it is not rebuilt again, since it had not made one update since"):
        train(config, agent_factory=factory(config, tmp_path, after=0, times=9))
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert ledger(tmp_path / "run")["learner_restarts"] == 1


@pytest.mark.slow
def test_a_learner_that_is_killed_again_and_again_ends_the_run_in_the_end(tmp_path: Path) -> None:
    config = config_of("impala", tmp_path, learner__max_restarts=2, total_frames=10**7)
    with pytest.raises(RoleFailed, match=r"not replaced again because learner\.max_restarts=2 is used up"):
        train(config, agent_factory=factory(config, tmp_path, after=5, times=9))
    check_run(tmp_path / "run", deaths=2)
    assert len(list(tmp_path.glob("death-*"))) == 3


@pytest.mark.slow
def test_the_first_of_several_asynchronous_learners_is_rebuilt_and_loses_nothing(tmp_path: Path) -> None:
    config = config_of("dqn", tmp_path, learner__mode="async", learner__count=2)
    result = train(config, agent_factory=factory(config, tmp_path))
    assert result.finished
    assert "learner was killed by SIGKILL; rebuilt, 0 updates are lost" in (result.run / "run.log").read_text()
    (stale,) = [line for line in records(result.run) if line["kind"] == "staleness"]
    assert sum(stale["counts"]) == stale["updates"] == result.updates
    found = newest(result.run)
    assert found is not None
    part, counters = load(found)[0]["learner"], load(found)[1]["counters"]
    assert float(part["optimiser/step"]) == result.updates and counters["samples"] == 8 * result.updates

"""Actors killed in the middle of a run: their streams go on, lost rows are counted, nothing wrong is learnt."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig
from offbeat.run.train import RunResult, train
from tests.conformance.counting_agent import Allowed, CountingAgent
from tests.conformance.counting_env import make_counting
from tests.conformance.replay_agent import ReplayingAgent
from tests.conformance.runs import (
    ENGINES,
    SERIAL,
    UNROLL,
    check_ledger,
    counting_config,
    engine_of,
    ledger,
    records,
    replaying_config,
)

WORKERS, ENVS = 2, 4
SERVERS = ("free-server", "serial-free-server")
ITEMS_ELSEWHERE = (("free", "transition"), ("serial-free", "transition"), ("serial-free", "sequence"))


def read(out: Path) -> list[dict[str, Any]]:
    """The records so far; none where the file is not there yet or its last line is half written."""
    try:
        return records(out)
    except (OSError, ValueError):
        return []


def learnt_restarts(out: Path) -> list[float]:
    """Restarted streams in what the learner was given, by report."""
    return [line["restarts"] for line in read(out) if line["kind"] == "learner"]


class Killer(threading.Thread):
    """Kills actors of the run in ``out``, one after the other, each once it is at work; then asks the run to stop."""

    def __init__(self, out: Path, kills: int, seed: int, replays: bool) -> None:
        super().__init__(daemon=True)
        self._replays = replays
        self._out, self._kills, self._random = out, kills, random.Random(seed)
        self.killed: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Kill, wait until the replacement is at work, kill the next; at the end until all was learnt from."""
        try:
            for number in range(self._kills):
                name = f"actor-{number % WORKERS}"
                self._wait(lambda name=name: self._at_work(name))
                time.sleep(self._random.uniform(0, 0.1))
                (pid,) = [p.pid for p in multiprocessing.active_children() if p.name == f"offbeat-{name}"]
                os.kill(pid, signal.SIGKILL)
                self.killed.append(name)
                self._wait(lambda number=number: self._restarts() == number + 1)
            if self._replays:
                self._wait(lambda: self._at_work(name) and self._updates() > 100)
            else:
                self._wait(lambda: max(learnt_restarts(self._out), default=0) > (self._kills - 1) * ENVS)
        except BaseException as error:
            self.error = error
        os.kill(os.getpid(), signal.SIGTERM)

    def _at_work(self, name: str) -> bool:
        """Whether this incarnation of the actor has finished an episode."""
        found = False
        for line in read(self._out):
            found |= line["role"] == name and line["kind"] == "episode"
            found &= not (line["kind"] == "restart" and name == f"actor-{line['actor']}")
        return found

    def _restarts(self) -> int:
        return sum(line["kind"] == "restart" for line in read(self._out))

    def _updates(self) -> int:
        """Made since the last restart."""
        lines = read(self._out)
        at = max((n for n, line in enumerate(lines) if line["kind"] == "restart"), default=0)
        made = [[line["updates"] for line in part if line["kind"] == "learner"] for part in (lines[:at], lines[at:])]
        return int(max(made[1], default=0) - max(made[0], default=0))

    def _wait(self, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError("the run does not go on")
            time.sleep(0.02)


def killed_run(out: Path, config: RunConfig, agent: Any, kills: int) -> RunResult:
    """A run whose actors are killed one after the other; it is stopped once it has learnt from what came of that."""
    killer = Killer(out, kills, kills, replays=not config.replay.paced)
    killer.start()
    result = train(config, env_factory=make_counting, agent_factory=agent)
    if killer.error is not None:
        raise killer.error
    assert len(killer.killed) == kills
    assert not result.finished
    assert [line["actor"] for line in records(out) if line["kind"] == "restart"] == [n % WORKERS for n in range(kills)]
    return result


@pytest.mark.parametrize(
    ("name", "kills"), [("free", 3), ("serial-free", 2), *(pytest.param(n, 2, marks=pytest.mark.slow) for n in SERVERS)]
)
def test_streams_go_on_after_their_actor_was_killed(name: str, kills: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = counting_config(out, total_frames=10**9, **(ENGINES | SERIAL)[name])
    with engine_of(name):
        result = killed_run(out, config, partial(CountingAgent, allowed=Allowed(cuts=True)), kills)
    rows = ledger(out)
    check_ledger(rows, trained=rows["fifo0/trained"])
    assert rows["fifo0/trained"] >= result.updates * config.learner.batch_size * UNROLL  # it learnt on while it saved
    assert 0 < rows["lost"] <= (kills + WORKERS) * ENVS * UNROLL
    assert max(learnt_restarts(out)) <= kills * ENVS


@pytest.mark.parametrize(
    ("name", "kind"),
    [("free", "sequence"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ITEMS_ELSEWHERE)],
)
def test_items_go_on_after_an_actor_was_killed(name: str, kind: str, tmp_path: Path) -> None:
    out, kills = tmp_path / "run", 2
    config = replaying_config(out, kind, total_frames=10**9, **(ENGINES | SERIAL)[name])
    with engine_of(name):
        killed_run(out, config, partial(ReplayingAgent, kind=kind), kills)
    rows = ledger(out)
    assert all(count >= 0 for count in rows.values()), rows
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows
    assert 0 < rows["lost"] <= (kills + WORKERS) * ENVS * UNROLL


class LearnerKiller(Killer):
    """Kills the learner, each time once it has learnt on."""

    def run(self) -> None:
        """Kill it when it has learnt for a while; at the end until it has learnt on."""
        try:
            for number in range(self._kills):
                self._wait(lambda: self._updates() > 30)
                time.sleep(self._random.uniform(0, 0.1))
                (pid,) = [p.pid for p in multiprocessing.active_children() if p.name == "offbeat-learner"]
                os.kill(pid, signal.SIGKILL)
                self.killed.append("learner")
                self._wait(lambda number=number: self._restarts() == number + 1)
            self._wait(lambda: self._updates() > 30)
        except BaseException as error:
            self.error = error
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("name", ["free", pytest.param("serial-free", marks=pytest.mark.slow)])
def test_each_row_comes_once_and_in_order_also_after_the_learner_was_killed(name: str, tmp_path: Path) -> None:
    """The learner that takes its place checks from where the streams are; actors see whole weights, ever newer ones."""
    out = tmp_path / "run"
    config = counting_config(out, total_frames=10**9, learner__mirror_every=10, **(ENGINES | SERIAL)[name])
    killer = LearnerKiller(out, 1 if name == "free" else 2, 3, replays=False)
    killer.start()
    with engine_of(name):
        agent = partial(CountingAgent, allowed=Allowed(rebuilds=True))
        result = train(config, env_factory=make_counting, agent_factory=agent)
    if killer.error is not None:
        raise killer.error
    rows = ledger(out)
    assert rows.pop("learner_restarts") == len(killer.killed) and 0 <= rows.pop("lost_updates") <= 10 * len(
        killer.killed
    )
    check_ledger(rows, trained=rows["fifo0/trained"])
    most = len(killer.killed) * (3 + 2) * config.learner.batch_size * UNROLL
    assert rows["fifo0/skipped"] <= most, "batches that were drawn ahead, and in the making"
    assert result.agent_steps <= rows["fifo0/trained"]

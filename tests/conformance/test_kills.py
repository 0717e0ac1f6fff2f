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

from offbeat.train import train
from tests.conformance.counting_agent import Allowed, CountingAgent
from tests.conformance.counting_env import make_counting
from tests.conformance.runs import UNROLL, check_ledger, counting_config, ledger, records

WORKERS, ENVS = 2, 4


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

    def __init__(self, out: Path, kills: int, seed: int) -> None:
        super().__init__(daemon=True)
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

    def _wait(self, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError("the run does not go on")
            time.sleep(0.02)


@pytest.mark.parametrize(("inference", "kills"), [("actor", 3), pytest.param("server", 2, marks=pytest.mark.slow)])
def test_streams_go_on_after_their_actor_was_killed(inference: str, kills: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = counting_config(out, total_frames=10**9, actor__inference=inference)
    killer = Killer(out, kills, seed=kills)
    killer.start()
    agent = partial(CountingAgent, allowed=Allowed(cuts=True))
    result = train(config, env_factory=make_counting, agent_factory=agent)
    if killer.error is not None:
        raise killer.error
    assert len(killer.killed) == kills
    assert not result.finished
    rows = ledger(out)
    check_ledger(rows, trained=rows["fifo0/trained"])
    assert rows["fifo0/trained"] >= result.updates * config.learner.batch_size * UNROLL  # it learnt on while it saved
    assert 0 < rows["lost"] <= (kills + WORKERS) * ENVS * UNROLL
    assert max(learnt_restarts(out)) <= kills * ENVS
    assert [line["actor"] for line in records(out) if line["kind"] == "restart"] == [n % WORKERS for n in range(kills)]

"""Realtime runs on both clocks: every row belongs together, runs repeat and resume bit for bit, schedules are equal."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offbeat.config.run_config import RunConfig
from offbeat.run.train import RunResult, resume, train
from offbeat.runtime.realtime_books import DECISION
from offbeat.storage.checkpoint import find, load
from tests.conformance.realtime_runs import CLOCKS, DecidingAgent, check_rows, realtime_config, streams_of

MODES = ("async", "sequential", "learn_first", "background")


def processes(mode: str) -> int:
    """Inference processes: all modes but one have one."""
    return 3 if mode == "async" else 1


def run_of(config: RunConfig) -> RunResult:
    """Train the deciding agent."""
    return train(config, agent_factory=DecidingAgent)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clock", CLOCKS)
def test_every_row_belongs_together(tmp_path, clock, mode) -> None:
    if clock == "wall" and mode != "async":
        pytest.skip("the slow tests run sequential; the others differ from it in nothing that a clock sees")
    check_run(tmp_path, clock, mode)


@pytest.mark.slow
def test_every_row_belongs_together_on_the_wall_clock_in_turns(tmp_path) -> None:
    check_run(tmp_path, "wall", "sequential")


def check_run(tmp_path: Path, clock: str, mode: str) -> None:
    """Train, and look at every row."""
    result = run_of(realtime_config(tmp_path / "run", clock, realtime__mode=mode, realtime__inference=processes(mode)))
    assert result.finished
    found = check_rows(result.run)
    assert found["episodes"] > 5
    if mode == "async":
        assert found["late"] >= 3  # two and a half frames
        if clock == "virtual":  # on the wall clock it is as the machine has time
            assert found["inaction"] < 0.2 * found["rows"]
    elif clock == "virtual":
        assert found["inaction"] > found["rows"]  # it is late by itself, and most frames are left to do nothing


def test_a_virtual_run_repeats(tmp_path) -> None:
    first, second = (run_of(realtime_config(tmp_path / name)) for name in ("a", "b"))
    for name, value in streams_of(first.run).items():
        assert np.array_equal(value, streams_of(second.run)[name]), name


@pytest.mark.parametrize("mode", ["async", "sequential"])
def test_a_virtual_run_resumes_bit_for_bit(tmp_path, mode) -> None:
    options = {
        "realtime__mode": mode,
        "realtime__inference": processes(mode),
        "agent": "dqn",
        "env__id": "toy/catch",
        "env__length": 6,
    }
    options |= {"agent__explore": 200, "learner__schedule": "constant"}
    whole = train(realtime_config(tmp_path / "whole", **options, total_frames=600))
    half = train(realtime_config(tmp_path / "half", **options, total_frames=251))
    longer = resume(half.run, total_frames=600)
    parts, others = load(find(whole.run))[0], load(find(longer.run))[0]
    assert parts.keys() == others.keys()
    for part, arrays in parts.items():
        for name, value in arrays.items():
            assert np.array_equal(np.asarray(value), np.asarray(others[part][name]), equal_nan=True), (part, name)


@pytest.mark.slow
def test_the_virtual_clock_replays_the_schedule_of_the_wall_clock(tmp_path) -> None:
    config = realtime_config(tmp_path / "wall", "wall", realtime__record=True, realtime__jitter=0.5)
    wall = run_of(config)
    again = replace(config, engine="inline", out=str(tmp_path / "virtual"))
    again = replace(again, realtime=replace(config.realtime, record=False, replay=str(wall.run / "realtime")))
    virtual = run_of(again)
    first, second = (np.load(run / "realtime" / "decisions.npy") for run in (wall.run, virtual.run))
    length = min(len(first), len(second)) - 5
    assert length > 200
    for name in ("worker", "slot"):
        column = DECISION.index(name)
        assert np.array_equal(first[:length, column], second[:length, column]), name
    for name in ("read", "started", "ended", "published"):
        column = DECISION.index(name)
        assert np.allclose(first[:length, column], second[:length, column], atol=2e-3), name
    # What happens within a few microseconds of a frame's beginning may fall on either side of it.
    columns = [DECISION.index(name) for name in ("source", "frame")]
    same = (first[:length, columns] == second[:length, columns]).all(1)
    assert same.mean() >= 0.99, np.flatnonzero(~same)


@pytest.mark.slow
def test_play_goes_on_when_inference_processes_are_killed(tmp_path) -> None:
    config = realtime_config(tmp_path / "run", "wall", total_frames=1500, realtime__jitter=0.0)
    killer = Killer(tmp_path / "run", ["realtime_actor-1", "realtime_actor-0"])
    killer.start()
    result = run_of(config)
    killer.join(10)
    assert killer.error is None, killer.error
    assert result.finished
    check_rows(result.run)
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    ticks = np.load(result.run / "realtime" / "frames.npy")
    assert len([line for line in lines if line["kind"] == "restart"]) == 2
    assert np.diff(ticks[:, 0]).max() < 0.2, "the environment never waited"
    rows = next(line for line in reversed(lines) if line["kind"] == "ledger")
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows
    last = [line for line in lines if line["kind"] == "realtime"][-1]
    assert last["processes_gone"] >= 1, "the others took over its slots"


@pytest.mark.slow
def test_ctrl_c_saves_and_ends(tmp_path) -> None:
    config = realtime_config(tmp_path / "run", "wall", total_frames=10**6, realtime__inference_s=2.0)
    stopper = threading.Timer(6.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopper.start()
    result = run_of(config)
    stopper.join()
    assert not result.finished
    assert find(result.run).path.is_dir()


class Killer(threading.Thread):
    """Kills processes of the run in ``out``, one after the other, each some time after play began."""

    def __init__(self, out: Path, names: list[str]) -> None:
        super().__init__(daemon=True)
        self._out, self._names = out, names
        self.error: BaseException | None = None

    def run(self) -> None:
        """Kill, wait for the replacement, kill the next."""
        try:
            for number, name in enumerate(self._names):
                self._wait(lambda: "realtime_env" in self._text())
                time.sleep(0.5)
                (process,) = [p for p in multiprocessing.active_children() if p.name == f"offbeat-{name}"]
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                self._wait(lambda number=number: self._text().count('"restart"') == number + 1)
        except BaseException as error:
            self.error = error

    def _text(self) -> str:
        try:
            return (self._out / "metrics.jsonl").read_text()
        except OSError:
            return ""

    def _wait(self, ready) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.02)

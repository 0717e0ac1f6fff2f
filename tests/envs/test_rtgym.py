"""Interfaces of rtgym train unchanged, on their own clock: with a stand-in, and with the package itself where it is."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import sys
import threading
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.fitting import fitted, left_out
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvConfig, EnvUnavailable, Misbehaved
from offbeat.envs.registry import env_spec, frame_rate, make_env
from offbeat.envs.rtgym import OwnClock, is_interface, with_clock
from offbeat.errors import UserError
from offbeat.serving.client import Client
from tests.envs import rtgym_stand_in
from tests.serving.parts import wait_until

MINE = EnvConfig(id="drone")
HERE = importlib.util.find_spec("rtgym") is not None
QUICK = [
    "--engine", "inline", "--log.dashboard", "false", "--log.tensorboard", "false", "--replay.capacity", "2000",
]  # fmt: skip


@pytest.fixture(params=["stand-in", pytest.param("rtgym", marks=pytest.mark.skipif(not HERE, reason="rtgym"))])
def drone(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module with the interface and its configuration."""
    if request.param == "rtgym":
        pytest.importorskip("rtgym")
        yield importlib.import_module("tests.envs.drone")
        return
    with rtgym_stand_in.installed():
        yield importlib.import_module("tests.envs.drone")


@pytest.fixture
def stand_in() -> Iterator[ModuleType]:
    """The module with the interface, around the stand-in alone."""
    with rtgym_stand_in.installed():
        yield importlib.import_module("tests.envs.drone")


def test_what_is_an_interface(drone: ModuleType) -> None:
    assert is_interface(drone.Drone) and is_interface(functools.partial(drone.Drone, near=0.1))
    for other in (drone.Drone(), gymnasium.Env, dict, "Drone", None, len, lambda: None):
        assert not is_interface(other) and with_clock(other) is other
    assert with_clock({"interface": 5}) == {"interface": 5}
    for given in (drone.Drone, functools.partial(drone.Drone), drone.CONFIG):
        made = with_clock(given)
        assert isinstance(made, OwnClock) and made.__name__ == "Drone" and with_clock(made) is made
        assert pickle.loads(ForkingPickler.dumps(made)).config.keys() == made.config.keys()


def test_rows_are_what_rtgym_shows(drone: ModuleType) -> None:
    """Its observations, and behind them the newest actions; each acts in the time step after its observation's."""
    factory = with_clock(drone.CONFIG)
    spec = env_spec(MINE, factory)
    assert [(key, array.shape) for key, array in spec.observation.items()] == [(str(i), (2,)) for i in range(5)]
    assert spec.action.kind == "continuous" and spec.action.low == (-2.0, -2.0)
    assert frame_rate(MINE, factory) == pytest.approx(50)
    drone.Drone.made.clear()
    envs = make_env(MINE, 1, factory=factory)
    (made,) = drone.Drone.made
    envs.reset(3)
    row, actions = envs.recv(), []
    assert row.first[0] and not row.observation["4"].any(), "the buffer begins with default actions"
    for step in range(10):
        actions.append(np.array([[0.1 * step, -0.5]], np.float32))
        envs.send(actions[-1])
        row = envs.recv()
        newest = [*[np.zeros((1, 2), np.float32)] * 3, *actions][-3:]
        for index, action in enumerate(newest):
            np.testing.assert_array_equal(row.observation[str(2 + index)], action)
        np.testing.assert_array_equal(row.observation["1"][0], made.target)
        assert row.reward[0] == np.float32(-np.linalg.norm(row.observation["0"][0] - made.target))
    np.testing.assert_array_equal(made.sent[:2], np.zeros((2, 2)), "of two resets: before its spec is known, and then")
    np.testing.assert_array_equal(made.sent[2:], np.concatenate(actions))
    assert row.observation["0"][0, 1] < 0, "it flies where it was told to"
    envs.close()
    np.testing.assert_array_equal(made.sent[-1], [0, 0], "it is left with the default action")
    assert made.closed and len(made.sent) == 13
    envs.close()
    assert len(made.sent) == 13


def test_its_configuration_is_taken_as_it_is(drone: ModuleType) -> None:
    config = {**drone.CONFIG, "ep_max_length": 4, "act_in_obs": False, "interface_kwargs": {"near": 1e-6}}
    drone.Drone.made.clear()
    envs = make_env(MINE, 1, factory=with_clock(config))
    assert drone.Drone.made[0].near == 1e-6 and list(envs.spec.observation) == ["0", "1"]
    envs.reset(0)
    truncated = []
    for _ in range(9):
        row = envs.recv()
        truncated.append((bool(row.truncated[0]), bool(row.valid[0]), bool(row.first[0])))
        envs.send(np.zeros((1, 2), np.float32))
    assert [one[0] for one in truncated] == [False, False, False, False, True] + [False] * 4
    assert not truncated[4][1] and truncated[5][2]
    envs.close()
    bare = make_env(MINE, 1, factory=with_clock(drone.Drone))
    assert list(bare.spec.observation) == ["0", "1", "2"], "rtgym's own: one action in the buffer"
    bare.close()


def test_time_goes_by_in_time_steps_and_nobody_else_waits(stand_in: ModuleType) -> None:
    envs = make_env(MINE, 1, factory=with_clock(stand_in.CONFIG))
    envs.reset(0)
    begun = rtgym_stand_in.NOW[0]
    for step in range(20):
        envs.recv()
        assert rtgym_stand_in.NOW[0] - begun == pytest.approx(0.02 * step)
        envs.send(np.zeros((1, 2), np.float32))
    envs.close()


def test_what_is_wrong_is_said(drone: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misbehaved, match=r"no 'time_step'.*did you mean 'time_step_duration'"):
        env_spec(MINE, with_clock({**drone.CONFIG, "time_step": 0.1}))
    with pytest.raises(Misbehaved, match="time_step_duration=0 must be above 0"):
        env_spec(MINE, with_clock({**drone.CONFIG, "time_step_duration": 0}))
    with pytest.raises(Misbehaved, match="hand over the interface's class itself"):
        env_spec(MINE, lambda: drone.Drone())
    monkeypatch.setitem(sys.modules, "rtgym", None)
    with pytest.raises(EnvUnavailable, match=r"rtgym, which is missing.*offbeat\[rtgym\]"):
        env_spec(MINE, with_clock(drone.CONFIG))


def test_there_is_one_of_it_and_one_clock(stand_in: ModuleType, tmp_path: Path) -> None:
    config, factory = load_preset("own"), with_clock(stand_in.CONFIG)
    fit = fitted(config, ["env"], factory)
    assert (fit.actor.workers, fit.actor.envs_per_worker, fit.evaluation.envs) == (1, 1, 1)
    assert "keeps its own clock, and there is one of it: actor.envs_per_worker = 1" in left_out(config, fit)
    given = apply_overrides(config, [("actor.envs_per_worker", 2), ("evaluation.envs", 5)])
    kept = fitted(given, ["env", "actor.envs-per-worker", "evaluation.envs"], factory)
    assert (kept.actor.envs_per_worker, kept.evaluation.envs) == (2, 5) and left_out(given, kept) == ""
    assert fitted(config, ["env"], lambda: None).actor.envs_per_worker == 32
    with pytest.raises(UserError, match="keeps its own clock, rtgym's, and there cannot be two"):
        offbeat.train("own-replay", env_factory=stand_in.Drone, realtime__fps=20, out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_it_trains_evaluates_and_is_served_unchanged(
    stand_in: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, with the class's own configuration; then asked as the robot would."""
    run = tmp_path / "run"
    command = ["train", "own-clock", "--env", "tests.envs.drone:CONFIG", "--out", str(run), "--total-frames", "120"]
    assert main([*command, *QUICK, "--evaluation.episodes", "1", "--learner.unroll-length", "10"]) == 0
    out = capsys.readouterr().out
    assert "episodes=1" in out
    assert main(["eval", str(run), "--env", "tests.envs.drone:CONFIG", "--episodes", "1"]) == 0
    twin = offbeat.load(run, env_factory=stand_in.CONFIG)
    server = offbeat.serve(run, env_factory=stand_in.CONFIG, policy="greedy", path=tmp_path / "s")
    thread = threading.Thread(target=server.run)
    thread.start()
    env = with_clock(stand_in.CONFIG)()
    observation, _ = env.reset(seed=1)
    with Client(tmp_path / "s") as client:
        for step in range(5):
            action = client.act(observation, first=step == 0)
            np.testing.assert_allclose(action, twin.act(observation), atol=1e-6)
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)
        wait_until(lambda: server.answered == 5)
    server.stop()
    thread.join(20)
    env.close()


@pytest.mark.skipif(not HERE, reason="rtgym")
def test_it_trains_in_processes_of_its_own(tmp_path: Path) -> None:
    """With the package itself: no process is handed more than the interface's class."""
    pytest.importorskip("rtgym")
    run = tmp_path / "run"
    command = ["train", "own-clock", "--env", "tests.envs.drone:Drone", "--out", str(run), "--total-frames", "100"]
    assert main([*command, *QUICK, "--engine", "local", "--evaluation.at-end", "false"]) == 0
    assert main(["resume", str(run), "--env", "tests.envs.drone:Drone", "--total-frames", "140"]) == 0
    assert (run / "run.log").read_text().count("finished: ") == 2


def test_the_checker_plays_one(drone: ModuleType) -> None:
    report = offbeat.check_env(drone.CONFIG, steps=20, seconds=2.0)
    assert not report.errors, report
    assert "observation '0'" in str(report)

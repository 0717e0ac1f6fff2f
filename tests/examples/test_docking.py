"""The example of a fast environment: its rows are those of one object per copy, and it is learnt."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import offbeat
from offbeat.envs.base import EnvConfig, UnusedSwitch
from offbeat.envs.module_ids import module_id
from offbeat.envs.registry import check_exact, env_spec, make_env, stepping
from offbeat.envs.vector import GymnasiumVectorEnv
from tests.house_rules.source import ROOT


@pytest.fixture
def docking(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("docking")


@pytest.mark.parametrize("kind", ["Docking", "CompiledDocking"])
def test_rows_are_those_of_one_object_per_copy(docking: Any, kind: str) -> None:
    """Objects are set to what each episode begins with, and given the same actions."""
    count = 12
    envs, alone = getattr(docking, kind)(count), [docking.DockingAlone() for _ in range(count)]
    random, fresh = np.random.default_rng(0), np.ones(count, bool)
    over = np.zeros(count, bool)
    seen, _ = envs.reset(seed=1)
    ends = {"docked": 0, "lost": 0, "truncated": 0}
    for step in range(800):
        for index in np.flatnonzero(fresh):
            alone[index].reset(seed=step)
            alone[index].place, alone[index].velocity = envs.place[index].copy(), envs.velocity[index].copy()
        # some pull in, some push away, some drift: all kinds of ends
        side = np.abs(seen[:, :2]).argmax(-1)
        pull = 1 + 2 * side + (np.take_along_axis(seen[:, :2], side[:, None], 1)[:, 0] > 0)
        calm = np.where(np.abs(seen[:, 2:]).max(-1) > 0.3, 1 + 2 * np.abs(seen[:, 2:]).argmax(-1), 0)
        calm += (calm > 0) & (np.take_along_axis(seen[:, 2:], np.abs(seen[:, 2:]).argmax(-1)[:, None], 1)[:, 0] > 0)
        actions = np.choose(
            np.arange(count) % 3, [np.where(calm > 0, calm, pull), random.integers(5, size=count), calm]
        )
        before = over
        seen, reward, terminated, truncated, info = envs.step(actions)
        assert not info
        for index in range(count):
            if before[index]:
                assert (reward[index], terminated[index], truncated[index]) == (0, False, False)
                assert 0.59 < np.hypot(*seen[index, :2]) < 1.01
                continue
            shown, given, ended, cut, _ = alone[index].step(int(actions[index]))
            np.testing.assert_allclose(seen[index], shown, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(reward[index], given, atol=1e-5)
            assert (terminated[index], truncated[index]) == (ended, cut)
            ends["docked"] += reward[index] > 0.9
            ends["lost"] += reward[index] < -0.9
            ends["truncated"] += bool(cut)
        fresh, over = before, terminated | truncated
    assert min(ends.values()) > 2, ends


def test_it_can_be_saved_exactly_and_says_what_it_is(docking: Any) -> None:
    check_exact(EnvConfig(id="docking"), docking.Docking)
    report = offbeat.check_env(docking.Docking)
    assert report.ok, str(report)
    envs = make_env(EnvConfig(id="docking"), 4, factory=docking.Docking)
    envs.reset(0)
    envs.recv()
    for _ in range(5):
        envs.send(np.zeros(4, np.int64))
        rows = envs.recv()
    envs.send(np.zeros(4, np.int64))
    assert not np.may_share_memory(rows.observation["observation"], envs.recv().observation["observation"])


def test_as_an_id_it_is_stepped_at_once(docking: Any) -> None:
    gymnasium.register("Docking-v0", "docking:DockingAlone", vector_entry_point="docking:Docking", max_episode_steps=40)
    try:
        envs = make_env(EnvConfig(id="Docking-v0", max_steps=30), 8)
        assert isinstance(envs, GymnasiumVectorEnv) and isinstance(envs.made, docking.Docking)
        assert envs.made.limit == envs.spec.max_episode_steps == 30
    finally:
        del gymnasium.registry["Docking-v0"]


def test_as_an_id_of_a_module(docking: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``--env`` takes it: what registers it is imported."""
    (tmp_path / "docks.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Dock-v0', 'docking:DockingAlone', vector_entry_point='docking:Docking')\n"
        "gymnasium.register('Plain-v0', 'docking:DockingAlone')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found, plain = module_id("docks:Dock-v0"), module_id("docks:Plain-v0")
    config, yes = EnvConfig(id="docks:Dock-v0"), EnvConfig(id="docks:Dock-v0", vectorised="yes")
    try:
        assert isinstance(make_env(config, 8, factory=found), GymnasiumVectorEnv)
        assert not isinstance(make_env(config, 7, factory=found), GymnasiumVectorEnv)
        assert isinstance(make_env(yes, 2, deterministic=True, factory=found), GymnasiumVectorEnv)
        check_exact(yes, found)
        assert stepping(config, 8, False, found).endswith("are stepped at once, by its vector entry point")
        assert stepping(config, 8, False, plain) == stepping(config, 8, False, docking.Docking) == ""
        with pytest.raises(UnusedSwitch, match="vectorised='yes' means nothing"):
            env_spec(yes, plain)
    finally:
        for name in ("Dock-v0", "Plain-v0"):
            gymnasium.registry.pop(name, None)


@pytest.mark.slow
def test_its_speed_is_told(docking: Any, capsys: pytest.CaptureFixture[str]) -> None:
    docking.speed(0.0)
    assert capsys.readouterr().out.count("times one object each") == 8


def test_it_is_learnt(docking: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random actions score -1.6, and who never docks 1 at most."""
    envs, draw, returns, ended = docking.Docking(64), np.random.default_rng(0), 0.0, 0
    envs.reset(seed=0)
    for _ in range(500):
        _, reward, terminated, truncated, _ = envs.step(draw.integers(5, size=64))
        returns, ended = returns + reward.sum(), ended + int((terminated | truncated).sum())
    assert returns / ended < -1
    options = {"engine": "inline", "total_frames": 120_000, "log": {"tensorboard": False}}
    result = docking.train(out=str(tmp_path / "run"), **options)
    assert result.evaluation_mean > 1.5
    assert f"mean return {result.evaluation_mean:.2f}" in capsys.readouterr().out

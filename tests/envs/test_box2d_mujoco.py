"""Gymnasium's Box2D and MuJoCo environments play, are checked and train, where their extras are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import offbeat

SHORT: dict[str, Any] = {
    "engine": "inline", "total_frames": 300, "log": {"tensorboard": False},
    "evaluation": {"every_frames": 0, "at_end": False},
}  # fmt: skip


@pytest.mark.parametrize(
    ("package", "env", "preset"),
    [
        ("Box2D", "LunarLander-v3", "impala-cartpole"),
        ("Box2D", "BipedalWalker-v3", "impala-pendulum"),
        ("mujoco", "InvertedPendulum-v5", "impala-pendulum"),
        ("mujoco", "HalfCheetah-v5", "impala-pendulum"),
    ],
)
def test_an_environment_trains(package: str, env: str, preset: str, tmp_path: Path) -> None:
    if package == "Box2D":
        pytest.importorskip("Box2D")
    else:
        pytest.importorskip("mujoco")
    report = offbeat.check_env(env, steps=100)
    assert report.ok, str(report)
    result = offbeat.train(preset, env=env, out=str(tmp_path / "run"), **SHORT)
    assert result.finished
    assert offbeat.export(result.run).is_file()

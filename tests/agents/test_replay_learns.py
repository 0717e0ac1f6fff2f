"""CLEAR, LASER and IMPACT learn Catch, replayed rows included; random play scores about -0.6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.run.train import train

SHORT = {
    "engine": "inline", "device": "cpu", "env.length": 5, "actor.envs_per_worker": 16, "replay.capacity": 8000,
    "learner.unroll_length": 5, "learner.learning_rate": 2e-3, "learner.schedule": "constant",
    "evaluation.every_frames": 0, "evaluation.episodes": 200, "evaluation.envs": 50, "evaluation.policy": "greedy",
    "log.tensorboard": False, "log.dashboard": False,
}  # fmt: skip


def shared(online: float) -> list[dict[str, Any]]:
    """Rows as they come, the rest drawn from replay."""
    return [{"kind": "fifo", "share": online}, {"kind": "uniform", "share": 1 - online}]


OPTIONS: dict[str, dict[str, Any]] = {
    "clear": {
        "agent.policy_cloning_cost": 0.01, "agent.value_cloning_cost": 0.005, "replay.samplers": shared(0.5),
        "learner.batch_size": 16,
    },
    "laser": {
        "agent.trust_region": 0.3, "agent.entropy_on": "online", "replay.samplers": shared(0.125),
        "learner.batch_size": 32,
    },
    "impact": {
        "agent": "impact", "agent.kl_cost": 0.1, "agent.target_period": 8, "replay.samplers": shared(0.5),
        "learner.batch_size": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPTIONS))
def test_learns_catch(name: str, tmp_path: Path) -> None:
    frames = {"clear": 10_000, "laser": 6000, "impact": 10_000}[name]
    own = {"out": str(tmp_path / "run"), "total_frames": frames} | OPTIONS[name]
    result = train(apply_overrides(load_preset("impala-catch"), (SHORT | own).items()))
    assert result.evaluation_mean is not None
    assert result.evaluation_mean > 0.7

"""Value-based agents learn small tasks, replay, target networks and exploration included; chance cannot pass.

On Catch random play scores about -0.6 and staying in the middle -0.6; on the T-maze everything without memory has 0.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.run.train import train

SHORT = {
    "engine": "inline", "device": "cpu", "evaluation.every_frames": 0, "evaluation.episodes": 100,
    "evaluation.envs": 50, "evaluation.policy": "greedy", "log.tensorboard": False, "log.dashboard": False,
}  # fmt: skip
CATCH = {
    "env.length": 6, "actor.envs_per_worker": 16, "agent.torso": "mlp", "agent.hidden_size": [32],
    "agent.target_period": 50, "learner.batch_size": 32, "learner.learning_rate": 2e-3, "replay.capacity": 8000,
    "replay.samplers.0.min_rows": 500,
}  # fmt: skip
UNIFORM = [{"kind": "uniform"}]


def short(preset: str, out: Path, **options: Any) -> RunConfig:
    """``preset`` for seconds; ``a__b`` stands for ``a.b``."""
    own = {name.replace("__", "."): value for name, value in options.items()}
    return apply_overrides(load_preset(preset), (SHORT | {"out": str(out)} | own).items())


def catch(preset: str, out: Path, **options: Any) -> RunConfig:
    return short(preset, out, **{name.replace(".", "__"): value for name, value in CATCH.items()} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"total_frames": 8000},
        {"total_frames": 8000, "agent": "dqn", "agent__n_step": 2, "agent__explore": 3000,
         "replay__samplers": UNIFORM},
        {"total_frames": 12_000, "agent": "rainbow", "agent__head_size": 32, "agent__atoms": 11,
         "agent__value_min": -1.0, "agent__value_max": 1.0, "agent__n_step": 3, "replay__samplers__0__final_beta": 1.0},
    ],
    ids=["apex", "dqn", "rainbow"],
)  # fmt: skip
def test_learns_catch(options: dict[str, Any], tmp_path: Path) -> None:
    result = train(catch("apex-catch", tmp_path / "run", **options))
    assert result.evaluation_mean is not None
    assert result.evaluation_mean > 0.7


def test_learns_what_only_memory_solves(tmp_path: Path) -> None:
    options = {
        "env__length": 5, "total_frames": 16_000, "agent__hidden_size": [16], "agent__core_size": 24,
        "agent__head_size": 0, "agent__length": 8, "agent__period": 4, "agent__n_step": 3, "agent__target_period": 50,
        "actor__envs_per_worker": 16, "learner__unroll_length": 4, "learner__batch_size": 16,
        "learner__learning_rate": 3e-3, "replay__samples_per_insert": 8, "replay__capacity": 16_000,
        "replay__samplers__0__min_rows": 1000,
    }  # fmt: skip
    result = train(short("r2d2-tmaze", tmp_path / "run", **options))
    assert result.evaluation_mean is not None
    assert result.evaluation_mean > 0.85

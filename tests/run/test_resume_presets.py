"""Presets as users start them, killed twice and resumed: bit for bit what a run never killed gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.run.verify import verify_resume

KILLS = 2
SMALL_REPLAY = {"replay.capacity": 8000, "replay.samplers.0.min_rows": 500}
SOME_GAMES = {"actor.envs_per_worker": 16, "learner.batch_size": 16}

RUNS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "debug": (20_000, 25, {"learner.publish_every": 2}),
    "impala-catch": (60_000, 25, {"learner.publish_every": 3}),
    "impala-tmaze": (60_000, 5, {"learner.publish_every": 2}),
    "impala-pendulum": (40_000, 10, {}),
    "impala-minatar": (40_000, 20, {}),
    "dqn-minatar": (8_000, 45, SMALL_REPLAY | {"agent.explore": 5000}),
    "rainbow-minatar": (6_000, 30, SMALL_REPLAY),
    "apex-catch": (30_000, 150, {"learner.publish_every": 2}),
    "r2d2-tmaze": (12_000, 40, SMALL_REPLAY),
    "apex-hanabi-small": (30_000, 40, {"replay.samplers.0.min_rows": 2000}),
    "impala-atari": (40_000, 12, SOME_GAMES),
    "apex-small": (40_000, 60, SMALL_REPLAY | {"actor.envs_per_worker": 8, "learner.batch_size": 16}),
}
"""Preset -> environment frames, updates between two checkpoints, and what makes the run short enough."""
NEEDS = {"minatar": "minatar", "hanabi": "pyspiel", "atari": "ale_py", "apex-small": "ale_py"}
"""Part of a preset's name -> package that its environment is from."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(RUNS))
def test_a_preset_killed_twice_equals_one_never_killed(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, package in NEEDS.items():
        if part in preset:
            pytest.importorskip(package)
    frames, every, options = RUNS[preset]
    common = {"total_frames": frames, "checkpoint.every_updates": every, "device": "cpu", "log.tensorboard": False}
    config = apply_overrides(load_preset(preset), (common | {"log.dashboard": False} | options).items())
    equal = verify_resume(replace(config, out=""), kills=KILLS, folder=tmp_path)
    said = capsys.readouterr().out
    assert equal, said
    assert f"kill {KILLS}: after" in said, f"the run ended too early to be killed {KILLS} times; more frames are needed"

"""The preset for anybody's environment learns four kinds of them, whatever they show and take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import offbeat
from tests.zoo.tasks import COURIER_LEARNT, Courier, PictureCatch

TASKS = {
    "CartPole": ({"env": "CartPole-v1"}, 300_000, 475.0),
    "Pendulum": ({"env": "Pendulum-v1"}, 3_000_000, -300.0),
    "a picture": ({"env_factory": PictureCatch}, 800_000, PictureCatch.learnt),
    "a dictionary": ({"env_factory": Courier}, 400_000, COURIER_LEARNT),
}
"""What is trained on, for how many frames, and the mean return that counts as learnt. Random: 22, -1200, -0.8, 0.4."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", TASKS)
def test_it_learns(task: str, tmp_path: Path) -> None:
    env, frames, learnt = TASKS[task]
    options: dict[str, Any] = {"evaluation": {"every_frames": 0}, "log": {"tensorboard": False}}
    result = offbeat.train("own", total_frames=frames, seed=100, out=str(tmp_path / "run"), **env, **options)
    assert result.evaluation_mean is not None and result.evaluation_mean >= learnt


@pytest.mark.parametrize(("preset", "env"), [("own", Courier), ("own-replay", PictureCatch)])
def test_it_begins_on_what_is_no_vector(preset: str, env: Any, tmp_path: Path) -> None:
    short: dict[str, Any] = {
        "total_frames": 400,
        "engine": "inline",
        "evaluation": {"every_frames": 0, "at_end": False},
    }
    result = offbeat.train(preset, env_factory=env, out=str(tmp_path / "run"), log={"tensorboard": False}, **short)
    assert result.finished and result.updates >= (1 if preset == "own" else 0)

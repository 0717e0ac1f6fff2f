"""Deterministic runs refuse environments that cannot be saved exactly before they have a folder, and look once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from offbeat.cli import main
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.run.train import train
from tests.zoo.small import Small


class Moody(Small):
    """Draws what no seed decides."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return np.random.default_rng().random(observation.shape).astype(observation.dtype), info


def several(num_envs: int) -> Any:
    """Many at once, which cannot be saved."""
    return gymnasium.vector.SyncVectorEnv([Small] * num_envs)


@pytest.mark.parametrize("options", [("--engine", "inline"), ("--engine", "local", "--deterministic", "true")])
@pytest.mark.parametrize(("env", "says"), [("Moody", "cannot be saved exactly"), ("several", "a vector environment")])
def test_they_are_refused_in_one_line_before_a_folder_is_made(
    env: str, says: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code = main(["train", "debug", "--env", f"tests.run.test_exact:{env}", "--out", str(run), *options])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1 and said.startswith("offbeat: error: ") and says in said
    assert not run.exists()


def test_a_free_run_takes_them(tmp_path: Path) -> None:
    config = apply_overrides(load_preset("debug"), (SHORT | {"out": str(tmp_path / "run"), "engine": "local"}).items())
    assert train(config, env_factory=Moody).finished


SHORT: dict[str, Any] = {
    "total_frames": 100, "env.length": 20, "actor.workers": 2, "actor.envs_per_worker": 4, "learner.batch_size": 4,
    "learner.unroll_length": 5, "evaluation.every_frames": 0, "evaluation.at_end": False,
}  # fmt: skip


def test_the_look_is_taken_once_whatever_the_number_of_actors(tmp_path: Path) -> None:
    made: list[Small] = []

    def make() -> Small:
        made.append(Small())
        return made[-1]

    config = apply_overrides(load_preset("debug"), (SHORT | {"out": str(tmp_path / "run"), "engine": "inline"}).items())
    assert train(config, env_factory=make).finished
    spec, look, actors = 1, 2, 8
    assert len(made) == spec + look + actors

"""Agents from somebody else's package, brought in by entry points: served like offbeat's own by every engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.outside.package import install

PRESET = """
total_frames = 3000
device = "cpu"
[env]
id = "toy/catch"
length = 6
[agent]
name = "linear_q"
[actor]
envs_per_worker = 8
[learner]
batch_size = 8
unroll_length = 4
optimizer = "adam"
learning_rate = 3e-3
epsilon = 1e-6
[evaluation]
every_frames = 0
episodes = 100
[log]
tensorboard = false
dashboard = false
"""
SAMPLER = """
[replay]
capacity = 2000
samples_per_insert = 4
[[replay.samplers]]
kind = "{kind}"
min_rows = 100
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the package."""
    return install(tmp_path_factory.mktemp("package"))


def offbeat(installed: Path, folder: Path, preset: str, *options: str) -> tuple[int, str]:
    """Train; exit code and what was said."""
    file = folder / "preset.toml"
    file.write_text(preset)
    command = [sys.executable, "-m", "offbeat", "train", str(file), "--out", str(folder / "run"), *options]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("options", [("--engine", "inline"), ("--deterministic", "true"), ()], ids=" ".join)
def test_an_agent_that_trains_on_transitions(
    options: tuple[str, ...], kind: str, installed: Path, tmp_path: Path
) -> None:
    code, said = offbeat(installed, tmp_path, PRESET + SAMPLER.format(kind=kind), *options)
    assert code == 0, said
    score = float(said.split("eval=")[-1].split()[0]) if "eval=" in said else -1.0
    assert "finished: " in said, said
    assert score > -0.5, said


@pytest.mark.parametrize("options", [("--engine", "inline"), ()], ids=" ".join)
def test_samplers_that_do_not_suit_an_agent_are_refused(
    options: tuple[str, ...], installed: Path, tmp_path: Path
) -> None:
    code, said = offbeat(installed, tmp_path, PRESET, *options)
    assert code == 2, said
    assert "replay.samplers.0.kind=fifo draws unrolls, but agent 'linear_q' trains on transitions" in said
    assert "allowed: prioritised, uniform" in said
    assert not (tmp_path / "run").exists()

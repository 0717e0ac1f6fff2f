"""Whole runs of the local engine on the GPU: servers, kills, resumes there and elsewhere, and what becomes of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offbeat
from offbeat.config.run_config import read_config
from offbeat.storage.checkpoint import Checkpoint, load, newest
from tests.cuda.twins import on
from tests.faults.command import running

pytestmark = pytest.mark.cuda

QUICK = ("--evaluation.every_frames", "0", "--log.tensorboard", "false", "--log.dashboard", "false")
SCORED = (*QUICK, "--evaluation.episodes", "4", "--evaluation.envs", "4")
LENGTH = {"impala-catch": 12_000, "apex-catch": 4_000}
"""Environment frames of a run that ends within seconds."""


def train(folder: Path, preset: str, device: str, *options: str) -> Path:
    """A finished run."""
    arguments = ("--device", device, "--total-frames", str(LENGTH[preset]), "--out", str(folder / "run"), *SCORED)
    with running("train", preset, *arguments, *options, folder=folder) as command:
        assert command.wait() == 0, command.output
        assert "finished" in command.output
    return folder / "run"


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind in the run's metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def newest_of(run: Path) -> Checkpoint:
    """The newest checkpoint."""
    found = newest(run)
    assert found is not None
    return found


def counters(run: Path) -> dict[str, int]:
    """The learner's, in the newest checkpoint."""
    found: dict[str, int] = load(newest_of(run))[1]["counters"]
    return found


@pytest.mark.parametrize("preset", LENGTH)
def test_an_inference_server_on_the_device_serves_a_run_that_trains_there(
    preset: str, device: str, tmp_path: Path
) -> None:
    run = train(tmp_path, preset, device, "--actor.inference", "server", "--learner.precision", "auto")
    config = read_config(run / "config.toml")
    assert (config.device, config.learner.device, config.inference.device) == (device, device, (device,))
    assert counters(run)["frames"] >= LENGTH[preset] and counters(run)["updates"] > 10
    versions = load(newest_of(run))[0]["streams"]["streams/param_version"]
    assert np.asarray(versions).max() > counters(run)["updates"] / 2, "it took newer weights"
    (score,) = records(run, "evaluation")
    assert score["version"] == counters(run)["updates"] and score["episodes"] == 4


@pytest.fixture(scope="module")
def killed(device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the device that has saved itself and was killed."""
    folder = tmp_path_factory.mktemp("killed")
    arguments = ("--device", device, "--total-frames", str(10**9), "--out", str(folder / "run"), *SCORED)
    with running("train", "impala-catch", *arguments, "--checkpoint.every_s", "1", folder=folder) as command:
        command.until(lambda: newest(folder / "run") is not None, "a checkpoint")
        os.killpg(command.process.pid, signal.SIGKILL)
        command.wait()
    return folder / "run"


def go_on(run: Path, *options: str) -> tuple[dict[str, int], dict[str, int]]:
    """Resume the run for some frames; its counters before and after."""
    before = counters(run)
    length = str(before["frames"] + 5_000)
    with running("resume", str(run), "--total-frames", length, *options, folder=run.parent) as command:
        assert command.wait() == 0, command.output
    return before, counters(run)


def test_a_killed_run_goes_on_on_the_device_and_then_on_the_processor(
    killed: Path, device: str, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(killed, tmp_path / "run"))
    for options, place in (((), device), (("--device", "cpu"), "cpu")):
        before, after = go_on(run, *options)
        assert all(after[name] > before[name] for name in ("frames", "agent_steps", "updates", "samples"))
        assert before["frames"] + 5_000 <= after["frames"] < before["frames"] + 10_000
        config = read_config(run / "config.toml")
        assert (config.device, config.learner.device, config.inference.device) == (place, place, (place,))
        saved = load(newest_of(run))[0]["learner"]
        assert ("cuda_generator" in saved) == place.startswith("cuda")


def without_gpu(*arguments: str) -> str:
    """What a command prints on a machine that has none."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_of_the_device_is_scored_and_exported_where_there_is_no_gpu(killed: Path, tmp_path: Path) -> None:
    assert "4 episodes (sampled)" in without_gpu("-m", "offbeat", "eval", str(killed), "--episodes", "4")
    path = tmp_path / "policy.pt2"
    without_gpu("-m", "offbeat", "export", str(killed), "--out", str(path))
    program = torch.export.load(path).module()
    agent = offbeat.load(killed).agent
    observation = {"observation": torch.rand(1, 3, *agent.spec.observation["observation"].shape)}
    first = torch.ones(1, 3, dtype=torch.bool)
    expected = agent.network(observation, first, {}).policy
    torch.testing.assert_close(program(observation, first, {})["policy"], expected, rtol=1e-5, atol=1e-5)


def test_a_run_of_the_device_is_loaded_and_scored_on_both(killed: Path, device: str) -> None:
    here, there = offbeat.load(killed), offbeat.load(killed, device=device)
    on("cpu", *here.agent.network.state_dict().values())
    on(device, *there.agent.network.state_dict().values())
    random = np.random.default_rng(0)
    for observation in random.random((5, *here.spec.observation["observation"].shape), np.float32):
        assert here.act(observation) == there.act(observation)
    assert offbeat.evaluate(killed, episodes=4, policy="greedy").complete

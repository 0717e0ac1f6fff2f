"""The programs of docs/export.md run as printed, in a process that has no offbeat and, for ONNX, no torch either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import offbeat
from tests.house_rules.source import ROOT
from tests.house_rules.test_documents import blocks

SHORT: dict[str, Any] = {
    "log": {"tensorboard": False}, "engine": "inline", "evaluation": {"every_frames": 0, "at_end": False}
}  # fmt: skip
WITHOUT = "import sys\nfor package in {}: sys.modules[package] = None\nexec(open('program.py').read())"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has learnt a little, so that its episodes are longer than those of any other."""
    return offbeat.train(
        "impala-cartpole", total_frames=3000, out=str(tmp_path_factory.mktemp("a") / "run"), **SHORT
    ).run


def printed(reads: str) -> str:
    """The program that reads that file."""
    (program,) = [block for block in blocks(ROOT / "docs" / "export.md", "python") if f'("{reads}")' in block]
    return program


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_it_plays_as_the_agent_does(format: str, run: Path, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    assert offbeat.export(run, tmp_path / f"policy.{format}") == tmp_path / f"policy.{format}"
    (tmp_path / "program.py").write_text(printed(f"policy.{format}"))
    lacking = ["offbeat"] if format == "pt2" else ["offbeat", "torch", "numba", "onnxscript", "onnx"]
    command = [sys.executable, "-c", WITHOUT.format(lacking)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    agent, env = offbeat.load(run), gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    steps, over = 0, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(agent.act(observation))
        steps, over = steps + 1, terminated or truncated
    assert int(done.stdout) == steps

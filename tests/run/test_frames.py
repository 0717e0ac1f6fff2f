"""Frames are counted as environments report them: an action may take several of their steps."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvConfig
from offbeat.envs.toy import ToyVector
from offbeat.run.train import resume, train
from offbeat.types import EnvStep

TOOK, SKIP = 3, 2


class Slow(ToyVector):
    """``toy/catch`` whose every action takes three environment steps of two frames."""

    def __init__(self, config: EnvConfig, num_envs: int, **_: Any) -> None:
        super().__init__(replace(config, id="toy/catch"), num_envs)
        self.spec = replace(self.spec, frame_skip=SKIP)

    def recv(self) -> EnvStep:
        """As Catch."""
        rows = super().recv()
        return replace(rows, elapsed=np.where(rows.first, 0, TOOK).astype(np.int32))


RUNS = [("impala-catch", "inline"), ("apex-catch", "inline"), ("debug", "local")]


@pytest.mark.parametrize(("preset", "engine"), RUNS)
def test_every_counter_of_frames_follows_the_environment(preset: str, engine: str, tmp_path: Path) -> None:
    options = {"engine": engine, "total_frames": 6000, "out": str(tmp_path / "run"), "log.tensorboard": False}
    options |= {"log.every_s": 0.2, "evaluation.every_frames": 0, "evaluation.episodes": 20}
    config = apply_overrides(load_preset(preset), list(options.items()))
    result = train(config, env_factory=Slow)
    assert result.finished
    assert result.frames == TOOK * SKIP * result.agent_steps >= 6000
    longer = resume(result.run, 7000, env_factory=Slow)
    assert longer.frames == TOOK * SKIP * longer.agent_steps >= 7000
    records = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    learner = [record for record in records if record["kind"] == "learner"]
    assert learner[-1]["sample_frames"] == TOOK * SKIP * learner[-1]["samples"] > 0
    episodes = [record for record in records if record["kind"] == "episode"]
    assert {record["episode_frames"] for record in episodes} == {TOOK * SKIP * record["length"] for record in episodes}
    actors = [record for record in records if record["kind"] == "actor"]
    assert all(0 < record["env_frames"] <= TOOK * SKIP * record["steps"] for record in actors)
    with (result.run / "progress.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert int(last["frames"]) == longer.frames

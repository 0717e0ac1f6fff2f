"""Small runs of the zoo's environments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offbeat.config.fitting import fitted
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.run.train import RunResult, train
from tests.zoo.entry import Entry

TINY = {
    "total_frames": 40, "actor.envs_per_worker": 2, "learner.batch_size": 2, "learner.unroll_length": 3,
    "evaluation.every_frames": 0, "evaluation.episodes": 2, "evaluation.envs": 2, "log.tensorboard": False,
}  # fmt: skip
"""Some updates, tens of steps."""
AGENTS: dict[str, dict[str, Any]] = {
    "impala": {"agent.hidden_size": (16,)},
    "dqn": {
        "agent.name": "dqn", "agent.torso": "auto", "agent.hidden_size": (16,), "replay.capacity": 400,
        "replay.samplers": '[{kind = "uniform", min_rows = 16}]', "learner.batch_size": 4,
        "replay.samples_per_insert": 1,
    },
}  # fmt: skip
"""Agent -> its options."""


def config_of(entry: Entry, agent: str, out: Path, **others: Any) -> RunConfig:
    """The configuration of a tiny run."""
    options: Mapping[str, Any] = {"env": "zoo", "out": str(out), **TINY, **AGENTS[agent], **entry.options, **others}
    return fitted(apply_overrides(load_preset("debug"), options.items()), options, entry.make)


def run_of(entry: Entry, agent: str, out: Path, **others: Any) -> RunResult:
    """A tiny run."""
    return train(config_of(entry, agent, out, **others), env_factory=entry.make)


def line(error: BaseException) -> str:
    """What an exception says, as the command line shows it."""
    return " ".join(str(error).split()) or type(error).__name__

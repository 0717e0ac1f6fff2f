"""Runs on ``toy/drift`` of an agent whose weights are its answers, and what they must score under any delay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from offbeat.config.run_config import RunConfig, apply_overrides, from_dict
from offbeat.envs.toy_games import Drift
from offbeat.run.train import train
from offbeat.types import OBSERVATION, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, ItemSpec, LossOutput

LENGTH = 100


class Answering:
    """Answers each of the four symbols with the action that its weights hold; learns nothing."""

    answers = (1.0, 2.0, 3.0, 4.0)

    def __init__(self, config: Any, spec: EnvSpec, device: Any = "cpu") -> None:
        self.config, self.spec = config, spec
        self.network: nn.Module = nn.ParameterDict({"answers": nn.Parameter(torch.tensor(self.answers))}).to(device)
        self.discount, self.wants_last, self.items = 0.99, False, ItemSpec("transition")

    def initial_state(self, batch: int) -> CoreState:
        """None."""
        return {}

    def row_extras(self) -> dict[str, ArraySpec]:
        """None."""
        return {}

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """What its weights hold."""
        symbol = inputs.observation[OBSERVATION][0, :, :4].argmax(-1)
        return ActOutput(self.network.get_parameter("answers")[symbol].long(), {}, {})

    def loss(self, batch: Any, progress: float) -> LossOutput:
        """Nothing."""
        return LossOutput(self.network.get_parameter("answers").sum() * 0.0, {})


class Forgetful(Answering):
    """Does nothing where it sees the last symbol."""

    answers = (1.0, 2.0, 3.0, 0.0)


KNOWN = {Answering: 1.0, Forgetful: 0.75}
"""Share of the symbols that it can answer."""


def drift_config(out: Path, frames: int = 8, **overrides: Any) -> RunConfig:
    """A run of a moment; ``a__b`` stands for ``a.b``."""
    config = from_dict({
        "out": str(out), "device": "cpu", "engine": "inline", "total_frames": frames,
        "env": {"id": "toy/drift", "length": LENGTH, "frame_skip": 1, "frame_stack": 1},
        "agent": {"name": "noop"},
        "actor": {"append_rows": 4, "envs_per_worker": 1},
        "learner": {"batch_size": 4, "prefetch": 0},
        "replay": {"capacity": 2000, "samples_per_insert": 1.0, "samplers": [{"kind": "uniform"}]},
        "evaluation": {"every_frames": 0, "at_end": False, "episodes": 2, "envs": 2, "policy": "greedy"},
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip
    config = apply_overrides(config, [(key.replace("__", "."), value) for key, value in overrides.items()])
    return replace(config, evaluation=replace(config.evaluation, envs=20, episodes=20))


def drift_run(out: Path, agent: type[Answering], frames: int = 8, **overrides: Any) -> Path:
    """A finished run of it."""
    return train(drift_config(out, frames, **overrides), agent_factory=agent).run


def right(staleness: int) -> float:
    """Chance that the symbol that was there ``staleness`` frames ago is there: it has not been drawn anew since, or the
    same was drawn last.
    """
    kept = (1 - Drift.changes) ** staleness
    return kept + (1 - kept) / Drift.symbols


def expected(agent: type[Answering], staleness: int, decisions: int) -> float:
    """Mean return of an episode in which so many decisions act, each so old; nothing acts in the other frames."""
    return KNOWN[agent] * right(staleness) * decisions

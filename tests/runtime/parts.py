"""Small parts that tests of roles share: configurations, private weights, metrics kept in a list."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.make import make_agent
from offbeat.config.run_config import RunConfig, apply_overrides, from_dict
from offbeat.envs.registry import env_spec
from offbeat.networks.flat import flat_size
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.params import ParamStore, param_arrays
from offbeat.runtime.topology import topology
from offbeat.runtime.world import World, make_world, plan_layout


class Metrics:
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, float]]] = []

    def write(self, kind: str, values: dict[str, float]) -> None:
        """Remember one record."""
        self.records.append((kind, dict(values)))

    def of(self, kind: str) -> list[dict[str, float]]:
        """All records of that kind."""
        return [values for name, values in self.records if name == kind]


class StopAfter:
    """Says stop from the n-th look on; by default never."""

    def __init__(self, looks: int = 1_000_000_000) -> None:
        self.left = looks

    def is_set(self) -> bool:
        """Whether it is over."""
        self.left -= 1
        return self.left < 0


def private_params(size: int) -> ParamStore:
    """A store of weights in this process's own memory."""
    return ParamStore({name: np.zeros(spec.shape, spec.dtype) for name, spec in param_arrays(size).items()})


def small_config(**overrides: Any) -> RunConfig:
    """Catch with 4 environments of one actor, batches of 2 unrolls x 5 rows; ``a__b`` stands for ``a.b``."""
    config = from_dict({
        "device": "cpu",
        "engine": "inline",
        "total_frames": 400,
        "env": {"id": "toy/catch", "length": 6},
        "agent": {"hidden_size": [8], "core": "lstm", "core_size": 4, "last_action": True, "last_reward": True},
        "actor": {"workers": 1, "envs_per_worker": 4},
        "learner": {"batch_size": 2, "unroll_length": 5},
        "evaluation": {"every_frames": 0, "episodes": 4, "envs": 2},
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip
    return apply_overrides(config, [(key.replace("__", "."), value) for key, value in overrides.items()])


ITEM_AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {"name": "dqn", "explore": 100, "target_period": 3},
    "apex": {"name": "apex", "head_size": 4, "target_period": 3},
    "rainbow": {"name": "rainbow", "head_size": 4, "atoms": 5, "target_period": 3, "target_rate": 0.5},
    "r2d2": {
        "name": "r2d2", "head_size": 0, "core_size": 4, "length": 4, "burn_in": 2, "period": 2, "n_step": 2,
        "target_period": 3,
    },
}  # fmt: skip
"""Small options of the agents that train on transitions and sequences."""


def item_config(agent: str, **overrides: Any) -> RunConfig:
    """The same for an agent of ``ITEM_AGENTS``: not every round of 20 rows is followed by an update."""
    sampler = {"kind": "prioritised", "min_rows": 20, "initial_priority": "actor", "final_beta": 1.0}
    config = from_dict({
        "device": "cpu",
        "engine": "inline",
        "total_frames": 400,
        "env": {"id": "toy/catch", "length": 6},
        "agent": {"hidden_size": [8]} | ITEM_AGENTS[agent],
        "actor": {"workers": 1, "envs_per_worker": 4},
        "learner": {"batch_size": 2 if agent == "r2d2" else 8, "unroll_length": 5, "optimizer": "adam"},
        "replay": {
            "capacity": 200, "samples_per_insert": 0.3,
            "samplers": [{"kind": "uniform", "min_rows": 20} if agent == "dqn" else sampler],
        },
        "evaluation": {"every_frames": 0, "episodes": 4, "envs": 2},
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip
    return apply_overrides(config, [(key.replace("__", "."), value) for key, value in overrides.items()])


def small_world(folder: Path, config: RunConfig | None = None) -> World:
    """Everything that the roles of ``config`` share."""
    config = config or small_config()
    spec = env_spec(config.env)
    agent = make_agent(config.agent_name, config.agent, spec, "cpu")
    layout = plan_layout(config, spec, agent)
    roles = topology(config, layout.items)
    return make_world(config, spec, layout, roles, flat_size(agent.network), folder / "run.log")


def make_host(
    world: World, role: str, metrics: Any, *, free: bool, incarnation: int = 0, checkpoint: Path | None = None
) -> Any:
    """The host of a role, as engines make it."""
    services = LocalServices(world, role, metrics, free=free, incarnation=incarnation, checkpoint=checkpoint)
    return world.topology.row(role).builder()(services)


def same_face(fake: type, real: type, besides: set[str]) -> None:
    """What ``fake`` has is what ``real`` has, with the same parameters; ``besides``: what only tests look at."""
    kept = [set(re.findall(r"self\.([a-z]\w*)\b(?=.*[:=])", inspect.getsource(cls))) for cls in (fake, real)]
    for name, method in vars(fake).items():
        if inspect.isfunction(method) and name not in kept[1]:
            ours, theirs = (inspect.signature(each).parameters.values() for each in (method, getattr(real, name)))
            same = [(one.name, one.kind, one.default) for one in ours] == [
                (one.name, one.kind, one.default) for one in theirs
            ]
            assert same or (name == "__init__" and len(ours) == 1), f"{fake.__name__}.{name}"
    assert not (strange := kept[0] - kept[1] - besides - set(dir(real))), f"{real.__name__} has no {strange}"


def same_arrays(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Both hold the same arrays, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)

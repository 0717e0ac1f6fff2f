"""Which libraries offbeat is measured beside, on which tasks, and what offbeat itself runs there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offbeat.config.auto import decide
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.config.validation import validate
from offbeat.envs import atari_games, minatar
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError, unknown

DRIVERS = Path(__file__).parent / "drivers"
"""Where the scripts are that run a peer: ``drive_<peer>.py``."""


@dataclass(frozen=True)
class Peer:
    """A library that offbeat is measured beside."""

    title: str
    tasks: tuple[str, ...]
    """Tasks that its driver knows."""


PEERS = {
    "sb3": Peer("Stable-Baselines3", ("atari", "atari-deep", "atari-dqn", "cartpole", "minatar")),
    "sample_factory": Peer("Sample Factory", ("atari", "atari-deep", "cartpole")),
    "rllib": Peer("RLlib", ("atari", "atari-deep", "cartpole")),
}
"""Option and driver -> the library."""


@dataclass(frozen=True)
class Task:
    """What all libraries train on."""

    preset: str
    """What offbeat runs unless told otherwise."""
    network: dict[str, Any]
    """Options of offbeat's agent that give the network of the peers' drivers; laid over ``preset``."""


TASKS = {
    "atari": Task("impala-atari", {"torso": "nature", "feature_size": 0, "core": "none"}),
    "atari-deep": Task("impala-atari", {"torso": "resnet", "feature_size": 0, "core": "none"}),
    "atari-dqn": Task("dqn-small", {"torso": "nature", "feature_size": 0, "dueling": False, "head_size": 0}),
    "cartpole": Task("impala-cartpole", {"torso": "mlp", "hidden_size": (64, 64), "core": "none"}),
    "minatar": Task("impala-minatar", {"torso": "minatar", "feature_size": 0, "core": "none"}),
}
"""Name -> task."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, checked."""

    task: str
    game: str
    """As the drivers expect it: ``Pong``, ``space_invaders``."""
    frame_skip: int
    device: str
    """``cpu`` or ``cuda``, for everyone."""
    configs: tuple[RunConfig, ...]
    """Runs of offbeat."""
    pythons: dict[str, Path]
    """Peer -> the Python of its virtual environment."""
    same_network: bool
    """Whether offbeat's network is that of the peers."""


def make_plan(
    venvs: dict[str, str], *, task: str, game: str, preset: str, options: Iterable[tuple[str, str]] = ()
) -> Plan:
    """Check everything before anything is started.

    ``venvs``: peer -> folder of its virtual environment. ``game`` and ``preset`` may be empty: the task's own game, and
    its own preset with the task's network; a preset that is named keeps its own network. ``options`` are laid over
    all that. Raises ``UserError``.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    pythons = {peer: find_python(peer, folder) for peer, folder in venvs.items()}
    if not pythons:
        raise UserError(
            "'offbeat bench peers' needs the virtual environment of at least one peer: "
            + ", ".join(f"{option(peer)} VENV" for peer in PEERS)
        )
    for peer in pythons:
        if task not in PEERS[peer].tasks:
            raise UserError(f"{option(peer)} has no task {task!r}; it has: {', '.join(PEERS[peer].tasks)}")
    config = load_preset(preset) if preset else task_config(TASKS[task])
    if game:
        prefix = "minatar/" if task == "minatar" and "/" not in game else ""
        config = apply_overrides(config, [("env.id", prefix + game)])
    config = apply_overrides(config, options)
    driven = game_of(task, config.env.id)
    validate(config)
    config = decide(config)
    return Plan(
        task=task,
        game=driven,
        frame_skip=env_spec(config.env).frame_skip,
        device=config.learner.device.partition(":")[0],
        configs=variants(config),
        pythons=pythons,
        same_network=has_network(config, TASKS[task]),
    )


def task_config(task: Task) -> RunConfig:
    """What offbeat runs for ``task`` unless told otherwise: the preset with the network of the peers' drivers."""
    return apply_overrides(load_preset(task.preset), [(f"agent.{name}", value) for name, value in task.network.items()])


def option(peer: str) -> str:
    """A peer's option on the command line."""
    return "--" + peer.replace("_", "-")


def find_python(peer: str, folder: str) -> Path:
    """The interpreter of the virtual environment ``folder``. Raises ``UserError``."""
    python = Path(folder).expanduser().absolute() / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"{option(peer)} {folder}: no virtual environment ({python} does not exist); "
            "docs/performance.md shows how to make one"
        )
    return python


def game_of(task: str, env_id: str) -> str:
    """The game as the drivers of ``task`` expect it. Raises ``UserError`` where the environment is another task's."""
    if task.startswith("atari"):
        found = atari_games.find_game(env_id)
    elif task == "minatar":
        found = minatar.find_game(env_id) if env_id.lower().startswith("minatar/") else None
    else:
        found = "CartPole-v1" if env_id in ("CartPole-v1", "CartPole") else None
    if found is None:
        env_spec(EnvConfig(env_id))  # where there is no such environment at all, this says so and what is near
        raise UserError(f"environment {env_id!r} does not belong to task {task!r}; choose another --task or --game")
    return found


def variants(config: RunConfig) -> tuple[RunConfig, ...]:
    """The run as it is and, where that is not the same, in float32 and not compiled, as the peers are."""
    plain = replace(config, learner=replace(config.learner, precision="fp32", compile=False))
    return (config,) if plain == config else (config, plain)


def has_network(config: RunConfig, task: Task) -> bool:
    """Whether the agent's network is the one that the peers' drivers build for ``task``; ``auto`` chooses the same."""
    return all(getattr(config.agent, name, None) in (value, "auto") for name, value in task.network.items())

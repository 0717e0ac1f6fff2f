"""What an action trace says beside the actions: which environment with which options, versions and ROMs, whose weights.

``traced`` makes the bytes of the file; ``offbeat.storage.traces`` is its format.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, uint8

from offbeat.acting.scores import Evaluation
from offbeat.acting.tracing import Tracer, repeats
from offbeat.envs.atari_games import find_game, game_names, rom_path
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.registry import plain_gymnasium
from offbeat.storage.traces import SUFFIX, pack

PACKAGES = ("offbeat", "numpy", "gymnasium")
"""What every game goes through."""
FAMILIES = {
    "minatar/": ("minatar",), "hanabi/": ("open_spiel",), "vizdoom/": ("vizdoom",), "popgym-": ("popgym",),
    "procgen:": ("envpool",), "envpool:": ("envpool",),
}  # fmt: skip
"""What ids begin with -> the packages that play them."""
PHYSICS = {"mujoco": "mujoco", "Box2D": "box2d"}
"""Module -> package, of what Gymnasium's environments may compute with."""


@dataclass(frozen=True)
class Played:
    """How the games of an evaluation were set up."""

    env: EnvConfig
    """Options of the environments, as they were made."""
    seed: int
    episodes: int
    """Whole episodes, of all games together."""
    longest: int = 0
    """Steps after which an episode was given up; 0: never."""
    deterministic: bool = False
    """Whether the environments were made to be saved exactly, which chooses the emulator."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is noted down: ``kind`` of the evaluation, ``run``, ``set``."""


def traced(
    env: VectorEnv,
    tracer: Tracer,
    result: Evaluation,
    played: Played,
    weights: Mapping[str, Tensor],
    beat: Callable[[], object] = int,
) -> bytes:
    """The trace of a complete evaluation. ``env``, which played it, is started again for a moment: whether it repeats
    itself is part of the trace.

    Args:
        weights: of the network that played, by name.
        beat: called at every step.
    """
    arrays = tracer.arrays(env.spec.action, (result.returns, result.lengths, result.frames_each))
    facts = {
        "env": asdict(played.env),
        "seed": played.seed,
        "copies": env.num_envs,
        "episodes": played.episodes,
        "longest": played.longest,
        "deterministic": played.deterministic,
        "score": "sum of raw rewards",
        "policy": result.policy,
        "epsilon": 0.0,
        "given_up": result.given_up,
        "at": {name: float(value) for name, value in result.at.items()},
        "weights": weights_hash(weights),
        "versions": versions(played.env),
        "roms": roms(played.env),
        "differs": why_not(played.env) or repeats(env, played.seed, arrays, beat=beat),
        **played.about,
    }
    return pack(facts, arrays)


def trace_name(kind: str, frames: int, which: str = "") -> str:
    """What the trace of an evaluation of that ``kind`` is called, after the ``frames`` that its weights have seen.

    ``which``: what tells it from others at that point, such as a set of environments.
    """
    plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in which)[:60]
    return "-".join([kind, f"{frames:012d}", *([plain] if plain else [])]) + SUFFIX


def why_not(config: EnvConfig) -> str:
    """Why a trace of this environment cannot be played again, as far as its options tell; empty: nothing says so."""
    return "its delays are drawn from a file of measured ones" if config.delay.recorded else ""


def versions(config: EnvConfig) -> dict[str, str]:
    """Package -> installed version, of what decides how these games go; also Python's, and the kind of machine."""
    names = [*PACKAGES]
    for game in config.games:
        names += next((own for start, own in FAMILIES.items() if game.lower().startswith(start)), ())
        names += ["envpool" if config.backend == "envpool" else "ale-py"] if is_atari(game) else []
    names += [package for module, package in PHYSICS.items() if module in sys.modules]
    found = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


def roms(config: EnvConfig) -> dict[str, str]:
    """Atari game -> sha256 of the ROM that is installed for it."""
    games = [find_game(game) for game in config.games if is_atari(game)]
    return {game: _file_hash(rom_path(game)) for game in games if game is not None}


def is_atari(game: str) -> bool:
    """Whether an id is that of an Atari game, which the emulator plays."""
    if game.lower().startswith((*FAMILIES, "toy/", "dmlab/")) or plain_gymnasium(game):
        return False
    found = find_game(game)
    return found is not None and found in game_names()


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """sha256 of names, dtypes, shapes and bytes of a network's weights, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(uint8).numpy().tobytes())
    return found.hexdigest()


@cache
def _file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

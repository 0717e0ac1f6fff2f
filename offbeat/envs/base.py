"""What offbeat asks of an environment: vectorised, one row per step and environment, ended episodes in one form.

A ``VectorEnv`` gives single frames and raw scores; whatever autoreset the library underneath uses, the rows that come
out are those of ``EnvStep``: an episode ends with a row with ``valid=False`` that carries the final observation and
whose action is ignored, and the next row has ``first=True``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from offbeat.envs.delay_config import DelayConfig
from offbeat.types import ArrayDict, EnvSpec, EnvStep

SEPARATOR = ","
"""Between the ids of a list where they are written as one."""


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and every switch of its protocol. Fields that mean nothing to one stay as they are."""

    id: str = "Pong"
    """Environment: an Atari game (``Pong``, ``PongNoFrameskip-v4``, ``ALE/Pong-v5``, in any case), a toy
    (``toy/catch``), a game of another family (``minatar/breakout``, ``vizdoom/my_way_home``), or any Gymnasium id.
    ``offbeat envs`` lists them. Several, with commas between them, are a list as of ``ids``."""
    ids: tuple[str, ...] = ()
    """In place of ``id``: several games, which differ in nothing but the channels of pictures and the number of
    discrete actions. Each is scored by itself, and the mean over them is the run's score. Source: CLEAR (Rolnick et al.
    2019) trains on three tasks at once, and one after the other."""
    several: Literal["at_once", "in_turn"] = "at_once"
    """Games of a list: environment i of the run plays game i mod their number; or all environments play one game, then
    the next. Scores are always of all games."""
    turn_frames: int = 0
    """Games in turn: how long each is played before the next. The environments of an actor change together, once they
    have played their part of so many frames; their episodes are truncated. 0: an equal part of ``total_frames``, as it
    is when the run begins. Unit: environment frames of the run."""
    turns: int = 1
    """Games in turn: how often the list is gone through; then its last game goes on. 0: for ever."""
    backend: Literal["auto", "ale", "ale-single", "envpool", "pyboy", "retro"] = "auto"
    """Atari: ALE's vector environment, single emulators that can be saved and restored exactly, or EnvPool; ``auto``:
    ``ale``, and ``ale-single`` in deterministic runs. Game Boy: PyBoy (``auto``), or stable-retro."""
    frame_skip: int = 4
    """Frames per action (Atari, DMLab, ViZDoom, Game Boy; others: 1). Unit: frames. Source: Mnih et al. 2015."""
    frame_size: int = 84
    """Height and width of the picture after scaling down (Atari, ViZDoom, Game Boy). Unit: pixels. Source: Mnih et al.
    2015."""
    frame_stack: int = 4
    """Newest frames shown to the network (images of Atari). Source: Mnih et al. 2015."""
    stack_padding: Literal["zero", "repeat"] = "zero"
    """Frames before an episode's first: zeros (ALE) or copies of the first frame (Baselines, EnvPool)."""
    sticky: float = 0.0
    """Probability that an emulator frame repeats the previous action. Range [0, 1]. Machado et al. 2018 use 0.25."""
    noop_max: int = 30
    """Most no-ops at an episode's start, drawn uniformly. Unit: steps of one frame. Source: Mnih et al. 2015."""
    life_loss: Literal["ignore", "terminal", "end_episode"] = "ignore"
    """A lost life: is ignored; sets ``terminated`` while the game goes on; or really ends the episode (a new game)."""
    fire_reset: bool = True
    """Press FIRE after a reset where the game has that action."""
    full_action_space: bool = False
    """All 18 joystick actions instead of the game's minimal set."""
    max_frames: int = 108_000
    """An episode is truncated by the action that reaches this many emulator frames. 108,000 = 30 minutes.
    Source: Machado et al. 2018."""
    reward_clip: Literal["none", "sign", "clamp", "soft_asymmetric"] = "none"
    """Reward as trained on: raw; its sign; clamped to [-1, 1]; 5 tanh(r/5), negative part times 0.3 (IMPALA's
    optimistic form as the V-trace seed has it). Scores always use the raw reward."""
    reward_scale: float = 1.0
    """Factor on the reward as trained on, after clipping."""
    length: int = 20
    """Toy environments: length of the T-maze's corridor, of the copy task's cue, of the memory chain from cue to answer
    (both included), or rows of Catch. Unit: steps."""
    max_steps: int = 0
    """Truncate episodes after this many agent steps; 0: the environment's own limit."""
    channels: Literal["auto", "first", "last"] = "auto"
    """Which axis of pictures (boxes with three axes) holds the channels; ``auto``: the shorter of the first and last.
    For Gymnasium environments."""
    vectorised: Literal["auto", "yes", "no"] = "auto"
    """Ids that are registered with Gymnasium with a vector entry point (CartPole): ``yes``: it steps all copies at
    once, in array operations; ``no``: one is stepped after the other; ``auto``: at once, but for fewer than 8 copies,
    with a delay, where their rows would differ, and in deterministic runs, whose results stay those of single ones."""
    num_levels: int = 0
    """Procgen: how many levels there are, ``start_level`` and the next ones; 0: all, about 2^31. Unit: levels.
    Source: Cobbe et al. 2020 train on 500 of mode hard or 200 of mode easy, and test on all."""
    start_level: int = 0
    """Procgen: number of the first of ``num_levels`` levels. Tests on levels that were not trained on start after
    ``env.start_level`` + ``env.num_levels`` - 1: ``eval_env.start_level``."""
    distribution_mode: Literal["easy", "hard", "extreme", "memory", "exploration"] = "hard"
    """Procgen: how levels are made. All games have easy and hard; docs/environments.md says which have the others."""
    renderer: Literal["software", "hardware"] = "software"
    """DMLab: what draws its pictures, the processor (OSMesa) or a GPU (EGL or GLX, as DeepMind Lab was built)."""
    rom: str = ""
    """Game Boy: file of your cartridge; empty: the one in ``folder``. Its SHA-256 must be that of the game."""
    folder: str = "~/.offbeat/gameboy"
    """Game Boy: where your cartridge and saved states are, or in it a folder of the game's name."""
    states: tuple[str, ...] = ()
    """Game Boy: names of the saved states that episodes start from, ``*`` for anything; none: the game's own list."""
    advance: bool = True
    """Game Boy: an environment plays its starts in order, each until an episode of it is won; else each episode's is
    drawn."""
    delay: DelayConfig = field(default_factory=DelayConfig)
    """A simulated delay. No option of ``env``: it is the section ``[delay]``, for training and evaluation alike."""

    def __post_init__(self) -> None:
        """Call a list by its games. ValueError where it is given beside another id."""
        joined = SEPARATOR.join(self.ids)
        if self.ids and self.id not in ("", "Pong", joined):
            raise ValueError(f"id={self.id!r} and ids={list(self.ids)} were both given; give one of the two")
        if self.ids:
            object.__setattr__(self, "id", joined)

    @property
    def games(self) -> tuple[str, ...]:
        """Ids of all games: those of the list, or the one."""
        return self.ids or (self.id,)


@runtime_checkable
class VectorEnv(Protocol):
    """``num_envs`` environments that step in batches. Not thread-safe; one owner.

    Synchronous use: ``reset`` then ``step`` with actions for all, in the order of ``env_ids``. Asynchronous use, where
    ``batch_size < num_envs``: ``reset``, then alternate ``recv`` (rows of whichever ``batch_size`` environments are
    ready) and ``send`` (actions for exactly those).
    """

    spec: EnvSpec
    num_envs: int
    batch_size: int  # rows per recv; == num_envs for synchronous environments

    def reset(self, seed: int) -> None:
        """Start all episodes; ``recv`` gives the first rows (``first=True``, zero rewards). Same seed, same rows."""

    def recv(self) -> EnvStep:
        """The next ``batch_size`` rows, waiting for them if they are not ready."""

    def send(self, action: np.ndarray) -> None:
        """Actions [batch_size, ...] for the environments of the last ``recv``, in its order."""

    def state(self) -> ArrayDict:
        """Everything needed to go on exactly from here, as arrays (call between ``recv`` and ``send``).

        Raises ``StateUnsupported`` where the environment cannot be saved exactly.
        """

    def load_state(self, state: ArrayDict) -> None:
        """Go back to a saved state; the next call must be ``send``."""

    def close(self) -> None:
        """Free every resource; harmless when called twice."""


class UnusedSwitch(ValueError):
    """A switch was changed that means nothing to this environment."""

    def __init__(self, config: EnvConfig, name: str, default: object) -> None:
        super().__init__(f"{name}={getattr(config, name)!r} means nothing to {config.id}; leave it at {default!r}")
        self.name, self.default = name, default


class Misbehaved(ValueError):
    """An environment does not keep to its spaces or to Gymnasium's interface; says what it gave and what it should."""


class StateUnsupported(RuntimeError):
    """The environment can be neither saved nor replayed exactly; names it and says what can."""


class EnvUnavailable(ValueError):
    """No environment of that id, or its extra is not installed; the message says which and how to install it."""

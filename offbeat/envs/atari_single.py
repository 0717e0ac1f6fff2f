"""Atari on single emulators that can be saved and restored exactly; the backend of deterministic runs.

Frames, rewards and flags are byte for byte those of ALE's vector environment from the same emulator state: gray
palette, maximum of the last two frames, scaled by area interpolation, FIRE and then 0 to noop_max - 1 no-ops at a
reset (one fewer after FIRE). Two things differ: how many no-ops are drawn, since the generator is NumPy's, and the last
picture of a game cut by the time limit, which ALE does not draw (``atari_ale`` draws it as well).

ALE's own snapshots are not exact in the middle of a game: after ``restoreState`` Pong's paddle can be drawn one pixel
off until the game positions it anew. A reset makes up for that, so a saved game is the snapshot before its reset and
the actions since; restoring plays them again (about 5,000 steps/s) and compares the console with the saved one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from offbeat.envs.atari_games import EXTRA, action_ids, ale_module, max_episode_actions, rom_path
from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported
from offbeat.envs.rows import check_actions, handed_out
from offbeat.envs.seeding import env_generators, env_seeds, pack_generator, unpack_generator
from offbeat.types import OBSERVATION, ArrayDict, EnvSpec, EnvStep

NOOP, FIRE = 0, 1
"""The emulator's numbers of these actions."""


class _Emulator:
    """One game with ALE's usual preprocessing, frame buffers included."""

    def __init__(self, config: EnvConfig, game: str, actions: list[int]) -> None:
        self._ale_py = ale_module()
        self.ale = self._ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", config.sticky)
        self._rom, self._actions = rom_path(game), actions
        self._frame_skip, self._noop_max = config.frame_skip, config.noop_max
        self._fire = config.fire_reset and FIRE in actions
        self._limit = max_episode_actions(config)
        self._resize = _area_resize(config.frame_size)
        self.origin, self.noops, self.played = b"", 0, bytearray()  # what this game follows from
        self.elapsed = 0  # actions of this game
        self.screens = np.zeros((0, 0, 0), np.uint8)  # [2, height, width], the older one second

    def load(self, seed: int) -> None:
        """Switch the console on anew, all its randomness from ``seed``."""
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(self._rom)
        height, width = self.ale.getScreenDims()
        self.screens = np.zeros((2, height, width), np.uint8)

    def start(self, generator: np.random.Generator) -> np.ndarray:
        """A new game; its first frame [size, size]."""
        self.origin = self.snapshot()
        self.noops = int(generator.integers(max(self._noop_max, 1))) - self._fire
        return self._begin()

    def step(self, action: int) -> tuple[np.ndarray, int, bool, bool]:
        """(frame, reward, game over, time limit)."""
        outcome = self._play(action)
        return self._frame(), *outcome

    def action_names(self) -> list[str]:
        """What ALE calls the actions."""
        return [self._ale_py.Action(number).name for number in self._actions]

    def snapshot(self) -> bytes:
        """The console with its random numbers; not the screens."""
        return bytes(self.ale.cloneState(include_rng=True).serialize())

    def replay(self, origin: bytes, noops: int, played: bytes) -> None:
        """Play a game again from the snapshot before its reset."""
        self.origin, self.noops = origin, noops
        self.ale.restoreState(self._ale_py.ALEState(origin))
        self._begin()
        for action in played:
            self._play(action)

    def _begin(self) -> np.ndarray:
        ale = self.ale
        self.played = bytearray()
        ale.reset_game()
        if self._fire:
            ale.act(FIRE)
        for _ in range(self.noops):
            ale.act(NOOP)
            if ale.game_over():
                ale.reset_game()
        ale.getScreenGrayscale(self.screens[0])
        self.screens[1] = 0
        self.elapsed = 0
        return self._frame()

    def _play(self, action: int) -> tuple[int, bool, bool]:
        # As in ALE, a game that ends within a skip leaves its last frames undrawn.
        ale, reward, over = self.ale, 0, False
        self.played.append(action)
        self.elapsed += 1
        number = self._actions[action]
        for left in range(self._frame_skip, 0, -1):
            reward += ale.act(number)
            over = ale.game_over()
            if over:
                break
            if left <= 2:
                ale.getScreenGrayscale(self.screens[left - 1])
        return reward, over, self.elapsed >= self._limit and not over

    def _frame(self) -> np.ndarray:
        np.maximum(self.screens[0], self.screens[1], out=self.screens[0])
        return self._resize(self.screens[0])


class AtariSingle:
    """``num_envs`` emulators stepped one after the other, as a ``VectorEnv`` whose state is arrays."""

    def __init__(self, config: EnvConfig, spec: EnvSpec, game: str, num_envs: int) -> None:
        self.spec = spec
        self.num_envs = self.batch_size = num_envs
        self._config = config
        actions = action_ids(game, config.full_action_space)
        self._emulators = [_Emulator(config, game, actions) for _ in range(num_envs)]
        self._ids = np.arange(num_envs)
        self._generators = env_generators(0, num_envs)
        self._tracker = AtariRows(config, num_envs)
        self._rows: EnvStep | None = None

    def reset(self, seed: int) -> None:
        """Start all games, each with its own seed."""
        for emulator, one in zip(self._emulators, env_seeds(seed, self.num_envs), strict=True):
            emulator.load(int(one))
        self._generators = env_generators(seed, self.num_envs)
        self._tracker = AtariRows(self._config, self.num_envs)
        self._advance(np.zeros(self.num_envs, np.int64))

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each game; ended games ignore it and start anew."""
        self._advance(check_actions(action, self.spec.action, self.num_envs))

    def state(self) -> ArrayDict:
        """Snapshots before the last resets, no-ops, actions since; screens, generators, lives; consoles to compare."""
        games = self._emulators
        return {
            **_join("origin", [game.origin for game in games]),
            **_join("played", [bytes(game.played) for game in games]),
            **_join("console", [game.snapshot() for game in games]),
            "noops": np.array([game.noops for game in games], np.int64),
            "screens": np.stack([game.screens for game in games]),
            "generator": np.stack([pack_generator(generator) for generator in self._generators]),
            "lives": self._tracker.lives.copy(),
            "ended": self._tracker.ended.copy(),
        }

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``. ``StateUnsupported`` if a game differs then."""
        origins, played, consoles = (_split(name, state) for name in ("origin", "played", "console"))
        for index, game in enumerate(self._emulators):
            game.load(0)
            game.replay(origins[index], int(state["noops"][index]), played[index])
            if game.snapshot() != consoles[index]:
                raise StateUnsupported(
                    f"{self.spec.id}: environment {index} did not come back to the saved game after its "
                    f"{len(played[index])} actions; the run was saved with another version of ale-py"
                )
            game.screens = state["screens"][index].copy()
        self._generators = [unpack_generator(words) for words in state["generator"]]
        self._tracker.lives, self._tracker.ended = state["lives"].copy(), state["ended"].copy()
        self._rows = None

    def action_meanings(self) -> tuple[str, ...]:
        """What ALE calls the actions."""
        emulator = self._emulators[0]
        return tuple(emulator.action_names())

    def render(self) -> np.ndarray:
        """The screen of the first emulator in colour, uint8 [height, width, 3]."""
        return np.asarray(self._emulators[0].ale.getScreenRGB())

    def close(self) -> None:
        """Free the emulators."""
        self._emulators = []

    def _advance(self, action: np.ndarray) -> None:
        count = self.num_envs
        frames = np.empty((count, *self.spec.observation[OBSERVATION].shape), np.uint8)
        reward, lives = np.zeros(count, np.int32), np.zeros(count, np.int32)
        over, cut = np.zeros(count, bool), np.zeros(count, bool)
        for index, emulator in enumerate(self._emulators):
            if self._tracker.ended[index]:
                frames[index, 0] = emulator.start(self._generators[index])
            else:
                frames[index, 0], reward[index], over[index], cut[index] = emulator.step(int(action[index]))
            lives[index] = emulator.ale.lives()
        self._rows = self._tracker.make(self._ids.copy(), frames, reward, over, cut, lives)


def _join(name: str, parts: list[bytes]) -> ArrayDict:
    """Byte strings of different lengths as two arrays."""
    sizes = np.array([len(part) for part in parts], np.int64)
    return {name: np.frombuffer(b"".join(parts), np.uint8), f"{name}_bytes": sizes}


def _split(name: str, state: ArrayDict) -> list[bytes]:
    """What ``_join`` joined."""
    ends = np.cumsum(state[f"{name}_bytes"])
    return [part.tobytes() for part in np.split(state[name], ends[:-1])]


def _area_resize(size: int) -> Any:
    """A function from a screen [height, width] to [size, size]. EnvUnavailable without OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise EnvUnavailable(f"backend='ale-single' needs OpenCV, which is not installed; {EXTRA}") from error
    return lambda screen: cv2.resize(screen, (size, size), interpolation=cv2.INTER_AREA)

"""Game Boy tasks through the adapter for single environments: one game, in either emulator, with the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gameboy.emulators import Emulator, chosen
from offbeat.envs.gameboy.folders import Cartridge, find_cartridge, read_state
from offbeat.envs.gameboy.games import ACTIONS, FRAMES_PER_S, READY, SEED
from offbeat.envs.gameboy.opening import open_emulator
from offbeat.envs.gameboy.rules import IN_PLAY, RULES
from offbeat.envs.gameboy.values import Watched
from offbeat.envs.gymnasium import MakeEnv

USED = ("max_steps", "backend", "frame_skip", "frame_size", "noop_max", "rom", "folder", "states", "advance")
"""Switches that mean something to it."""
PICTURES = "rgb_array"
SWITCH_ON_FRAMES = 600
"""How long a cartridge of ours may take until it waits for a start. Unit: frames."""
PRESSES, WAIT_FRAMES = 20, 60
"""How often a game is asked to begin, and how long it may take after each time. Unit: frames."""


def maker(config: EnvConfig, name: str) -> MakeEnv:
    """A function that makes one of game ``name``.

    ``EnvUnavailable`` if a package, the cartridge or its states are missing or wrong, ValueError for another backend.
    """
    backend = chosen(config)
    cartridge = find_cartridge(config, name, backend)
    return lambda: GameBoyWorld(config, cartridge, backend)


class Unplayed(gymnasium.Env[np.ndarray, np.int64]):
    """A game that says what it gives and takes, and cannot be played: without a cartridge, states and an emulator."""

    def __init__(self, config: EnvConfig) -> None:
        self.observation_space = spaces.Box(0, 255, (1, config.frame_size, config.frame_size), np.uint8)
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.spec = EnvSpec(config.id)


class GameBoyWorld(gymnasium.Env[np.ndarray, np.int64]):
    """One game in an emulator, which runs from the first ``reset`` to ``close``.

    Observation uint8 [1, size, size]: the last frame of an action in grey, scaled down by area. Actions are those of
    ``games.ACTIONS``; what an action holds is down for all of its ``frame_skip`` frames, and stays down where the next
    action holds it too. Rewards are those of the game's rule, summed over the frames of an action up to the game's end;
    the end is ``terminated``.

    An episode loads a start, does nothing for 1 to 1 + ``noop_max`` frames, and begins a game where the start is before
    one. It follows from its seed, its actions and what ``carried`` says before it. With ``advance`` a start is played
    until an episode is won, then the next one; else it is drawn for each episode.
    """

    def __init__(self, config: EnvConfig, cartridge: Cartridge, backend: str) -> None:
        import cv2

        self.metadata = {"render_modes": [PICTURES], "render_fps": FRAMES_PER_S / config.frame_skip}
        self.render_mode = PICTURES
        self._config, self._cartridge, self._backend = config, cartridge, backend
        self._resize, self._area, self._grey = cv2.resize, cv2.INTER_AREA, (cv2.cvtColor, cv2.COLOR_RGB2GRAY)
        self._watched = Watched(cartridge.values)
        self._rule = RULES[cartridge.game.rule]()
        self._emulator: Emulator | None = None
        self._states: dict[Path | None, bytes] = {}
        self._next = 0
        unplayed = Unplayed(config)
        self.observation_space, self.action_space = unplayed.observation_space, unplayed.action_space
        self.spec = unplayed.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode whose randomness follows from ``seed``; the first one switches the emulator on."""
        super().reset(seed=seed)
        emulator = self._switched_on()
        starts = self._cartridge.starts
        index = self._next if self._config.advance else int(self.np_random.integers(len(starts)))
        noops = int(self.np_random.integers(self._config.noop_max + 1))
        number = int(self.np_random.integers(1, 2**16))
        start = starts[index]
        if start.file not in self._states:
            self._states[start.file] = read_state(start, self._backend, self._cartridge.sha256)
        try:
            emulator.load(self._states[start.file])
        except ValueError as error:
            raise EnvUnavailable(f"{self._config.id}: {start.file}: {error}") from error
        if start.file is None:
            emulator.write(SEED, number.to_bytes(2, "little"))
            for address, byte in start.pokes:
                emulator.write(address, bytes([byte]))
        now = self._run((), 1 + noops)[-1]
        if self._cartridge.game.press:
            now = self._begin(now)
        self._rule.start(now)
        return self._look(), {"start": start.name}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the buttons of ``action`` for ``frame_skip`` frames."""
        total, over = 0.0, False
        for now in self._run(ACTIONS[int(action)], self._config.frame_skip):
            reward, over = self._rule.frame(now)
            total += reward
            if over:
                break
        if over and self._rule.won:
            self._next = (self._next + 1) % len(self._cartridge.starts)
        return self._look(), total, over, False, {}

    def carried(self) -> np.ndarray:
        """What outlives an episode, int64 [1]: which start the next one has."""
        return np.array([self._next])

    def carry(self, carried: np.ndarray) -> None:
        """Go on from what ``carried`` gave."""
        self._next = int(carried[0]) % len(self._cartridge.starts)

    def get_action_meanings(self) -> list[str]:
        """What each action holds down, as Gymnasium's environments say it."""
        return ["+".join(buttons) or "NOOP" for buttons in ACTIONS]

    def render(self) -> np.ndarray:
        """The screen, uint8 [144, 160, 3]."""
        return self._switched_on().picture()

    def close(self) -> None:
        """End the emulator; harmless when called twice."""
        emulator, self._emulator = self._emulator, None
        if emulator is not None:
            emulator.close()

    def _switched_on(self) -> Emulator:
        if self._emulator is None:
            try:
                self._emulator = open_emulator(self._backend, self._cartridge.rom)
            except ValueError as error:
                raise EnvUnavailable(f"{self._config.id}: {error}") from error
            if self._cartridge.game.own:
                self._states[None] = until_ready(self._emulator)
        return self._emulator

    def _begin(self, now: dict[str, int]) -> dict[str, int]:
        """Press what begins a game until one is in play; its numbers."""
        for _ in range(PRESSES):
            now = self._run(self._cartridge.game.press, 1)[0]
            for _ in range(WAIT_FRAMES):
                if now["game_state"] == IN_PLAY:
                    return now
                now = self._run((), 1)[0]
        raise EnvUnavailable(
            f"{self._config.id}: no game began after {' and '.join(self._cartridge.game.press)} was pressed {PRESSES} "
            "times; its start must wait for that"
        )

    def _run(self, buttons: tuple[str, ...], frames: int) -> list[dict[str, int]]:
        seen = self._switched_on().run(buttons, frames, self._watched.places)
        return [self._watched.decode(row) for row in seen]

    def _look(self) -> np.ndarray:
        convert, code = self._grey
        size = self._config.frame_size
        grey = convert(self._switched_on().picture(), code)
        return np.asarray(self._resize(grey, (size, size), interpolation=self._area))[None]


def until_ready(emulator: Emulator) -> bytes:
    """The state in which a cartridge of ours waits for a start. RuntimeError where it never does."""
    for _ in range(SWITCH_ON_FRAMES):
        if emulator.run((), 1, [(READY, 1)])[0][0] == b"\x01":
            emulator.run((), 2)
            return emulator.save()
    raise RuntimeError(f"the cartridge was not ready after {SWITCH_ON_FRAMES} frames")

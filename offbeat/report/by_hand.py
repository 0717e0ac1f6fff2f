"""Playing an environment that waits for its player: by hand in a terminal, by a list of actions, or by a trained agent.

Each game is a loop of rows and actions; a recorder may take both down as a demonstration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np

from offbeat.acting.demonstrating import Recorder
from offbeat.acting.episodes import idle_actions
from offbeat.envs.base import VectorEnv
from offbeat.errors import UserError, in_short
from offbeat.report.half_blocks import CLEAR_REST, HOME, fitted, half_blocks
from offbeat.report.keys import Bindings, Keyboard
from offbeat.report.pictures import Camera
from offbeat.run.live import terminal_size
from offbeat.runtime.clock import WALL, Clock
from offbeat.types import LEGAL, EnvStep

LOOK_UP_S = 0.25
"""A game that waits for a key looks up so often whether it is to end. Unit: seconds."""
MOST_ACTIONS = 64 << 20
"""No file of actions is longer. Unit: bytes."""


class Chooser(Protocol):
    """Who plays."""

    def choose(self, step: EnvStep) -> np.ndarray | None:
        """The action [1] at this row; None: nobody plays on."""


@dataclass
class Played:
    """What was played."""

    returns: list[float]
    """Of the episodes that ended, by raw reward."""
    steps: int = 0
    """Actions, those of an episode that was broken off too."""


def play_on(
    env: VectorEnv,
    chooser: Chooser,
    *,
    episodes: int = 0,
    seed: int = 0,
    recorder: Recorder | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Played:
    """Play until ``episodes`` have ended (0: any number), the chooser ends it or ``stop`` says so.

    ``env``: of one environment; it is reset with ``seed``.
    """
    played, total = Played([]), 0.0
    env.reset(seed)
    while True:
        step = env.recv()
        if recorder is not None:
            recorder.row(step)
        total = 0.0 if step.first[0] else total + float(step.raw_reward[0])
        over = not step.valid[0]
        if over and not step.first[0]:
            played.returns.append(total)
        if (episodes and len(played.returns) == episodes) or stop():
            return played
        legal = step.observation.get(LEGAL)
        action = idle_actions(env.spec.action, 1, legal) if over else chooser.choose(step)
        if action is None:
            return played
        played.steps += not over
        if recorder is not None:
            recorder.sent(action)
        env.send(action)


class Hand:
    """A person at a terminal.

    Args:
        camera: before the environment.
        keyboard: where keys come from.
        bindings: which actions they stand for.
        out: where pictures go.
        fps: actions per second; games without an action that does nothing wait for a key instead.
        title: the line below the picture begins so.
        clock: of the actions.
        stop: whether the game is to end, asked while it waits for a key.
    """

    def __init__(
        self,
        camera: Camera,
        keyboard: Keyboard,
        bindings: Bindings,
        out: TextIO,
        fps: float,
        title: str = "",
        clock: Clock = WALL,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._camera, self._keyboard, self._bindings, self._out = camera, keyboard, bindings, out
        self._period, self._title, self._clock = 1 / fps, title, clock
        self._due, self._total, self._stop = clock.now(), 0.0, stop

    def choose(self, step: EnvStep) -> np.ndarray | None:
        """Show the row, and give the action of the keys that are held once it is time, or once there is one."""
        self._total = 0.0 if step.first[0] else self._total + float(step.raw_reward[0])
        self._show(step)
        action = self._wait()
        if self._keyboard.quit or action is None:
            return None
        legal = step.observation.get(LEGAL)
        if legal is not None and not legal[0, action]:
            return idle_actions(self._camera.env.spec.action, 1, legal)
        return np.array([action])

    def _wait(self) -> int | None:
        keyboard, idle = self._keyboard, self._bindings.idle
        if idle is None:
            while not (keyboard.quit or self._stop()):
                if keyboard.wait(LOOK_UP_S) and (pressed := self._bindings.action(keyboard.held())) is not None:
                    return pressed
            return None
        self._due = max(self._due + self._period, self._clock.now() - self._period)
        while not keyboard.quit and (left := self._due - self._clock.now()) > 0:
            keyboard.wait(left)
        keyboard.wait(0)
        pressed = self._bindings.action(keyboard.held())
        return idle if pressed is None else pressed

    def _show(self, step: EnvStep) -> None:
        picture = self._camera.picture(step)
        columns, lines = terminal_size(self._out)
        text = half_blocks(fitted(picture, columns, max(1, lines - 3))) if picture is not None else ""
        below = f"{self._title}return {self._total:g}\x1b[K\n{self._bindings.help()[: columns - 1]}\x1b[K"
        self._out.write(f"{HOME}{text}\n{below}{CLEAR_REST}")
        self._out.flush()


class Script:
    """A list of actions, played from its beginning to its end."""

    def __init__(self, actions: Sequence[int]) -> None:
        self._left = iter(actions)

    def choose(self, step: EnvStep) -> np.ndarray | None:
        """The next one."""
        action = next(self._left, None)
        return None if action is None else np.array([action])


def read_actions(file: Path, meanings: Sequence[str], count: int) -> list[int]:
    """The actions in a text file: numbers or names, by spaces, commas or lines, ``NAME*30`` for 30 in a row, and
    anything behind ``#`` is a note. UserError for what is none.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MOST_ACTIONS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"actions: {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(text) > MOST_ACTIONS:
        raise UserError(f"actions: {file} is longer than {MOST_ACTIONS >> 20} MiB")
    names = {name.upper(): index for index, name in reversed(list(enumerate(meanings)))}
    found: list[int] = []
    for line in text.splitlines():
        for word in line.partition("#")[0].replace(",", " ").split():
            name, star, times = word.partition("*")
            action = int(name) if name.isdecimal() and len(name) < 10 else names.get(name.upper(), count)
            repeats = int(times) if times.isdecimal() and len(times) < 8 else 0
            if not action < count or (star and not repeats):
                raise UserError(
                    f"actions: {in_short(word)!r} in {file} is none; allowed are 0 to {count - 1}"
                    f"{''.join(f', {name}' for name in meanings)}, each with *TIMES behind it where it repeats"
                )
            found += [action] * (repeats if star else 1)
    if not found:
        raise UserError(f"actions: {file} holds none")
    return found

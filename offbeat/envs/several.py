"""Several games in one run: each environment plays one of a list, or all of them play one after the other.

Games may differ in the channels of their pictures and in how many discrete actions they have. Rows and actions are
those of the widest: missing channels are zeros, and a mask says which actions the game has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.closing import close_envs, closed_on_failure
from offbeat.envs.game_lists import configs_of
from offbeat.envs.rows import check_actions, handed_out
from offbeat.envs.seeding import env_seeds
from offbeat.types import ArrayDict, ArraySpec, EnvSpec, EnvStep, under

Make = Callable[[EnvConfig, int], VectorEnv]
"""Makes so many environments of one game."""


@runtime_checkable
class PlaysList(Protocol):
    """Environments of a list of games."""

    def game_of(self, env: int) -> str:
        """Name of the game that environment ``env`` plays."""


class Place(NamedTuple):
    """Where environments stand among all that a run trains on."""

    first: int = 0
    """Index of the first of them."""
    total: int = 0
    """How many there are; 0: no others."""
    frames: Callable[[], int] = int
    """Gives the environment frames that the run has had."""

    def one(self, index: int, count: int) -> Place:
        """That of one environment of ``count`` that stand here."""
        return Place(self.first + index, self.total or count, self.frames)


class PaddedVector:
    """Environments of one game whose rows and actions are those of ``spec``, a wider one.

    An action that the game does not have acts as its action 0: a policy that heeds the mask never takes one.
    """

    def __init__(self, envs: VectorEnv, spec: EnvSpec) -> None:
        self._envs, self.spec = envs, spec
        self.num_envs, self.batch_size = envs.num_envs, envs.batch_size
        self._own = envs.spec.action.num_actions
        self._beyond = envs.spec.action != spec.action

    def reset(self, seed: int) -> None:
        """Start all episodes."""
        self._envs.reset(seed)

    def recv(self) -> EnvStep:
        """The game's rows, padded."""
        rows = self._envs.recv()
        seen = {key: self._padded(key, array, rows) for key, array in self.spec.observation.items()}
        return replace(rows, observation=seen)

    def _padded(self, key: str, array: ArraySpec, rows: EnvStep) -> np.ndarray:
        given = rows.observation.get(key)
        if given is not None and given.shape[1:] == array.shape:
            return given
        padded = array.zeros(len(rows.env_ids))
        if given is not None:
            padded[:, : given.shape[1]] = given
        else:  # a mask where the game has none
            padded[:, : self._own if self._beyond else None] = True
        return padded

    def send(self, action: np.ndarray) -> None:
        """Take one action in each."""
        action = check_actions(action, self.spec.action, self.num_envs)
        self._envs.send(np.where(action < self._own, action, 0) if self._beyond else action)

    def state(self) -> ArrayDict:
        """The game's own."""
        return self._envs.state()

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""
        self._envs.load_state(state)

    def close(self) -> None:
        """Close them."""
        self._envs.close()


class AtOnceVector:
    """Environments of which each plays one game for ever: the one at index i of all plays game i mod K.

    Args:
        config: of the list.
        spec: of its rows, ``joined_spec``.
        num_envs: how many of all.
        make: makes those of one game.
        place: where they stand among all.
    """

    def __init__(self, config: EnvConfig, spec: EnvSpec, num_envs: int, make: Make, place: Place) -> None:
        self.spec, self._config = spec, config
        self.num_envs = self.batch_size = num_envs
        self._games = (place.first + np.arange(num_envs)) % len(config.ids)
        self._parts: dict[int, VectorEnv] = {}
        made: list[VectorEnv] = []
        with closed_on_failure(made, config.id):
            for number, game in enumerate(configs_of(config)):
                if count := int((self._games == number).sum()):
                    made.append(make(game, count))
                    self._parts[number] = PaddedVector(made[-1], spec)
        self._rows: EnvStep | None = None

    def game_of(self, env: int) -> str:
        """Name of the game that environment ``env`` plays."""
        return self._config.ids[self._games[env]]

    def reset(self, seed: int) -> None:
        """Start all episodes; the first game of the list gets ``seed`` itself, as it would alone."""
        seeds = [seed, *env_seeds(seed, len(self._config.ids))[1:].tolist()]
        for number, envs in self._parts.items():
            envs.reset(seeds[number])
        self._rows = self._received()

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each environment; ended ones ignore it and start anew."""
        action = check_actions(action, self.spec.action, self.num_envs)
        for number, envs in self._parts.items():
            envs.send(action[self._games == number])
        self._rows = self._received()

    def _received(self) -> EnvStep:
        """The rows of all games, in the order of the environments."""
        count = self.num_envs
        flags = {name: np.zeros(count, bool) for name in ("terminated", "truncated", "first", "valid")}
        rewards = {name: np.zeros(count, np.float32) for name in ("reward", "raw_reward")}
        seen = {key: array.zeros(count) for key, array in self.spec.observation.items()}
        elapsed, told = np.zeros(count, np.int32), False
        for number, envs in self._parts.items():
            rows, at = envs.recv(), np.flatnonzero(self._games == number)
            at = at[rows.env_ids]
            for name, column in (flags | rewards).items():
                column[at] = getattr(rows, name)
            for key, column in seen.items():
                column[at] = rows.observation[key]
            told |= rows.elapsed is not None
            elapsed[at] = ~rows.first if rows.elapsed is None else rows.elapsed
        return EnvStep(
            env_ids=np.arange(count), observation=seen, elapsed=elapsed if told else None, **rewards, **flags
        )

    def state(self) -> ArrayDict:
        """That of every game."""
        return {f"{number}/{name}": v for number, envs in self._parts.items() for name, v in envs.state().items()}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``."""
        for number, envs in self._parts.items():
            envs.load_state(under(state, f"{number}/"))
        self._rows = None

    def close(self) -> None:
        """Close all games, whatever some raise."""
        if line := close_envs(self._parts.values(), self._config.id):
            raise Misbehaved(line)


class InTurnVector:
    """Environments that all play one game of a list, then all the next one.

    Environments of one actor change together: by the step with which they have had their part, of ``turn_frames`` as
    many N-ths as they are of the run's N environments. Frames count from the run's beginning, so that nothing adds up
    that a step was too many. At a change running episodes are truncated: their last row carries the old game's
    observation, and the next row is the first of the new game. After the last turn the last game goes on.

    Args:
        config: of the list.
        spec: of its rows, ``joined_spec``.
        num_envs: how many of all.
        make: makes those of one game. They are made as their turn comes, and closed after it.
        place: where they stand among all; its ``frames`` say how far the run is where ``reset`` begins.
        follow: the run's frames count where they are ahead, so that actors change at about the same time although some
            are slow. Not in runs that are to be repeatable.
    """

    def __init__(
        self, config: EnvConfig, spec: EnvSpec, num_envs: int, make: Make, place: Place, *, follow: bool
    ) -> None:
        if config.turn_frames < 1:
            raise ValueError(f"turn_frames={config.turn_frames} with several='in_turn'; it must be at least 1")
        self.spec, self._config, self._make, self._place = spec, config, make, place
        self.num_envs = self.batch_size = num_envs
        self._total, self._follow = place.total or num_envs, follow
        self._configs = configs_of(config)
        self._seed, self._frames, self._turn, self._leaving = 0, 0, -1, False
        self._envs: VectorEnv | None = None

    def game_of(self, env: int) -> str:
        """Name of the game that environment ``env`` plays; at an episode's last row still that of the episode."""
        return self._config.ids[self._turn % len(self._config.ids)]

    @property
    def frames(self) -> int:
        """Environment frames of these environments since the run began."""
        return self._frames

    def reset(self, seed: int) -> None:
        """Start all episodes, of the game whose turn it is."""
        self._seed, self._frames = seed, self._told()
        self._open(self._due())

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to; the last ones of their game once its turn is over."""
        if self._envs is None:
            raise RuntimeError("recv() needs a reset() or send() before it")
        rows = self._envs.recv()
        taken = ~rows.first if rows.elapsed is None else rows.elapsed
        self._frames += int(taken.sum()) * self.spec.frame_skip
        if self._follow:
            self._frames = max(self._frames, self._told())
        self._leaving = self._due() != self._turn and not rows.first.all()
        if not self._leaving:
            return rows
        return replace(rows, truncated=rows.truncated | rows.valid & ~rows.first, valid=np.zeros_like(rows.valid))

    def send(self, action: np.ndarray) -> None:
        """Take one action in each environment; where the turn is over, all start anew, in the next game."""
        if self._leaving:
            check_actions(action, self.spec.action, self.num_envs)
            self._open(self._due())
        else:
            assert self._envs is not None, "recv() came before"
            self._envs.send(action)

    def _told(self) -> int:
        """Frames of the run so far that are these environments' part."""
        return self._place.frames() * self.num_envs // self._total

    def _due(self) -> int:
        """Whose turn it is now, counted through all turns."""
        turn = self._frames * self._total // (self._config.turn_frames * self.num_envs)
        return min(turn, len(self._configs) * self._config.turns - 1) if self._config.turns else turn

    def _open(self, turn: int) -> None:
        """Begin a turn; the first one gets the seed of ``reset`` itself, as its game would alone."""
        self._make_game(turn)
        assert self._envs is not None
        self._envs.reset(self._seed if turn == 0 else int(env_seeds(self._seed, turn + 1)[-1]))

    def _make_game(self, turn: int) -> None:
        """Have the environments of the game of a turn, in place of those that there are."""
        count = len(self._configs)
        if self._envs is None or turn % count != self._turn % count:
            self.close()
            self._envs = PaddedVector(self._make(self._configs[turn % count], self.num_envs), self.spec)
        self._turn, self._leaving = turn, False

    def state(self) -> ArrayDict:
        """The game's own, and whose turn it is."""
        assert self._envs is not None, "there is something to save after recv()"
        own = np.array([self._seed, self._frames, self._turn, self._leaving], np.int64)
        return {"turn": own} | {f"game/{name}": value for name, value in self._envs.state().items()}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``."""
        seed, frames, turn, leaving = (int(value) for value in state["turn"])
        self._make_game(turn)
        assert self._envs is not None
        self._seed, self._frames, self._leaving = seed, frames, bool(leaving)
        self._envs.load_state(under(state, "game/"))

    def close(self) -> None:
        """Close the environments; harmless when called twice."""
        envs, self._envs = self._envs, None
        if envs is not None:
            envs.close()

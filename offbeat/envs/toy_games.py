"""The rules of the toy environments, each vectorised over N games and with a known best score.

A game is a small object: its changing state lives in ``fields`` (name -> [N, ...] array), and ``start``, ``step`` and
``observe`` read top to bottom. ``envs/toy.py`` turns any of them into a ``VectorEnv``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from offbeat.types import OBSERVATION, ActionSpec, ArrayDict, ArraySpec

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(raw reward, reward as trained on, terminated), each [N]."""


class ToyGame(Protocol):
    """N copies of one game. ``limit`` is the time limit in steps; ``scores`` are (random, best) mean returns."""

    observation: dict[str, ArraySpec]
    action: ActionSpec
    fields: ArrayDict
    limit: int
    scores: tuple[float, float] | None

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """Start new episodes in ``games`` (indices [n])."""

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Move all N games by one action. Results of games that already ended are ignored."""

    def observe(self) -> ArrayDict:
        """What the agent sees now, fresh arrays [N, ...]."""


def discrete(num_actions: int) -> ActionSpec:
    """An action spec of ``num_actions`` choices."""
    return ActionSpec("discrete", num_actions)


class Catch:
    """A ball falls through a board of ``rows`` x 5; the paddle in the lowest row moves left, stays or moves right.

    Observation float32 [rows, 5], 1 at ball and paddle. The ball starts in the top row in a random column, the paddle
    in the middle. After rows - 1 steps: +1 if caught, -1 if not. Best 1.0; random play about -0.6.
    Source: bsuite (Osband et al. 2020).
    """

    columns = 5

    def __init__(self, count: int, rows: int) -> None:
        if rows < 2:
            raise ValueError(f"length={rows}: Catch needs at least 2 rows")
        self.rows = rows
        self.observation = {OBSERVATION: ArraySpec((rows, self.columns), "float32", 0.0, 1.0)}
        self.action = discrete(3)
        self.limit = rows
        self.scores: tuple[float, float] | None = -0.6, 1.0
        self.fields: ArrayDict = {name: np.zeros(count, np.int64) for name in ("ball_row", "ball_column", "paddle")}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """Ball at the top, paddle in the middle."""
        self.fields["ball_row"][games] = 0
        self.fields["ball_column"][games] = generator.integers(self.columns, size=len(games))
        self.fields["paddle"][games] = self.columns // 2

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Actions 0 left, 1 stay, 2 right."""
        f = self.fields
        f["paddle"] = np.clip(f["paddle"] + action - 1, 0, self.columns - 1)
        f["ball_row"] = np.minimum(f["ball_row"] + 1, self.rows - 1)
        landed = f["ball_row"] == self.rows - 1
        reward = np.where(landed, np.where(f["paddle"] == f["ball_column"], 1.0, -1.0), 0.0)
        return reward, reward, landed

    def observe(self) -> ArrayDict:
        """The board."""
        f = self.fields
        games = np.arange(len(f["paddle"]))
        board = np.zeros((len(games), self.rows, self.columns), np.float32)
        board[games, f["ball_row"], f["ball_column"]] = 1.0
        board[games, self.rows - 1, f["paddle"]] = 1.0
        return {OBSERVATION: board}


class Copy:
    """``length`` random bits are shown one at a time, then each has to be given back in the same order.

    Observation float32 [3]: (the bit as -1 or +1, else 0; being shown; asked for). Actions 0 and 1 are the bits; those
    taken while bits are shown are ignored. Each right bit gives 1: best ``length``, chance ``length / 2``.
    """

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((3,), "float32", -1.0, 1.0)}
        self.action = discrete(2)
        self.limit = 2 * length
        self.scores: tuple[float, float] | None = length / 2, float(length)
        self.fields: ArrayDict = {"bits": np.zeros((count, length), np.int8), "time": np.zeros(count, np.int64)}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """New bits."""
        self.fields["bits"][games] = generator.integers(2, size=(len(games), self.length), dtype=np.int8)
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """One more bit shown, or one answered."""
        f = self.fields
        asked = f["time"] >= self.length
        wanted = f["bits"][np.arange(len(asked)), np.clip(f["time"] - self.length, 0, self.length - 1)]
        reward = np.where(asked & (action == wanted), 1.0, 0.0)
        f["time"] = np.minimum(f["time"] + 1, 2 * self.length)
        return reward, reward, f["time"] >= 2 * self.length

    def observe(self) -> ArrayDict:
        """(bit, being shown, asked for)."""
        time, bits = self.fields["time"], self.fields["bits"]
        shown = time < self.length
        bit = bits[np.arange(len(time)), np.minimum(time, self.length - 1)] * 2.0 - 1.0
        return {OBSERVATION: np.stack([np.where(shown, bit, 0.0), shown, ~shown], axis=1).astype(np.float32)}


class TMaze:
    """A corridor of ``length`` steps; its junction must be left to the side that a cue named at the first step only.

    Observation float32 [3]: (cue: -1 left, +1 right, 0 at every later step; in the corridor; at the junction). Actions:
    0 forward, 1 left, 2 right. In the corridor only forward moves; left and right bump into the wall, as does forward
    at the junction: the agent stays, and ``reward`` (not ``raw_reward``) is -0.1. Left or right at the junction ends
    the episode. The score ``raw_reward`` is 1 for the right side and 0 otherwise, so the mean return is the rate of
    success: best 1.0, without memory 0.5. The reward as trained on is +1 or -1 there. Episodes are truncated after
    5 length + 10 steps, which counts as failure.
    Source: Bakker 2002, with fewer directions.
    """

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((3,), "float32", -1.0, 1.0)}
        self.action = discrete(3)
        self.limit = 5 * length + 10
        self.scores: tuple[float, float] | None = 0.5, 1.0
        self.fields: ArrayDict = {
            "side": np.zeros(count, np.int64), "place": np.zeros(count, np.int64), "time": np.zeros(count, np.int64),
        }  # fmt: skip

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """At the corridor's beginning, with a new cue."""
        self.fields["side"][games] = generator.integers(2, size=len(games)) * 2 - 1
        self.fields["place"][games] = 0
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Actions 0 forward, 1 left, 2 right."""
        f = self.fields
        at_junction = f["place"] == self.length
        forward = action == 0
        decided = at_junction & ~forward
        right_side = decided & (action * 2 - 3 == f["side"])
        bumped = forward == at_junction
        f["place"] = np.where(forward & ~at_junction, f["place"] + 1, f["place"])
        f["time"] = f["time"] + 1
        raw = right_side.astype(np.float64)
        reward = np.where(decided, raw * 2 - 1, np.where(bumped, -0.1, 0.0))
        return raw, reward, decided

    def observe(self) -> ArrayDict:
        """(cue, in the corridor, at the junction)."""
        f = self.fields
        at_junction = f["place"] == self.length
        cue = np.where(f["time"] == 0, f["side"], 0)
        return {OBSERVATION: np.stack([cue, ~at_junction, at_junction], axis=1).astype(np.float32)}


class MemoryChain:
    """A bit is shown in an episode's first row only; after blank rows the question comes, and the bit is the answer.

    Observation float32 [3]: (the cue, -1 or +1, in the first row only; 1 in blank rows; 1 where the answer is asked
    for). Each row has one entry that is not 0, and blank rows are all alike, so that nothing but memory tells the bit
    or the time. ``length`` counts the steps from the cue to the answer, both included: an episode has ``length``
    actions, of which the first is taken at the cue, ``length`` - 2 at blanks, and the last, the answer, at the
    question, ``length`` - 1 rows after the cue. Actions 0 and 1 name the bits -1 and +1; all but the answer are
    ignored. The answer ends the episode with +1 if it is right, else -1: best 1, without memory 0, and the share of
    right answers is (1 + mean return) / 2.
    Source: after bsuite's memory length (Osband et al. 2020), without the clock that it shows.
    """

    def __init__(self, count: int, length: int) -> None:
        if length < 2:
            raise ValueError(f"length={length}: memory_chain needs at least 2 steps, the cue and the question")
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((3,), "float32", -1.0, 1.0)}
        self.action = discrete(2)
        self.limit = length
        self.scores: tuple[float, float] | None = 0.0, 1.0
        self.fields: ArrayDict = {name: np.zeros(count, np.int64) for name in ("cue", "time")}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """A new cue."""
        self.fields["cue"][games] = generator.integers(2, size=len(games)) * 2 - 1
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Wait, or judge the answer. The final observation is the question again."""
        f = self.fields
        asked = f["time"] == self.length - 1
        reward = np.where(asked, np.where(action * 2 - 1 == f["cue"], 1.0, -1.0), 0.0)
        f["time"] = np.minimum(f["time"] + 1, self.length - 1)
        return reward, reward, asked

    def observe(self) -> ArrayDict:
        """(cue, blank, asked for)."""
        time = self.fields["time"]
        shown, asked = time == 0, time == self.length - 1
        seen = np.where(shown, self.fields["cue"], 0), ~shown & ~asked, asked
        return {OBSERVATION: np.stack(seen, axis=1).astype(np.float32)}


class Identity:
    """Name the one of four symbols that is shown. Each right answer gives 1; ``length`` answers make an episode.

    Observation float32 [4], one-hot. Best ``length``, random ``length / 4``.
    """

    symbols = 4

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((self.symbols,), "float32", 0.0, 1.0)}
        self.action = discrete(self.symbols)
        self.limit = length
        self.scores: tuple[float, float] | None = length / self.symbols, float(length)
        self.fields: ArrayDict = {"symbol": np.zeros(count, np.int64), "time": np.zeros(count, np.int64)}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """The first symbol."""
        self.fields["symbol"][games] = generator.integers(self.symbols, size=len(games))
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Judge the answer, show the next symbol."""
        f = self.fields
        reward = (action == f["symbol"]).astype(np.float64)
        f["symbol"] = generator.integers(self.symbols, size=len(action))
        f["time"] = f["time"] + 1
        return reward, reward, f["time"] >= self.length

    def observe(self) -> ArrayDict:
        """The symbol, one-hot."""
        return {OBSERVATION: np.eye(self.symbols, dtype=np.float32)[self.fields["symbol"]]}


class Drift(Identity):
    """Name the symbol that is there while the action takes effect; it may have changed since it was shown.

    One of four symbols is there; after each step it is drawn anew, evenly, with probability 0.1. Observation float32
    [4], one-hot. Action 0 does nothing, a names symbol a - 1. Each right answer gives 1, ``length`` steps make an
    episode: best ``length``; random ``length / 5``. An answer that is d steps late is right with probability
    0.9^d + (1 - 0.9^d) / 4, so that what a delay costs is known.
    """

    changes = 0.1

    def __init__(self, count: int, length: int) -> None:
        super().__init__(count, length)
        self.action = discrete(1 + self.symbols)
        self.scores = length / (1 + self.symbols), float(length)

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Judge the answer, perhaps change the symbol."""
        f = self.fields
        reward = (action == f["symbol"] + 1).astype(np.float64)
        drawn = generator.integers(self.symbols, size=len(action))
        f["symbol"] = np.where(generator.random(len(action)) < self.changes, drawn, f["symbol"])
        f["time"] = f["time"] + 1
        return reward, reward, f["time"] >= self.length


class Pair:
    """A dictionary observation: the answer is (lit quarter of ``image`` + shift in ``vector``) mod 4.

    ``image`` uint8 [1, 36, 36] with one quarter of its columns at 255; ``vector`` float32 [4], one-hot. Each right
    answer gives 1, ``length`` answers make an episode: best ``length``, from one of the two parts alone ``length / 4``.
    """

    choices, size = 4, 36

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {
            "image": ArraySpec((1, self.size, self.size), "uint8", 0.0, 255.0),
            "vector": ArraySpec((self.choices,), "float32", 0.0, 1.0),
        }
        self.action = discrete(self.choices)
        self.limit = length
        self.scores: tuple[float, float] | None = length / self.choices, float(length)
        self.fields: ArrayDict = {name: np.zeros(count, np.int64) for name in ("lit", "shift", "time")}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """The first pair."""
        self.fields["lit"][games] = generator.integers(self.choices, size=len(games))
        self.fields["shift"][games] = generator.integers(self.choices, size=len(games))
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Judge the answer, show the next pair."""
        f = self.fields
        reward = (action == (f["lit"] + f["shift"]) % self.choices).astype(np.float64)
        f["lit"] = generator.integers(self.choices, size=len(action))
        f["shift"] = generator.integers(self.choices, size=len(action))
        f["time"] = f["time"] + 1
        return reward, reward, f["time"] >= self.length

    def observe(self) -> ArrayDict:
        """Image and vector."""
        quarter = np.arange(self.size) * self.choices // self.size
        lit = quarter[None, :] == self.fields["lit"][:, None]  # [N, columns]
        image = np.repeat((lit * np.uint8(255))[:, None, None, :], self.size, axis=2).astype(np.uint8)
        return {"image": image, "vector": np.eye(self.choices, dtype=np.float32)[self.fields["shift"]]}


class Continuous:
    """Continuous control in one step: the reward is -|a - target|^2 with target = (x1, -x0) / 2 for the observation x.

    Observation and action float32 [2] in [-1, 1]; each step shows a new x. ``length`` steps make an episode. Best 0;
    uniformly random actions give -5/6 per step.
    """

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((2,), "float32", -1.0, 1.0)}
        self.action = ActionSpec("continuous", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
        self.limit = length
        self.scores: tuple[float, float] | None = -length * 5 / 6, 0.0
        self.fields: ArrayDict = {"x": np.zeros((count, 2), np.float32), "time": np.zeros(count, np.int64)}

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """The first x."""
        self.fields["x"][games] = generator.uniform(-1, 1, (len(games), 2))
        self.fields["time"][games] = 0

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Judge the action (clipped to its bounds), show the next x."""
        f = self.fields
        target = np.stack([f["x"][:, 1], -f["x"][:, 0]], axis=1) / 2
        reward = -np.square(np.clip(action, -1, 1) - target).sum(axis=1)
        f["x"] = generator.uniform(-1, 1, f["x"].shape).astype(np.float32)
        f["time"] = f["time"] + 1
        return reward, reward, f["time"] >= self.length

    def observe(self) -> ArrayDict:
        """x."""
        return {OBSERVATION: self.fields["x"].copy()}


GAMES: dict[str, tuple[Callable[[int, int], ToyGame], str]] = {
    "catch": (Catch, "move the paddle under the falling ball; best 1"),
    "copy": (Copy, "give back a sequence of bits; best = length"),
    "tmaze": (TMaze, "remember the first step's cue until the junction; best 1, without memory 0.5"),
    "memory_chain": (MemoryChain, "give the bit of the first step at the last; best 1, without memory 0"),
    "identity": (Identity, "name the symbol shown; best = length"),
    "drift": (Drift, "name the symbol that is there when the action takes effect; best = length"),
    "dict": (Pair, "image and vector together give the answer; best = length"),
    "continuous": (Continuous, "two continuous actions with a known target; best 0"),
}
"""Name -> (constructor from the number of games and ``length``, one line about it)."""

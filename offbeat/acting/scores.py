"""What the returns of some episodes say about an agent: mean, spread, interquartile mean, bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """Raw returns and lengths of whole episodes, in order of environment, then of play.

    A game of several players is one episode: its return is the mean over the players, its length that of the longest.
    """

    returns: np.ndarray  # [episodes] float64, sums of raw rewards
    lengths: np.ndarray  # [episodes] int64, agent steps
    frames: int = 0
    """Environment frames played, those of every player."""
    seconds: float = 0.0
    """Wall time of the games."""
    version: int = 0
    """Version (learner updates) of the weights."""
    policy: str = "sampled"
    """What was played: ``greedy``, ``sampled``, or ``noisy`` (the best action under noise on the weights)."""
    complete: bool = True
    """False where it was stopped before all episodes had ended."""
    given_up: int = 0
    """Episodes that did not end within the longest that was waited for; they are in no score."""
    frames_each: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[episodes] int64, environment frames of each, those before its first decision included; of a game of several
    players those of the longest."""
    at: dict[str, float] = field(default_factory=dict)
    """The point of the run that the weights are from: frames, agent_steps, updates."""
    games: tuple[str, ...] = ()
    """[episodes], the game of each, where a list of games was played; else empty."""

    @property
    def mean(self) -> float:
        """Mean return; of a list the mean over its games, each of which counts the same. NaN without episodes."""
        if self.games:
            return float(np.mean([game.mean for game in self.of_games().values()]))
        return float(self.returns.mean()) if self.returns.size else float("nan")

    def of_games(self) -> dict[str, Evaluation]:
        """Game -> its own episodes, in the order of the list; {} where no list was played. ``frames``, ``seconds`` and
        ``given_up`` are those of all games.
        """
        chosen = {name: np.array([game == name for game in self.games]) for name in dict.fromkeys(self.games)}
        return {
            name: replace(
                self, returns=self.returns[of], lengths=self.lengths[of], frames_each=self.frames_each[of], games=()
            )
            for name, of in chosen.items()
        }

    @property
    def std(self) -> float:
        """Standard deviation of the returns (of the episodes, not of their mean)."""
        return float(self.returns.std()) if self.returns.size else float("nan")

    @property
    def min(self) -> float:
        """Lowest return."""
        return float(self.returns.min()) if self.returns.size else float("nan")

    @property
    def max(self) -> float:
        """Highest return."""
        return float(self.returns.max()) if self.returns.size else float("nan")

    @property
    def iqm(self) -> float:
        """Interquartile mean: the lowest and highest ``floor(n / 4)`` returns are left out."""
        return float(interquartile_mean(self.returns))

    def interval(self, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
        """Percentile bootstrap interval of the mean return; always the same for the same returns."""
        return bootstrap_interval(self.returns, confidence, resamples)

    def record(self) -> dict[str, Any]:
        """The evaluation as one record of metrics.jsonl."""
        low, high = self.interval()
        return {
            "mean": self.mean, "std": self.std, "min": self.min, "max": self.max, "iqm": self.iqm,
            "low": low, "high": high, "episodes": len(self.returns), "length": _mean(self.lengths),
            "version": self.version, "seconds": self.seconds, "played_frames": self.frames, "policy": self.policy,
            **self.at, "returns": [float(value) for value in self.returns],
            "lengths": [int(value) for value in self.lengths],
            **self._record_of_games(),
            **({"given_up": self.given_up} if self.given_up else {}),
        }  # fmt: skip

    def _record_of_games(self) -> dict[str, Any]:
        """What a list of games adds to the record: their names with commas between, which of them each episode was of,
        and the mean return of each.
        """
        games = self.of_games()
        if not games:
            return {}
        order = list(games)
        means = {f"return_{game_key(name)}": game.mean for name, game in games.items()}
        return {"games": ",".join(order), "game_each": [order.index(name) for name in self.games], **means}

    def summary(self) -> str:
        """One line for people; of a list one for each game before it."""
        low, high = self.interval()
        games = self.of_games()
        before = "".join(f"{name}: {replace(game, given_up=0).summary()}\n" for name, game in games.items())
        before += f"all {len(games)} games: " if games else ""
        return (
            f"{before}{len(self.returns)} episodes ({self.policy}): mean {self.mean:.2f} [{low:.2f}, {high:.2f}], "
            f"std {self.std:.2f}, IQM {self.iqm:.2f}, min {self.min:.2f}, max {self.max:.2f}, "
            f"{_mean(self.lengths):.0f} steps each{given_up(self.given_up)}"
        )


def game_key(game: str) -> str:
    """A game's id as the end of a metric's name: letters, digits and underscores (``minatar_breakout``)."""
    return "".join(letter if letter.isalnum() else "_" for letter in game)


def given_up(episodes: int) -> str:
    """What is said of episodes that were given up; empty where none was."""
    return f"; {episodes} given up that did not end (env.max_steps ends them)" if episodes else ""


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of ``values`` [..., n] without the lowest and the highest ``floor(n / 4)``; NaN for none.

    Whole values are cut off, as scipy's ``trim_mean`` does at 0.25, and so Agarwal et al.; values at the border have no
    fractional weight. Of three values or fewer it is the mean.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    n = ordered.shape[-1]
    cut = n // 4
    return ordered[..., cut : n - cut].mean(-1) if n else np.full(ordered.shape[:-1], np.nan)


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` [n], with a fixed seed; (NaN, NaN) for none."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return float("nan"), float("nan")
    picks = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picks].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    """Mean, NaN for none."""
    return float(np.mean(values)) if len(values) else float("nan")

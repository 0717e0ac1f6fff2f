"""Scores of several runs on several games in one number, with an interval: median, mean, interquartile mean.

Scores come as strata: for each game an array [..., runs] of its runs' scores; games may have different numbers of runs.
Sources: median and mean over games as in Mnih et al. 2015 and the papers since; interquartile mean and stratified
bootstrap as Agarwal et al. 2021 ("Deep Reinforcement Learning at the Edge of the Statistical Precipice") propose them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offbeat.acting.scores import interquartile_mean as interquartile_mean

Strata = Sequence[np.ndarray]
"""Scores [..., runs] of each game; leading axes (resamples) are the same for all games."""
Statistic = Callable[[Strata], np.ndarray]
"""From strata to their aggregate [...]."""


@dataclass(frozen=True)
class Estimate:
    """An aggregate of scores and its interval."""

    value: float
    low: float
    """Lower bound; NaN where a game has one run only: what a run's score varies by is not known then."""
    high: float


def over_runs_and_games(strata: Strata) -> np.ndarray:
    """Interquartile mean of all scores, whichever game they are from: [...]."""
    return interquartile_mean(np.concatenate(strata, axis=-1))


def mean_over_games(strata: Strata) -> np.ndarray:
    """Mean over games of each game's mean over runs: [...]."""
    return _game_means(strata).mean(-1)


def median_over_games(strata: Strata) -> np.ndarray:
    """Median over games of each game's mean over runs: [...]."""
    return np.median(_game_means(strata), axis=-1)


def resample(strata: Strata, resamples: int, seed: int) -> list[np.ndarray]:
    """For each game [resamples, runs]: as many of its scores as there are, drawn with replacement."""
    random = np.random.default_rng(seed)
    return [scores[random.integers(len(scores), size=(resamples, len(scores)))] for scores in strata]


def stratified_bootstrap(
    strata: Strata, statistic: Statistic, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """``statistic`` of the scores with its percentile bootstrap interval; runs are drawn anew within each game.

    Args:
        strata: scores [runs] of each game, at least one.
        statistic: what is estimated, e.g. ``over_runs_and_games``.
        confidence: share of intervals that should hold the true value, in (0, 1). With few runs fewer do.
        resamples: how often runs are drawn.
        seed: of the draws; the same seed gives the same interval.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence={confidence} must lie between 0 and 1, and resamples={resamples} must be at least 1"
        )
    strata = [np.asarray(scores, np.float64) for scores in strata]
    wrong = [scores.shape for scores in strata if scores.ndim != 1 or not scores.size]
    if wrong or not strata:
        raise ValueError(f"strata must be an array [runs] of scores for each game, none of them empty; got {wrong}")
    value = float(statistic(strata))
    if any(len(scores) < 2 for scores in strata):
        return Estimate(value, float("nan"), float("nan"))
    drawn = statistic(resample(strata, resamples, seed))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _game_means(strata: Strata) -> np.ndarray:
    """Mean over runs of each game: [..., games]."""
    return np.stack([scores.mean(-1) for scores in strata], axis=-1)

"""Aggregates of scores and their intervals: by hand, against slow transcriptions, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.acting.scores import bootstrap_interval
from offbeat.acting.scores import interquartile_mean as of_episodes
from offbeat.scoring.statistics import (
    Estimate,
    interquartile_mean,
    mean_over_games,
    median_over_games,
    over_runs_and_games,
    resample,
    stratified_bootstrap,
)


def slow_trimmed_mean(values: list[float]) -> float:
    """A quarter of the values, rounded down, is struck off at either end, one after the other."""
    left = list(values)
    for _ in range(int(len(values) * 0.25)):
        left.remove(min(left))
        left.remove(max(left))
    return sum(left) / len(left)


def slow_bootstrap(strata: list[list[float]], resamples: int, seed: int) -> list[float]:
    """The interquartile mean of each resample, one draw after the other."""
    random = np.random.default_rng(seed)
    picks = [random.integers(len(scores), size=(resamples, len(scores))) for scores in strata]
    return [
        slow_trimmed_mean([scores[pick] for scores, places in zip(strata, picks) for pick in places[number]])
        for number in range(resamples)
    ]


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([100, 0, 2, 3, -50, 4, 5, 90])) == (0 + 2 + 3 + 4 + 5 + 90 - 0 - 90) / 4
    assert interquartile_mean(np.array([1, 5, 9, 90])) == 7
    assert interquartile_mean(np.array([1, 5, 90])) == 32  # three values: nothing is cut off
    assert interquartile_mean(np.array([1, 2, 3, 4, 100])) == 3  # five values: one at each end, not one and a quarter
    assert np.isnan(interquartile_mean(np.array([])))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 57, 171])
def test_interquartile_mean_is_the_slow_one_along_the_last_axis(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(3, 2, n)).round(1)  # rounded, so that some are alike
    expected = [[slow_trimmed_mean(list(line)) for line in block] for block in values]
    assert interquartile_mean(values) == pytest.approx(np.array(expected))
    assert of_episodes(values[0, 0]) == pytest.approx(expected[0][0])


def test_aggregates_by_hand() -> None:
    games = [np.array([0.0, 2.0]), np.array([10.0, 20.0, 60.0]), np.array([4.0])]  # means 1, 30, 4
    assert median_over_games(games) == 4
    assert mean_over_games(games) == 35 / 3
    assert over_runs_and_games(games) == (2 + 4 + 10 + 20) / 4  # of 0 2 4 10 20 60


def test_resamples_keep_to_their_game_and_to_its_number_of_runs() -> None:
    games = [np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])]
    drawn = resample(games, 500, seed=3)
    assert [block.shape for block in drawn] == [(500, 3), (500, 2)]
    assert [set(block.ravel()) for block in drawn] == [{1, 2, 3}, {10, 20}]
    assert np.mean(drawn[0] == 2) == pytest.approx(1 / 3, abs=0.05)
    both = (drawn[1] == 10).sum(1)  # 0, 1 or 2 of the two draws: with replacement
    assert np.bincount(both, minlength=3) / 500 == pytest.approx(np.array([0.25, 0.5, 0.25]), abs=0.07)


def test_bootstrap_is_the_slow_one() -> None:
    games = [[1.0, 5.0, 2.0], [10.0, 30.0, 11.0, 12.0], [-3.0, 3.0]]
    drawn = slow_bootstrap(games, 300, seed=7)
    estimate = stratified_bootstrap([np.array(game) for game in games], over_runs_and_games, resamples=300, seed=7)
    assert estimate.value == pytest.approx(slow_trimmed_mean([score for game in games for score in game]))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_the_seed_decides_and_a_single_game_gives_the_interval_of_its_mean() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    estimates = [stratified_bootstrap([scores], mean_over_games, seed=seed) for seed in (0, 0, 1)]
    assert estimates[0] == estimates[1] != estimates[2]
    assert (estimates[0].low, estimates[0].high) == pytest.approx(bootstrap_interval(scores))


def test_intervals_ignore_how_games_differ() -> None:
    noise = np.random.default_rng(1).normal(size=(6, 5))
    alike = stratified_bootstrap(list(noise), mean_over_games)
    apart = stratified_bootstrap(list(noise + 1000 * np.arange(6)[:, None]), mean_over_games)
    assert apart.high - apart.low == pytest.approx(alike.high - alike.low)


def test_one_run_of_a_game_leaves_the_interval_open() -> None:
    estimate = stratified_bootstrap([np.array([1.0, 2.0]), np.array([9.0])], median_over_games)
    assert estimate.value == 5.25
    assert np.isnan([estimate.low, estimate.high]).all()


@pytest.mark.parametrize(
    ("statistic", "runs", "least", "most"),
    [
        (mean_over_games, 3, 0.75, 0.93),  # 95 % are promised; three runs are too few to keep it
        (mean_over_games, 10, 0.88, 0.99),
        (over_runs_and_games, 10, 0.88, 0.99),
    ],
)
def test_intervals_hold_the_true_value_about_as_often_as_promised(
    statistic: object, runs: int, least: float, most: float
) -> None:
    random = np.random.default_rng(5)
    centres = np.linspace(-1, 1, 10)[:, None]  # symmetric: the true mean and interquartile mean are 0
    trials = [random.normal(centres, 1.0, size=(10, runs)) for _ in range(300)]
    intervals = [stratified_bootstrap(list(trial), statistic, resamples=300) for trial in trials]
    assert least < np.mean([interval.low <= 0 <= interval.high for interval in intervals]) < most


@pytest.mark.parametrize(
    ("strata", "options", "message"),
    [
        ([], {}, "an array .* for each game"),
        ([np.array([1.0]), np.array([])], {}, r"none of them empty; got \[\(0,\)\]"),
        ([np.ones((2, 3))], {}, r"got \[\(2, 3\)\]"),
        ([np.ones(3)], {"confidence": 95}, "confidence=95 must lie between 0 and 1"),
        ([np.ones(3)], {"resamples": 0}, "resamples=0 must be at least 1"),
    ],
)
def test_says_what_is_wrong(strata: list[np.ndarray], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap(strata, mean_over_games, **options)


def test_equal_runs_leave_nothing_open() -> None:
    assert stratified_bootstrap([np.full(3, 7.0), np.full(2, 7.0)], over_runs_and_games) == Estimate(7, 7, 7)

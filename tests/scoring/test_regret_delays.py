"""The delays that a regret report plays under, against what is counted frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offbeat.envs.delay_config import DelayConfig, recorded_frames
from offbeat.envs.delay_schedule import make_schedule
from offbeat.scoring.regret_delays import (
    as_counted,
    in_every_frame,
    in_short,
    measured_spacing,
    staleness_under,
    undelayed,
)
from tests.report.recordings import recording_of

NONE = DelayConfig()


def ages(delay: DelayConfig, frames: int = 3000, episodes: int = 1) -> list[int | None]:
    """How old the decision that acts is in each frame; None where none does."""
    schedule, found = make_schedule(delay), []
    schedule.reset(np.random.default_rng(0))
    for _ in range(episodes):
        schedule.start()
        for frame in range(frames):
            source = schedule.source(frame)
            found.append(None if source is None else frame - source)
    return found


@pytest.mark.parametrize(
    "delay",
    [
        DelayConfig(mode="background", inference_frames=1),
        DelayConfig(mode="sequential", learn_frames=1),
        DelayConfig(mode="learn_first", inference_frames=1),
        DelayConfig(mode="sequential"),
        DelayConfig(semantics="published", inference_frames=1),
    ],
)
def test_a_delay_in_short_acts_in_the_same_frames(delay: DelayConfig) -> None:
    short = in_short(delay)
    assert short.mode == "async"
    assert short.semantics == "exact"
    assert ages(short, 50) == ages(delay, 50)


def test_a_delay_that_costs_frames_stays_what_it_is() -> None:
    for delay in (
        DelayConfig(mode="learn_first", learn_frames=1),
        DelayConfig(mode="background", inference_frames=2),
        DelayConfig(semantics="published", inference_frames=1, noops=1),
        DelayConfig(period=2.0),
    ):
        assert in_short(delay) == delay


def test_undelayed_keeps_what_networks_see_and_what_acts() -> None:
    delay = DelayConfig(
        mode="sequential", inference_frames=3, learn_frames=2, history=4, noop_action=2, default="repeat"
    )
    assert undelayed(delay) == DelayConfig(history=4, noop_action=2, default="repeat")


@pytest.mark.parametrize("mode", ["sequential", "learn_first"])
def test_in_every_frame_the_same_constant_delay(mode: str, tmp_path: Path) -> None:
    delay = DelayConfig(mode=mode, inference_frames=5, learn_frames=4)  # type: ignore[arg-type]
    every = in_every_frame(delay, tmp_path / "none.npy")
    every.check()
    assert ages(every, 40) == [None] * 5 + [5] * 35
    assert in_every_frame(DelayConfig(inference_frames=5, period=3.5), tmp_path / "none.npy") == every


def test_in_every_frame_as_the_published_simulators_have_it(tmp_path: Path) -> None:
    delay = DelayConfig(semantics="published", inference_frames=4, noops=2)
    found = ages(in_every_frame(delay, tmp_path / "none.npy"), 60)
    assert None not in found
    assert set(found[9:]) == {9} == {age for age in ages(delay, 60)[12:] if age is not None}


def test_in_every_frame_delays_that_vary_are_as_old_as_those_that_acted(tmp_path: Path) -> None:
    delay = DelayConfig(distribution="uniform", low=2, high=9)
    counts = staleness_under(delay)
    acted = [age for age in ages(delay, 20_000) if age is not None]
    assert counts @ np.arange(10) / counts.sum() == pytest.approx(np.mean(acted), rel=0.02)
    assert np.mean(acted) < 4.0, "of those that are ready the newest acts"
    every = in_every_frame(delay, tmp_path / "delays.npy")
    found = ages(every, 200, episodes=400)
    assert np.mean([age for age in found if age is not None]) == pytest.approx(np.mean(acted), rel=0.05)
    assert found.count(None) < 0.05 * len(found), "an episode's first frames"
    in_turn = in_every_frame(DelayConfig(mode="sequential", distribution="uniform", low=2, high=9), tmp_path / "x.npy")
    assert (in_turn.mode, in_turn.draw, in_turn.low, in_turn.high) == ("async", "episode", 2, 9)


def test_a_histogram_becomes_delays(tmp_path: Path) -> None:
    file, counts = tmp_path / "delays.npy", np.zeros(1025, np.int64)
    with pytest.raises(ValueError, match="no decision acted"):
        as_counted(NONE, counts, 1.0, file)
    counts[4] = 7
    assert as_counted(DelayConfig(history=2), counts, 2.5, file) == DelayConfig(
        history=2, inference_frames=4, period=2.5
    )
    assert not file.exists()
    counts[[2, 4, 1024]] = 300_000, 690_000, 10_000
    made = as_counted(NONE, counts, 1.0, file)
    made.check()
    values, times = np.unique(recorded_frames(made.recorded, made.fps), return_counts=True)
    assert values.tolist() == [2, 4, 1024]
    assert times.tolist() == [3000, 6900, 100]
    counts[[2, 1024]] = 0, 1
    assert recorded_frames(as_counted(NONE, counts, 1.0, file).recorded, 0.0).min() == 4, "not what was there before"


def test_the_spacing_of_an_episodes_decisions() -> None:
    # Two episodes of 20 frames and the next one's beginning; decisions 3 frames old, one every 4 frames.
    acted = [(start, source) for start in (0, 20) for source in (0, 4, 8, 12, 16)] + [(40, 0)]
    rows = [(start + source, start + source + 3, start // 20, source) for start, source in acted]
    period, share = measured_spacing(recording_of(rows))
    assert period == 4.0
    assert share == pytest.approx(1 - 10 / 34), "of 17 frames from the first on, 5 had a decision"
    alone = [row for row in rows if row[3] == 0]
    assert measured_spacing(recording_of(alone))[0] == 17.0
    assert measured_spacing(recording_of(rows[:1])) == (1.0, 0.0)
    skipping = [rows[0], rows[1], rows[-1]]
    assert measured_spacing(recording_of(skipping)) == (4.0, 0.75), "an episode without a decision is none"

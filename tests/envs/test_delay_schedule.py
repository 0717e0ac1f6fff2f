"""Which decision acts in which frame, against what is written out or counted slowly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.delay_schedule import Asynchronous, Delays, make_schedule


def acts(delay: DelayConfig, frames: int, seed: int = 0) -> list[tuple[int, int]]:
    """(frame, source) of the decisions of an episode."""
    schedule = make_schedule(delay)
    schedule.reset(np.random.default_rng(seed))
    found = [(frame, schedule.source(frame)) for frame in range(frames)]
    return [(frame, source) for frame, source in found if source is not None]


@pytest.mark.parametrize("delay", [0, 1, 5, 8])
def test_asynchronous_decisions_act_in_every_frame_from_the_delay_on(delay):
    assert acts(DelayConfig(inference_frames=delay), 30) == [(e, e - delay) for e in range(delay, 30)]


@pytest.mark.parametrize("learn", [0, 1, 3])
@pytest.mark.parametrize("delay", [0, 1, 5])
def test_in_turn_the_period_is_delay_and_learning(delay, learn):
    period = max(delay + learn, 1)
    infer = DelayConfig(mode="sequential", inference_frames=delay, learn_frames=learn)
    assert acts(infer, 40) == [(e, e - delay) for e in range(delay, 40, period)]
    learnt = DelayConfig(mode="learn_first", inference_frames=delay, learn_frames=learn)
    assert acts(learnt, 40) == [(e, e - delay) for e in range(delay + learn, 40, period)]
    background = DelayConfig(mode="background", inference_frames=delay)
    assert acts(background, 40) == [(e, e - delay) for e in range(delay, 40, max(delay, 1))]


@pytest.mark.parametrize("period", [1.0, 2.0, 3.7, 2.1, 7 / 3])
@pytest.mark.parametrize("delay", [0, 3])
def test_asynchronous_decisions_start_every_period(delay, period):
    exact = Fraction(period).limit_denominator(100)
    starts = [math.ceil(k * exact) for k in range(2000)]
    found = acts(DelayConfig(inference_frames=delay, period=period), 2000)
    assert found == [(start + delay, start) for start in starts if start + delay < 2000]


@pytest.mark.parametrize("noops", [0, 3])
@pytest.mark.parametrize("delay", [0, 1, 2, 8])
def test_published_is_a_queue_of_zeros_and_macro_steps(delay, noops):
    queue, wanted = [-1] * max(delay, 1), []
    for frame in range(0, 60, noops + 1):
        queue = [*queue[1:], frame]  # the oldest is used
        wanted.append((frame, queue[0]))
    found = acts(DelayConfig(semantics="published", inference_frames=delay, noops=noops), 60)
    assert found == wanted
    assert {frame - source for frame, source in found if source >= 0} == {(max(delay, 1) - 1) * (noops + 1)}


def test_the_published_sequential_form_is_far_staler_than_its_delay():
    found = acts(DelayConfig(semantics="published", inference_frames=8, noops=8), 200)
    assert {frame - source for frame, source in found if source >= 0} == {63}
    assert len([source for _, source in found if source < 0]) == 7


class Given(Delays):
    """Delays as a list says."""

    def __init__(self, values):
        super().__init__(DelayConfig())
        self.values = list(values)

    def next(self):
        return self.values.pop(0)


def slow(delays, frames):
    """What acts when delays vary, by looking at all decisions in every frame."""
    acted, found = -1, []
    for frame in range(frames):
        ready = [s for s in range(frame + 1) if s + delays[s] <= frame and s > acted]
        if ready:
            acted = max(ready)
            found.append((frame, acted))
    return found, acted


@pytest.mark.parametrize("seed", range(20))
def test_the_newest_ready_decision_acts_and_older_ones_are_dropped(seed):
    random = np.random.default_rng(seed)
    frames = int(random.integers(1, 60))
    delays = random.integers(0, random.integers(1, 12), size=frames + 1)
    schedule = Asynchronous(Given(delays))
    found = [(frame, schedule.source(frame)) for frame in range(frames)]
    wanted, acted = slow(delays, frames)
    assert [(frame, source) for frame, source in found if source is not None] == wanted
    still = [s for s in range(acted + 1, frames + 1) if s + delays[s] >= frames]
    first = min(max(frames, s + delays[s]) for s in still)
    assert schedule.pending(frames) == max(s for s in still if s + delays[s] <= first)
    assert schedule.pending(frames) == schedule.pending(frames), "asking twice draws nothing"


@pytest.mark.parametrize(
    "options", [{}, {"period": 3.0}, {"period": 6.5}, {"mode": "sequential"}, {"mode": "background"}]
)
def test_pending_is_what_would_have_acted_next(options):
    for frames in range(25):
        schedule = make_schedule(DelayConfig(inference_frames=4, **options))
        schedule.reset(np.random.default_rng(0))
        for frame in range(frames):
            schedule.source(frame)
        asked = schedule.pending(frames)
        later = next(s for frame in range(frames, 99) if (s := schedule.source(frame)) is not None)
        assert asked == min(frames, later)


def test_delays_are_drawn_as_often_as_is_asked(tmp_path):
    np.save(tmp_path / "delays.npy", np.array([2, 7, 7, 7]))
    for options in (
        {"distribution": "uniform", "low": 3, "high": 6},
        {"distribution": "recorded", "recorded": str(tmp_path / "delays.npy")},
    ):
        allowed = {3, 4, 5, 6} if "low" in options else {2, 7}
        for draw in ("run", "episode", "step"):
            delays, seen = Delays(DelayConfig(draw=draw, **options)), []
            delays.reset(np.random.default_rng(1))
            for _ in range(100):
                delays.start()
                seen.append([delays.next() for _ in range(20)])
            values = {value for episode in seen for value in episode}
            assert values == allowed if draw != "run" else len(values) == 1 and values < allowed
            assert any(len(set(episode)) > 1 for episode in seen) == (draw == "step")


@pytest.mark.parametrize("mode", ["async", "sequential", "learn_first", "background"])
@pytest.mark.parametrize("draw", ["run", "episode", "step"])
def test_the_state_is_exact(mode, draw):
    learn = 2 if mode in ("sequential", "learn_first") else 0
    delay = DelayConfig(mode=mode, learn_frames=learn, distribution="uniform", low=0, high=6, draw=draw)

    def play(schedule, frames):
        found = []
        for frame in frames:
            if frame == 50:
                schedule.start()
            found.append(schedule.source(frame % 50))
        return found

    schedule = make_schedule(delay)
    schedule.reset(np.random.default_rng(5))
    play(schedule, range(23))
    saved = {name: value.copy() for name, value in schedule.state().items()}
    again = make_schedule(delay)
    again.load_state(saved)
    assert play(schedule, range(23, 90)) == play(again, range(23, 90))
    for one in (schedule, again):
        assert one.pending(40) == schedule.pending(40)

"""The realtime environment by hand: it never waits and never drifts, and what cannot act is counted."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.runtime.pacing import WAIT
from offbeat.runtime.realtime_books import DECISION
from offbeat.runtime.realtime_env import LEAD_S
from offbeat.types import OBSERVATION
from tests.runtime.parts import same_arrays
from tests.runtime.realtime_parts import BLOCK, GAMMA, PERIOD, PlayedEnv, step


def test_it_waits_until_all_are_ready_and_then_for_nobody() -> None:
    play = PlayedEnv()
    assert [next(play.loop) for _ in range(3)] == [WAIT] * 3
    play.realtime.shared["warm"][:] = 0.01
    assert not play.realtime.begun
    assert next(play.loop) == play.clock.now() + LEAD_S == play.realtime.shared["begin"][0]
    assert play.realtime.mailbox.read().frame == 0
    play.frames(100)
    assert (play.rows.frames, play.rows.inaction, play.work.books.missed) == (100, 100, 0)
    assert play.realtime.mailbox.read().frame == 100


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_due_at_multiples_of_the_period_whatever_happened_before(seed: int) -> None:
    draw = np.random.default_rng(seed)
    durations = tuple(draw.choice([0, 0.375, 0.875, 1.5, 3.25], 37, p=[0.5, 0.2, 0.1, 0.1, 0.1]) * PERIOD)
    lateness = tuple(draw.choice([0, 0.125, 0.5, 1.25, 2.5], 41, p=[0.6, 0.1, 0.1, 0.1, 0.1]) * PERIOD)
    play = PlayedEnv(durations, lateness)
    play.begin()
    play.frames(300)
    free = number = 0.0
    wanted = []
    for frame in range(300):
        start = max(free, number * PERIOD + lateness[frame % 41])
        missed = int((start - number * PERIOD) / PERIOD)
        wanted.append((start, start - number * PERIOD, missed))
        number, free = number + 1 + missed, start + durations[frame % 37]
    np.testing.assert_array_equal(play.work.books.ticks.rows()[:, :3], wanted)
    books = play.work.books
    assert books.missed == sum(missed for _, _, missed in wanted) > 20
    assert play.work.ticks == 300 + books.missed, "frames that were missed are not made up for"
    assert play.work.due() == play.work.begin_s + (300 + books.missed) * PERIOD


def rows_of(play: PlayedEnv) -> dict[str, np.ndarray]:
    """What was appended so far."""
    at = play.store.locate(np.zeros(play.store.head[0], np.int64), np.arange(play.store.head[0]))
    return {name: play.store.take(name, at) for name in play.layout.columns()}


def test_an_action_acts_in_one_frame_and_blocks_are_appended_at_once() -> None:
    play = PlayedEnv(length=500)
    play.begin()
    for slot in range(1, 2 * BLOCK + 2):
        play.decide(slot, action=0)
        play.frames(3)
    assert (play.rows.frames, play.work.books.decisions, play.rows.inaction) == (27, 9, 18)
    assert play.store.head.tolist() == [2 * BLOCK]
    assert play.store.arrays["produced"].tolist() == [9]
    rows = rows_of(play)
    assert rows[f"observation/{OBSERVATION}"][:, 0].tolist() == list(range(0, 24, 3))
    assert rows["elapsed"].tolist() == [3] * 8
    assert rows["param_version"].tolist() == list(range(1, 9))
    assert rows["discount"].tolist() == [GAMMA**3] * 8
    np.testing.assert_array_equal(rows["extras/seen"], rows[f"observation/{OBSERVATION}"])


def test_decisions_of_an_earlier_episode_never_act() -> None:
    play = PlayedEnv(length=1)  # every episode is one frame
    play.begin()
    play.decide(1)
    play.frames(1)
    play.decide(2, episode=play.work.episode - 1)
    play.frames(1)
    assert play.realtime.slots.old_episode == 1
    assert (play.work.books.decisions, play.rows.inaction) == (1, 1)
    assert np.isnan(play.work.books.kept.rows()[1, DECISION.index("acted")])


def test_decisions_that_are_too_old_do_not_act_and_the_episode_ends_all_the_same() -> None:
    play = PlayedEnv(length=30, keep=4)
    play.begin()
    play.decide(1)
    play.frames(1)
    while play.work.episode == 0:
        if play.rows.frame in (4, 8):
            play.decide(2 + play.rows.frame, back=4)
        play.frames(1)
    books = play.work.books
    assert (books.too_old, books.decisions) == (2, 1)
    assert play.rows.inaction == play.rows.frames - 1
    assert np.isnan(books.kept.rows()[:, DECISION.index("acted")]).tolist() == [False, True, True]
    assert books.staleness.sum() == 1
    assert play.metrics.of("episode")[0]["episode_frames"] == play.rows.frames


def test_episodes_without_a_decision_are_scored_and_leave_no_rows() -> None:
    play = PlayedEnv()
    play.begin()
    while play.work.episode < 20:
        play.frames(1)
    ended = play.metrics.of("episode")
    assert len(ended) == 20
    assert sum(one["episode_frames"] for one in ended) == play.rows.frames
    assert {one["length"] for one in ended} == {0.0}
    assert all(one["return"] > 0 for one in ended if one["episode_frames"] > 2)
    assert play.store.arrays["produced"].tolist() == [0]


def test_a_stop_ends_it_and_blocks_are_offered_while_writers_are_held() -> None:
    play = PlayedEnv(length=500)
    play.writer._paused = lambda: True
    play.begin()
    for slot in range(1, 12):
        play.decide(slot)
        play.frames(1)
    assert play.store.head.tolist() == [0], "nothing was appended, and nothing waited"
    play.writer._paused = lambda: False
    for slot in range(12, 14):
        play.decide(slot)
        play.frames(1)
    assert play.store.head.tolist() == [12], "all of it came in order"
    assert rows_of(play)[f"observation/{OBSERVATION}"][:, 0].tolist() == list(range(12))
    short = PlayedEnv(looks=3)
    short.begin()
    while step(short.loop, short.clock) is not None:
        pass
    assert short.work.frame == 3


def decide_now(play: PlayedEnv) -> None:
    """A rule that looks at the frame only."""
    if play.realtime.mailbox.number and (frame := play.work.frame) % 3 and play.work.ends is None:
        back = min(frame % 2, play.realtime.mailbox.read().step)
        play.decide(frame, back, action=frame % 4)


def test_it_goes_on_exactly_from_wherever_it_yields() -> None:
    durations, lateness = (0.0, 0.5 * PERIOD, 1.75 * PERIOD), (0.0, 0.25 * PERIOD)
    play, saved = PlayedEnv(durations, lateness), []
    play.realtime.shared["warm"][:] = 0.01
    for _ in range(70):
        moment = next(play.loop)
        saved.append((moment, play.clock.now(), play.state()))
        play.clock.sleep(max(0.0, moment - play.clock.now()))
        decide_now(play)
    assert play.store.head[0] > 8
    assert play.work.episode > 2
    for at in range(50):
        moment, now, state = saved[at]
        other = PlayedEnv(durations, lateness)
        other.clock.sleep(now - other.clock.now())
        other.load_state(state)
        assert next(other.loop) == moment
        for later in range(at + 1, at + 20):
            other.clock.sleep(max(0.0, moment - other.clock.now()))
            decide_now(other)
            moment = next(other.loop)
            assert moment == saved[later][0]
        for part, arrays in other.state().items():
            same_arrays(arrays, saved[at + 19][2][part])

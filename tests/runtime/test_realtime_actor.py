"""An inference process by hand: the newest observation at its slot, published at its slot; turns with learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.mailbox import DUE, ENDED, PUBLISHED, READ, Decision
from offbeat.runtime.pacing import WAIT
from offbeat.runtime.realtime import Realtime
from tests.runtime.parts import same_arrays
from tests.runtime.realtime_parts import PERIOD, PlayedActor, make_shared, show, step

INFERENCE = 4 * PERIOD


def begun(workers: int = 2, **options: Any) -> tuple[Realtime, VirtualClock]:
    """A world that has begun at second 1, on frame 0; slots lie 4 / workers frames apart."""
    realtime, clock = make_shared(inference=workers, inference_s=INFERENCE, pad=False, **options), VirtualClock(1.0)
    show(realtime, 0, clock)
    realtime.begin(1.0)
    return realtime, clock


def take(realtime: Realtime, clock: VirtualClock) -> Decision:
    """What was published."""
    found = realtime.slots.take(0, clock.now())
    assert found is not None
    return found


def test_it_waits_for_the_beginning() -> None:
    realtime, clock = make_shared(first_estimate_s=PERIOD), VirtualClock()
    actor = PlayedActor(realtime, clock)
    assert [next(actor.loop) for _ in range(3)] == [WAIT] * 3
    show(realtime, 0, clock)
    realtime.begin(2.0)
    assert next(actor.loop) == 2.0 + PERIOD / 2, "slots lie half a frame before frames"


def test_it_infers_from_the_newest_observation_at_its_slot_and_publishes_at_its_slot() -> None:
    realtime, clock = begun()
    actor = PlayedActor(realtime, clock, worker=1)
    starts = 1.0 + PERIOD / 2 + INFERENCE / 2  # behind worker 0
    assert next(actor.loop) == starts
    for number in range(3):
        clock.sleep(starts + number * INFERENCE - clock.now())
        show(realtime, 10 + number, clock)
        ends = next(actor.loop)
        assert ends == clock.now() + INFERENCE, "inferring"
        show(realtime, 20 + number, clock)
        clock.sleep(INFERENCE)
        assert next(actor.loop) == ends, "its slot"
        assert realtime.slots.take(0, clock.now()) is None
        assert next(actor.loop) == starts + (number + 1) * INFERENCE, "its next start"
        found = take(realtime, clock)
        assert (found.source, found.slot, found.worker) == (10 + number, number + 1, 1)
        assert found.action.tolist() == [(number + 1) % 4]
        times = starts + number * INFERENCE + np.array([0.0, INFERENCE, INFERENCE, INFERENCE])
        assert found.times[[READ, ENDED, DUE, PUBLISHED]].tolist() == times.tolist()
    assert [int(seen[0]) for seen in actor.policy.seen] == [10, 11, 12]
    assert not actor.policy.holds


def test_an_inference_that_is_early_waits_for_its_slot_and_one_that_is_late_moves_all() -> None:
    realtime, clock = begun(jitter=0.5, first_estimate_s=1.4 * INFERENCE)
    actors = [PlayedActor(realtime, clock, worker=worker) for worker in range(2)]
    events = [(next(actor.loop), index) for index, actor in enumerate(actors)]
    published: list[float] = []
    for _ in range(2000):
        moment, index = min(events)
        clock.sleep(max(0.0, moment - clock.now()))
        events[index] = (next(actors[index].loop), index)
        found = realtime.slots.take(0, clock.now())
        published += [] if found is None else [float(found.times[PUBLISHED])]
    longest = realtime.stagger().period_s
    assert 1.4 * INFERENCE < longest <= 1.5 * INFERENCE
    gaps = np.diff(published[len(published) // 2 :])
    np.testing.assert_allclose(gaps, longest / 2, rtol=0.01)


def test_a_slot_that_moved_while_it_slept_is_asked_for_again() -> None:
    realtime, clock = begun()
    actor, stagger = PlayedActor(realtime, clock, worker=1), realtime.stagger()
    first = next(actor.loop)
    started = 1.0 + PERIOD / 2
    stagger.finished(0, started, started + 3 * INFERENCE)  # one that took three times as long
    clock.sleep(first - clock.now())
    moved = next(actor.loop)
    assert moved == stagger.start_at(1) == started + 1.5 * INFERENCE > first
    clock.sleep(moved - clock.now())
    assert next(actor.loop) == clock.now() + INFERENCE, "and then it infers"


@pytest.mark.parametrize("yields", [1, 2, 3, 4, 5])
def test_one_that_was_taken_for_dead_comes_back(yields: int) -> None:
    realtime, clock = begun()
    actor, stagger = PlayedActor(realtime, clock, worker=1), realtime.stagger()
    for _ in range(yields):
        assert step(actor.loop, clock) is not None
    stagger.remove(1)
    assert 1 not in stagger
    for _ in range(8):
        assert step(actor.loop, clock) is not None
    assert 1 in stagger
    assert take(realtime, clock).slot >= 2


def test_in_turns_it_asks_waits_for_the_answer_and_then_infers() -> None:
    for mode, first in (("sequential", False), ("learn_first", True)):
        realtime, clock = begun(1, mode=mode)
        actor, turns = PlayedActor(realtime, clock), realtime.shared["turns"]
        for inference in range(3):
            asked = inference + first
            if asked:
                assert [step(actor.loop, clock) for _ in range(3)] == [WAIT] * 3
                assert turns.tolist() == [asked, asked - 1]
                assert actor.policy.made == inference
                turns[1] = asked
                clock.sleep(3 * INFERENCE)
            while actor.policy.made == inference or actor.work.pending is not None:
                moment = next(actor.loop)
                if moment == WAIT:
                    break
                clock.sleep(max(0.0, moment - clock.now()))
            assert take(realtime, clock).slot == inference + 1
        assert realtime.ring.count >= 2  # type: ignore[attr-defined]


def test_a_stop_ends_it() -> None:
    realtime, clock = begun()
    actor = PlayedActor(realtime, clock, looks=2)
    while step(actor.loop, clock) is not None:
        pass
    assert actor.policy.made == 2


def world_state(realtime: Realtime, actor: PlayedActor) -> dict[str, dict[str, np.ndarray]]:
    """All that there is."""
    parts = {"realtime": realtime.state(), "work": actor.work.state(), "policy": actor.policy.state()}
    return {name: {key: np.array(value) for key, value in part.items()} for name, part in parts.items()}


@pytest.mark.parametrize("mode", ["async", "sequential", "learn_first"])
def test_it_goes_on_exactly_from_wherever_it_yields(mode: str) -> None:
    lateness = (0.0, 0.25 * PERIOD, 0.5 * PERIOD)

    def around(realtime: Realtime, clock: VirtualClock, at: int) -> None:
        """A new observation, and the learner's answer to what was asked some steps ago."""
        show(realtime, at, clock)
        if at % 3 == 0:
            realtime.shared["turns"][1] = realtime.shared["turns"][0]

    def on(actor: PlayedActor, moment: float) -> float:
        actor.clock.sleep(PERIOD / 8 if moment == WAIT else max(0.0, moment - actor.clock.now()))
        return next(actor.loop)

    realtime, clock = begun(1, mode=mode, jitter=0.25, patience_s=1e9)
    actor, saved = PlayedActor(realtime, clock, lateness=lateness), []
    moment = next(actor.loop)
    for at in range(60):
        saved.append((moment, clock.now(), world_state(realtime, actor)))
        around(realtime, clock, at)
        moment = on(actor, moment)
    assert actor.policy.made > 8
    for at in range(45):
        moment, now, state = saved[at]
        shared, other_clock = begun(1, mode=mode, jitter=0.25, patience_s=1e9)
        other_clock.sleep(now - 1.0)
        other = PlayedActor(shared, other_clock, lateness=lateness)
        shared.load_state(state["realtime"])
        other.work.load_state(state["work"])
        other.policy.load_state(state["policy"])
        assert next(other.loop) == moment
        for later in range(at, at + 12):
            around(shared, other_clock, later)
            moment = on(other, moment)
            assert moment == saved[later + 1][0], (at, later)
        for part, arrays in world_state(shared, other).items():
            same_arrays(arrays, saved[at + 12][2][part])


class Explorer:
    """Says which steps it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def exploration(self, stream: np.ndarray, num_streams: int, agent_steps: int) -> np.ndarray:
        """None."""
        self.asked.append(agent_steps)
        return np.zeros(1, np.float32)


def test_it_explores_by_the_frames_of_the_run_those_before_a_resume_included() -> None:
    realtime, clock = begun()
    explorer, posted = Explorer(), [0]
    actor = PlayedActor(realtime, clock, agent=explorer, played=lambda: posted[0])
    explorer.asked.clear()
    for number, (frame, before) in enumerate([(30, 0), (31, 1000), (1200, 1100)]):
        posted[0] = before
        show(realtime, frame, clock)
        while len(explorer.asked) == number:
            step(actor.loop, clock)
    assert explorer.asked == [30, 1000, 1200]


def test_a_warm_up_says_how_long_an_inference_takes_and_leaves_the_policy_as_it_was() -> None:
    realtime, clock = make_shared(inference_s=0.25), VirtualClock()
    actor = PlayedActor(realtime, clock)
    assert not realtime.ready
    actor.work.warm_up(actor.policy, realtime, real=False)  # type: ignore[arg-type]
    assert realtime.shared["warm"].tolist() == [0.25]
    assert realtime.ready
    assert (actor.policy.made, actor.policy.holds) == (0, False)
    act, took = actor.policy.act, iter([9.0, 1.0, 1.0, 1.0, 0.5, 0.75, 0.25, 0.5])

    def slowly(env_ids: np.ndarray, inputs: Any) -> Any:
        clock.sleep(next(took))
        return act(env_ids, inputs)

    actor.policy.act = slowly  # type: ignore[method-assign]
    actor.work.warm_up(actor.policy, realtime, real=True)  # type: ignore[arg-type]
    assert realtime.shared["warm"].tolist() == [0.75], "the first inferences do not count"

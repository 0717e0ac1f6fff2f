"""The slots of staggered inference: spacing by simulated events, against the figures of the method's reference."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest

from offbeat.algorithms.stagger import Stagger, stagger_arrays

Cost = Callable[[np.random.Generator], float]
CASES = [(7, 0.04, 0.084), (12, 0.1, 0.134), (12, 0.1, 0.2), (72, 0.01, 1.17)]
"""Processes, first estimate and inference time of the published runs, for which the published rule fails."""


def published(stagger: Stagger, cost: Cost, actions: int, change: Callable[[Stagger, int], object] | None = None):
    """Times of ``actions`` published actions of all workers; ``change`` is called with the count of each."""
    random, events, made, times = np.random.default_rng(0), [], 0, []

    def add(moment: float, worker: int, what: str, started: float = 0.0) -> None:
        nonlocal made
        made += 1
        heapq.heappush(events, (moment, made, worker, what, started))

    for worker in range(stagger.workers):
        add(stagger.start_at(worker), worker, "start")
    while len(times) < actions:
        now, _, worker, what, started = heapq.heappop(events)
        if worker not in stagger:
            continue
        if what == "start":
            at = stagger.start_at(worker)
            add(at, worker, "start") if at > now else add(now + cost(random), worker, "end", now)
        elif what == "end":
            add(stagger.finished(worker, started, now), worker, "publish")
        elif (at := stagger.publish_at(worker, now)) > now:
            add(at, worker, "publish")
        else:
            times.append(now)
            stagger.published(worker, now)
            add(max(now, stagger.start_at(worker)), worker, "start")
            if change is not None:
                change(stagger, len(times))
    return np.array(times)


def spacing(times: np.ndarray) -> tuple[float, float]:
    """Mean gap and its coefficient of variation, after a quarter of the time."""
    gaps = np.diff(times)[len(times) // 4 :]
    return float(gaps.mean()), float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(("workers", "first", "time"), CASES)
@pytest.mark.parametrize("estimator", ["max", "mean", "quantile"])
def test_even_spacing_where_every_inference_takes_as_long(workers, first, time, estimator) -> None:
    gap, cv = spacing(published(Stagger(workers, estimator, first), lambda random: time, 2000))
    assert gap == pytest.approx(time / workers, rel=1e-6)
    assert cv < 1e-6


@pytest.mark.parametrize(("workers", "first", "time"), CASES)
def test_the_largest_time_keeps_spacing_even_under_jitter(workers, first, time) -> None:
    stagger = Stagger(workers, "max", first)
    gap, cv = spacing(published(stagger, lambda random: time * (1 + 0.05 * random.standard_normal()), 4000))
    assert cv < 0.02
    assert gap == pytest.approx(stagger.period_s / workers, rel=0.02)


@pytest.mark.parametrize(("workers", "first", "time"), CASES)
def test_the_mean_time_needs_fewer_processes_and_spaces_less_evenly(workers, first, time) -> None:
    stagger = Stagger(workers, "mean", first)
    gap, cv = spacing(published(stagger, lambda random: time * (1 + 0.05 * random.standard_normal()), 4000))
    assert gap == pytest.approx(time / workers, rel=0.01)
    assert 0.3 < cv < 1.2
    assert stagger.period_s == pytest.approx(time, rel=0.01)


def test_a_quantile_does_not_remember_an_outlier_for_ever() -> None:
    for estimator, least in (("quantile", 0.1), ("max", 3.0)):
        costs, stagger = iter([0.1] * 50 + [3.0] + [0.1] * 5000), Stagger(4, estimator, 0.1)
        published(stagger, lambda random, costs=costs: next(costs), 400)
        assert stagger.period_s == pytest.approx(least)


def test_slots_that_were_missed_are_not_caught_up() -> None:
    costs = iter([0.1] * 40 + [1.05] + [0.1] * 1000)
    stagger = Stagger(4, "quantile", 0.1)
    gaps = np.diff(published(stagger, lambda random: next(costs), 400))
    assert stagger.skipped == 10  # the periods in which it published nothing, and what is left of the last one
    assert np.count_nonzero(gaps < 0.024) <= 2  # the late action comes beside the others' slots, and no burst follows
    assert np.allclose(gaps[-100:], 0.025)


def test_a_slower_inference_makes_its_slot_now_and_everybody_follows() -> None:
    stagger = Stagger(2, "max", 0.1)
    assert (stagger.start_at(0), stagger.start_at(1)) == pytest.approx((0.0, 0.05))
    assert stagger.finished(0, 0.0, 0.2) == pytest.approx(0.2)  # 0.1 late: T is 0.2 now
    assert stagger.period_s == pytest.approx(0.2)
    assert stagger.publish_at(1, 0.2) == pytest.approx(0.3)  # the one in flight is spaced anew
    stagger.published(0, 0.2)
    assert stagger.start_at(0) == pytest.approx(0.2)


def test_the_period_is_at_least_what_is_asked_for_and_slots_lie_on_the_grid() -> None:
    frame = 1 / 60
    stagger = Stagger(3, "max", 0.002, start_s=5.0, least_s=3 * frame, grid_s=frame)
    late = iter([0.002] * 20 + [0.0501] + [0.002] * 1000)  # as long as T, and woken late: no reason to leave the grid
    times = published(stagger, lambda random: min(next(late), 3 * frame), 200)
    assert np.allclose(np.diff(times), frame)
    assert np.allclose((times - 5.0) / frame, np.round((times - 5.0) / frame), atol=1e-6)


@pytest.mark.parametrize("dead", [0, 1, 3])
def test_the_others_close_up_when_a_worker_dies_and_make_room_when_it_is_back(dead) -> None:
    def change(stagger: Stagger, count: int) -> None:
        if count == 100:
            stagger.remove(dead)

    times = published(Stagger(4, "max", 0.1), lambda random: 0.1, 300, change)
    gaps = np.diff(times)
    assert np.allclose(gaps[:99], 0.025)
    assert np.allclose(gaps[103:], 0.1 / 3)  # within a round
    stagger = Stagger(4, "max", 0.1)
    stagger.remove(dead)
    with pytest.raises(KeyError, match="removed"):
        stagger.start_at(dead)
    stagger.add(dead)
    stagger.add(dead)  # harmless
    starts = sorted(stagger.start_at(worker) for worker in range(4))
    assert np.allclose(np.diff(starts), 0.025)
    assert stagger.start_at(dead) == starts[-1]


def test_all_may_die_and_come_back() -> None:
    stagger = Stagger(2, "max", 0.1)
    stagger.remove(0)
    stagger.remove(1)
    assert stagger.count == 0
    stagger.add(1)
    stagger.add(0)
    assert stagger.start_at(0) - stagger.start_at(1) == pytest.approx(0.05)


def test_processes_share_one_stagger() -> None:
    storage = {name: np.zeros(*made) for name, made in stagger_arrays(2).items()}
    first = Stagger(2, "max", 0.1, storage=storage)
    other = Stagger(2, "max", 9.0, storage=storage, fresh=False)
    assert other.period_s == 0.1
    first.finished(0, 0.0, 0.3)
    assert other.period_s == pytest.approx(0.3)
    assert other.start_at(1) == first.start_at(1)


def test_the_state_is_exact() -> None:
    def cost(random: np.random.Generator) -> float:
        return 0.1 + 0.05 * float(random.random())

    stagger, twin = Stagger(5, "quantile", 0.02), Stagger(5, "quantile", 0.02)
    published(stagger, cost, 57)
    twin.load_state(stagger.state())
    for worker in range(5):
        assert twin.start_at(worker) == stagger.start_at(worker)
    assert twin.finished(2, 1.0, 1.3) == stagger.finished(2, 1.0, 1.3)
    assert twin.period_s == stagger.period_s


def test_who_is_overdue() -> None:
    stagger = Stagger(2, "max", 0.1)
    assert stagger.overdue(0.05) == {}
    assert stagger.overdue(0.12) == pytest.approx({0: 0.02})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": 0}, "workers=0"),
        ({"workers": 1, "estimator": "median"}, "max, mean, quantile"),
        ({"workers": 1, "initial_s": 0.0}, "initial_s=0"),
        ({"workers": 1, "quantile": 0.0}, "quantile=0"),
        ({"workers": 1, "least_s": -1.0}, "least_s=-1"),
    ],
)
def test_what_is_out_of_range_is_named(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        Stagger(**arguments)
    with pytest.raises(ValueError, match="is before started_s"):
        Stagger(1).finished(0, 1.0, 0.5)

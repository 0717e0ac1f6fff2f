"""Rate control: the ratio is kept, nobody waits for ever, and where it is off nobody waits at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offbeat.replay.items import ItemSpec
from offbeat.replay.layout import layout_for
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.rate_limiter import RateLimiter, ratio_of
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import NO_LIMIT, StreamStore
from offbeat.types import ActionSpec, ArraySpec, EnvSpec
from tests.replay.episodes import Episodes, item_layout

SPEC = EnvSpec("toy", {"observation": ArraySpec((3,))}, ActionSpec("discrete", 3))
RATIOS = (0.05, 0.1, 0.3, 1 / 3, 0.7, 1.0, 2.7, 8.0, 30.1)


def bare(num_streams: int, block: int) -> StreamStore:
    """Streams whose rows do not matter: tests move ``head`` by hand."""
    return StreamStore.allocate(item_layout(ItemSpec(), num_streams=num_streams, block=block))


def room(store: StreamStore) -> np.ndarray:
    return store.room(np.arange(store.layout.num_streams))


@pytest.mark.parametrize("eager", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_the_ratio_is_kept_and_nobody_waits_for_ever(seed: int, eager: float) -> None:
    """``eager``: how often writers get a turn that both could have."""
    rng = np.random.default_rng(seed)
    streams, block, ratio = int(rng.integers(1, 9)), int(rng.integers(1, 8)), float(rng.choice(RATIOS))
    round_rows = int(np.ceil(streams * block * ratio))
    batch, min_rows = int(rng.integers(1, 1 + 5 * round_rows)), int(rng.integers(1, 100))
    tolerance = int(rng.choice([0, batch + round_rows, batch + round_rows + rng.integers(1, 100)]))
    store = bare(streams, block)
    limiter = RateLimiter(store, ratio, tolerance, min_rows, batch)

    def ahead() -> float:
        return (int(store.head.sum()) - min_rows) * ratio - limiter.sampled

    while (room(store) >= block).any():
        store.head[room(store) >= block] += block
        assert store.head.max() < 10**6, "nothing holds writers back"
    assert limiter.may_sample()
    assert batch - 1e-6 <= ahead() <= limiter.tolerance + streams * ratio + 1e-6
    batches = waited = held = 0
    for _ in range(1_500):
        may_write = np.flatnonzero(room(store) >= block)
        may_sample = limiter.may_sample()
        assert len(may_write) or may_sample, "writers and learner wait for each other"
        if len(may_write) and (not may_sample or rng.random() < eager):
            store.head[rng.choice(may_write)] += block
        else:
            limiter.count(batch)
            batches += 1
        waited += not may_sample
        held += not len(may_write)
        assert -1e-6 <= ahead() <= limiter.tolerance + streams * ratio + 1e-6
    assert batches > 5
    assert waited if eager < 1 else held, "whoever goes first waits for the other"


def test_limits_worked_out_by_hand() -> None:
    """Two streams of blocks of 5; a batch of 8 rows, each appended row trained on twice, from 10 rows on."""
    store = bare(2, 5)
    limiter = RateLimiter(store, 2.0, 28, 10, 8)
    assert limiter.tolerance == 28
    assert room(store).tolist() == [12, 12]  # 10 + 28 / 2 rows
    store.head[:] = 5
    assert not limiter.may_sample()  # 10 rows are there, none beyond
    store.head[0] = 8
    assert not limiter.may_sample()  # 3 beyond: 6 rows to train on
    store.head[0] = 9
    assert limiter.may_sample()
    limiter.count(8)
    assert not limiter.may_sample()
    assert room(store).tolist() == [14 - 9, 14 - 5]  # 10 + (8 + 28) / 2 rows
    store.head[:] = 30
    assert room(store).tolist() == [0, 0]
    assert limiter.sampled == 8


def test_nothing_is_drawn_before_min_rows_are_there() -> None:
    for ratio in (0.0, 100.0):
        store = bare(3, 4)
        limiter = RateLimiter(store, ratio, 0, 50, 1)
        for rows in range(0, 80):
            store.head[:] = [rows, 0, 0]
            assert limiter.may_sample() == (rows >= 50 if ratio == 0 else rows > 50)


def test_a_ratio_of_zero_never_holds_anybody() -> None:
    store = bare(2, 3)
    limiter = RateLimiter(store, 0.0, 0, 1, 1_000)
    store.head[0] = 1
    for _ in range(50):
        assert limiter.may_sample()
        limiter.count(1_000)
        assert room(store).min() > NO_LIMIT // 2
    store.head[:] += 10**9
    assert room(store).min() > NO_LIMIT // 2
    assert limiter.may_sample()


def test_writers_of_a_fixed_schedule_are_never_held() -> None:
    store = bare(2, 3)
    limiter = RateLimiter(store, 1.0, 0, 1, 4, hold_writers=False)
    store.head[:] = 10**6
    assert room(store).min() > NO_LIMIT // 2
    limiter.count(4)
    assert room(store).min() > NO_LIMIT // 2
    limiter.count(2 * 10**6 - 4)
    assert not limiter.may_sample()  # the learner still waits


def test_a_tolerance_that_is_too_narrow_is_refused() -> None:
    store = bare(4, 5)
    with pytest.raises(ValueError, match=r"tolerance=41 .* a batch of 32 rows and a round of 20 .* need 42"):
        RateLimiter(store, 0.5, 41, 1, 32)
    RateLimiter(store, 0.5, 42, 1, 32)
    assert RateLimiter(store, 0.5, 0, 1, 32).tolerance == 84
    RateLimiter(store, 0.0, 1, 1, 32)  # has no meaning there


def test_it_says_what_is_missing() -> None:
    store = bare(2, 5)
    drawn = np.zeros(1, np.int64)
    limiter = RateLimiter(store, 2.0, 28, 10, 8, drawn=(drawn, 0))
    assert limiter.missing() == "10 rows before the first batch; 0 have come"
    store.head[:] = 6
    assert limiter.missing() == "rate control: 14 rows at replay.samples_per_insert=2; 12 have come and 0 were drawn"
    store.head[:] = 7
    assert limiter.missing() == ""
    drawn[0] = 100
    store.head[:] = 12
    assert limiter.missing() == (
        "rate control: 64 rows at replay.samples_per_insert=2; 24 have come and 100 were drawn, and actors are held "
        "back in 2 of 2 streams"
    )
    free = RateLimiter(store, 0.0, 0, 30, 8)
    assert free.missing() == "30 rows before the first batch; 24 have come"
    store.head[:] = 15
    assert free.missing() == ""


def test_where_no_clock_decides_each_row_is_trained_on_once() -> None:
    assert [ratio_of(ratio, hold) for ratio in (0.0, 3.0) for hold in (True, False)] == [0.0, 1.0, 3.0, 3.0]


def test_what_several_learners_draw_counts_together() -> None:
    store, drawn = bare(2, 5), np.zeros(2, np.int64)
    one, other = (RateLimiter(store, 2.0, 60, 10, 8, drawn=(drawn, index)) for index in range(2))
    alone = RateLimiter(bare(2, 5), 2.0, 60, 10, 8)
    store.head[:] = alone._store.head[:] = 12
    for limiter in (one, one, other):
        assert one.may_sample() and other.may_sample()
        limiter.count(8)
        alone.count(8)
        assert one.sampled == other.sampled == alone.sampled
        assert (room(store) == room(alone._store)).all()
    assert drawn.tolist() == [16, 8]
    assert not one.may_sample() and not other.may_sample()
    store.arrays["pace"][0] = 1  # as if a lower limit had been written last
    assert not one.may_sample()
    assert (room(store) == room(alone._store)).all()
    again = RateLimiter(store, 2.0, 60, 10, 8, drawn=(drawn, 1))  # of a learner that was replaced
    assert again.sampled == 24
    other.load_state({"sampled": np.array([100])})
    assert one.sampled == 100


def test_counters_come_back() -> None:
    store = bare(2, 5)
    limiter = RateLimiter(store, 2.0, 60, 10, 8)
    store.head[:] = 20
    for _ in range(5):
        limiter.count(8)
    left = room(store)
    other = RateLimiter(store, 2.0, 60, 10, 8)
    assert (room(store) < left).all()
    other.load_state(limiter.state())
    assert (room(store) == left).all()
    assert other.sampled == 40
    assert other.may_sample() == limiter.may_sample()


def build(seed: int) -> tuple[StreamStore, Episodes, Mixture, str]:
    """Random sizes; the capacity is the least that is allowed, or more."""
    rng = np.random.default_rng([7, seed])
    if seed % 2:
        burn_in, length, period = (int(n) for n in rng.integers([0, 1, 1], [9, 12, 14]))
        items = ItemSpec("sequence", n=int(rng.integers(1, 6)), length=length, burn_in=burn_in, period=period)
    else:
        items = ItemSpec(n=int(rng.integers(1, 9)))
    kind = str(rng.choice(["prioritised", "uniform"]))
    alpha = {"alpha": 0.7} if kind == "prioritised" else {}
    sampler: Any = sampler_config(kind, min_rows=int(rng.choice([0, 1, 30])), **alpha)
    streams, block = int(rng.integers(1, 6)), int(rng.integers(1, 7))
    config = ReplayConfig(0, (sampler,), samples_per_insert=float(rng.choice(RATIOS)))
    core = {"h": ArraySpec((1,))} if items.kind == "sequence" else {}
    numbers = {"num_streams": streams, "unroll_length": 1, "block": block}
    layout = layout_for(SPEC, {}, core, replay=config, items=items, **numbers)  # type: ignore[arg-type]
    kept = layout.capacity * streams
    config = replace(config, samplers=(replace(sampler, min_rows=min(sampler.min_rows, kept)),))
    store = StreamStore.allocate(layout)
    longest = int(rng.choice([2, 5, 40, 400]))
    episodes = Episodes(store, lambda: int(rng.integers(1, longest)))
    replay = make_mixture(store, config, int(rng.integers(1, 9)), bool(seed % 3), seed)
    return store, episodes, replay, f"{items} {config} streams={streams} block={block} episodes up to {longest}"


@pytest.mark.parametrize("seed", range(60))
def test_a_writer_and_a_learner_always_go_on(seed: int) -> None:
    """A writer that appends whole blocks to all streams whenever it may, a learner that samples whenever it may."""
    store, episodes, replay, what = build(seed)
    rng, everyone, block = np.random.default_rng(seed), np.arange(store.layout.num_streams), store.layout.block
    sampled = 0
    for _ in range(150):
        while rng.random() < 0.9 and store.room(everyone).min() >= block:
            episodes.round()
        if store.room(everyone).min() < block:
            assert replay.sample() is not None, f"both wait at {store.head}: {what}"
            sampled += 1
        while rng.random() < 0.7 and replay.sample() is not None:
            sampled += 1
    assert sampled > 2
    assert replay.dropped == 0

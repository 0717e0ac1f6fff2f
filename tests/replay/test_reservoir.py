"""The reservoir: a naive twin with the same keys, equal chances, going on from a saved state, beside a fifo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of
from offbeat.replay.layout import layout_for
from offbeat.replay.make import check_mixture, copies_nbytes, make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.reservoir import Reservoir
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from tests.replay.test_copies import place_of
from tests.replay.test_fifo import grow
from tests.replay.test_mixture import SPEC, build, fill
from tests.replay.twin import Twin, TwinReader, vector_layout

BESIDE = (sampler_config("fifo", share=0.5), sampler_config("reservoir", share=0.5, size=60, min_rows=45))


@pytest.mark.parametrize("seed", [0, 1])
def test_it_holds_the_unrolls_with_the_largest_keys(seed: int) -> None:
    place = replace(place_of(vector_layout(core_state={})), rng=np.random.default_rng(seed))
    keys = np.random.default_rng(seed)  # the same keys; nothing is drawn meanwhile
    twin = Twin(place.store.layout, np.random.default_rng(seed))
    sampler, offered = Reservoir(place, 7), []
    for _ in range(25):
        for s in range(3):
            grow(place.store, twin, s, 5)
        assert sampler.ready(1)
        offered += [(keys.random(), s, int(place.store.head[s]) - 5) for s in range(3)]
        inside = sampler._copies.choose(np.flatnonzero(sampler._copies.slots.stamp))
        best = {(s, row) for _, s, row in sorted(offered)[-7:]}
        assert set(zip(inside.stream.tolist(), inside.row.tolist(), strict=True)) == best
    assert sampler.stats() == {"reservoir_unrolls_3": 7.0, "reservoir_seen_3": 75.0, "reservoir_missed_3": 0.0}


def test_every_unroll_ever_is_as_likely_to_be_in_it_and_drawn() -> None:
    runs, unrolls, slots = 600, 24, 6
    place = place_of(vector_layout(core_state={}, num_streams=2, capacity=60, block=60))
    twin = Twin(place.store.layout, np.random.default_rng(0))
    for s in range(2):
        grow(place.store, twin, s, 60)
    counts, drawn = np.zeros((2, 12)), np.zeros(slots)
    for seed in range(runs):
        sampler = Reservoir(replace(place, rng=np.random.default_rng(seed)), slots)
        chosen = sampler.select(4)
        assert chosen is not None
        drawn += np.bincount(chosen.slot, minlength=slots)
        inside = sampler._copies.choose(np.arange(slots))
        counts[inside.stream, inside.row // 5] += 1
    expected = runs * slots / unrolls
    chi_square = ((counts - expected) ** 2 / (expected * (1 - slots / unrolls))).sum()
    assert chi_square < unrolls + 4 * (2 * unrolls) ** 0.5, counts
    assert ((drawn - runs * 4 / slots) ** 2 / (runs * 4 / slots)).sum() < 5 + 4 * 10**0.5, drawn


def test_what_it_gives_long_after_is_what_was_appended() -> None:
    config = ReplayConfig(0, BESIDE)
    store, twin, mixture = build(config)
    reader, old = TwinReader(twin, True), 0
    waiting = mixture.missing()
    assert waiting.startswith("45 rows in the reservoir; 0 are")
    for _ in range(60):
        fill(store, twin)
        batch = mixture.sample()
        if batch is None:
            continue
        assert batch.replayed is not None and batch.replayed.tolist() == [False, False, True, True]
        for b in (2, 3):
            s, t = int(batch.stream[b]), int(batch.row[b])
            old += t < store.head[s] - store.layout.capacity
            rows = [reader.row(s, t + i) for i in range(6)]
            assert batch.reward[:, b].tolist() == [row["reward"] for row in rows[:-1] if row]
            seen = np.array([row["seen"]["observation"] for row in rows if row])
            assert np.array_equal(batch.inputs.observation["observation"][:, b].numpy(), seen)
        mixture.done(batch)
    store.check_ledger()
    assert old > 20, "rows that the streams have no more"
    assert mixture.stats()["reservoir_missed_1"] == 0, "beside a fifo nothing is overwritten unseen"
    assert mixture.stats()["reservoir_seen_1"] >= store.head.sum() // 5 - 3
    assert mixture.stats()["skipped_unrolls"] > 0, "the fifo went on until there were min_rows"


def test_going_on_from_a_saved_state_is_going_on() -> None:
    config = ReplayConfig(0, BESIDE)
    store, twin, mixture = build(config)

    def batches(one: Mixture, memory: StreamStore, count: int) -> list[dict[str, torch.Tensor]]:
        got = []
        while len(got) < count:
            fill(memory, twin)
            if (batch := one.sample()) is not None:
                one.done(batch)
                got.append(columns_of(batch))
        return got

    batches(mixture, store, 8)
    fill(store, twin)
    other = StreamStore.allocate(store.layout)
    again = make_mixture(other, config, 4, True, 99)
    other.load_state(store.state())
    again.load_state(mixture.state())
    for _ in range(6):
        one, two = mixture.sample(), again.sample()
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            mine, theirs = columns_of(one), columns_of(two)
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name, value in mixture.state().items():
        assert np.array_equal(value, again.state()[name]), name


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 4}, r"samplers\.0: size=4 is less than an unroll of 5 rows; keep 5 or more"),
        ({"size": 50, "min_rows": 51}, r"samplers\.0: min_rows=51 is more than the 50 rows that it keeps \(size\)"),
    ],
)
def test_sizes_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    config = ReplayConfig(900, (sampler_config("reservoir", **options),))
    layout = layout_for(SPEC, {}, {}, num_streams=3, replay=config, unroll_length=5)
    with pytest.raises(ValueError, match=says):
        check_mixture(layout, config, 4, True)


def test_its_memory_is_known_beforehand() -> None:
    layouts = {}
    for size in (0, 100, 200):
        config = ReplayConfig(900, (sampler_config("reservoir", size=size),))
        layout = layout_for(SPEC, {}, {}, num_streams=3, replay=config, unroll_length=5)
        layouts[size] = copies_nbytes(config, layout)
        check_mixture(layout, config, 4, True)
    assert layouts[200] == 2 * layouts[100] == 40 * layouts[100] // 20
    assert layouts[0] == layouts[100] * layout.capacity * 3 // 5 // 20
    assert copies_nbytes(ReplayConfig(900, (sampler_config("uniform"),)), layout) == 0

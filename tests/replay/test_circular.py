"""The circular buffer: a naive twin that makes the same picks, the ledger, what is new in a batch, going on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.circular import Circular
from offbeat.replay.columns import columns_of
from offbeat.replay.make import check_replay, copies_nbytes, make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import UNROLL, ItemSpec, Unroll
from tests.replay.test_fifo import grow
from tests.replay.test_mixture import build, fill
from tests.replay.twin import Twin, TwinReader

PARTS = ("trained", "pending", "skipped", "lost")


def config_of(count: int = 2, **options: Any) -> ReplayConfig:
    """``count`` of four unrolls of a batch from the buffer, the others uniformly."""
    options = {"batches": 3, "uses": 2} | options
    if count == 4:
        return ReplayConfig(90, (sampler_config("circular", **options),))
    half = sampler_config("uniform", share=1 - count / 4)
    return ReplayConfig(90, (sampler_config("circular", share=count / 4, **options), half))


@dataclass
class NaiveBuffer:
    """What should lie in the buffer: a list per place of names, uses and age."""

    places: int
    most: int
    rng: np.random.Generator
    kept: dict[int, tuple[int, int, list[tuple[int, int]]]] = field(default_factory=dict)  # place -> age, uses, names
    next: dict[int, int] = field(default_factory=dict)  # stream -> its next unroll's first row
    taken: int = 0
    skipped: int = 0

    def draw(self, heads: list[int], count: int) -> tuple[list[tuple[int, int]], bool] | None:
        """The names that are drawn, and whether they were before."""
        self.kept = {place: one for place, one in self.kept.items() if one[1] < self.most}
        ready = sorted((self.next.get(s, 0), s) for s in range(3) if heads[s] >= self.next.get(s, 0) + 5)
        if len(ready) >= count:
            free = [place for place in range(self.places) if place not in self.kept]
            oldest = min(self.kept, key=lambda place: self.kept[place][0], default=0)
            place = free[0] if free else oldest
            if not free and self.kept[place][1] == 0:
                self.skipped += count
            self.taken += 1
            self.kept[place] = (self.taken, 0, [(s, row) for row, s in ready[:count]])
            self.next |= {s: row + 5 for row, s in ready[:count]}
        if not self.kept:
            return None
        live = sorted(self.kept)
        place = live[int(self.rng.integers(len(live)))]
        age, uses, names = self.kept[place]
        self.kept[place] = (age, uses + 1, names)
        return names, uses > 0


def names(batch: Unroll, b: slice) -> list[tuple[int, int]]:
    return list(zip(batch.stream[b].tolist(), batch.row[b].tolist(), strict=True))


@pytest.mark.parametrize(
    ("batches", "uses", "greed"), [(3, 2, 0.7), (1, 3, 0.7), (2, 1, 0.5), (4, 5, 0.2), (3, 3, 0.1)]
)
def test_it_does_what_its_naive_twin_does_and_every_row_is_accounted_for(batches: int, uses: int, greed: float) -> None:
    config = config_of(batches=batches, uses=uses)
    store, twin, mixture = build(config)
    naive = NaiveBuffer(batches, uses, np.random.default_rng(np.random.SeedSequence(0).spawn(2)[0]))
    rng, reader, waiting = np.random.default_rng(batches), TwinReader(twin, True), list[Unroll]()
    seen: dict[tuple[int, int], int] = {}
    fresh = np.zeros(2, np.int64)
    old = ready = 0
    for _ in range(300):
        s = int(rng.integers(3))
        if store.room(np.array([s]))[0] >= 5 and rng.random() < 0.6:
            grow(store, twin, s, 5)
        if rng.random() < greed:
            ready += mixture.ready()
            is_ready = mixture.samplers[0].ready(2)
            batch = mixture.sample() if mixture.ready() else None
            if batch is None:
                assert not is_ready or not mixture.samplers[1].ready(2)
                continue
            drawn = naive.draw(store.head.tolist(), 2)
            assert drawn is not None
            assert names(batch, slice(2)) == drawn[0]
            assert batch.replayed is not None
            assert batch.replayed.tolist() == [drawn[1], drawn[1], True, True]
            rows = [[reader.row(s, t + i) for i in range(6)] for s, t in drawn[0]]
            for b, want in enumerate(rows):
                assert batch.reward[:, b].tolist() == [row["reward"] for row in want[:-1] if row]
                stack = np.array([row["seen"]["observation"] for row in want if row])
                assert np.array_equal(batch.inputs.observation["observation"][:, b].numpy(), stack)
            old += sum(t < store.head[s] - store.layout.capacity for s, t in drawn[0])
            new = [row for want in rows for row in want[:-1] if row and row["valid"]] if not drawn[1] else []
            assert batch.fresh == (len(new), sum(row["elapsed"] for row in new))
            fresh += batch.fresh
            for name in drawn[0]:
                seen[name] = seen.get(name, 0) + 1
            waiting.append(batch)
        while waiting and rng.random() < 0.6:
            (mixture.done if rng.random() < 0.9 else mixture.skip)(waiting.pop(int(rng.integers(len(waiting)))))
        store.check_ledger()
    assert max(seen.values()) <= uses
    assert uses == 1 or max(seen.values()) > 1
    counts = store.ledger()
    assert counts["produced"] == sum(counts[f"fifo0/{name}"] for name in PARTS)
    assert counts["fifo0/trained"] > 100
    assert naive.skipped * 5 <= counts["fifo0/skipped"]
    assert mixture.stats()["circular_unused_0"] == naive.skipped / 2
    assert ready > 10


def test_all_that_go_unused_are_skipped_and_old_batches_outlive_their_rows() -> None:
    store, twin, mixture = build(config_of(batches=8, uses=4))
    old, unused = 0, 0.0
    for _ in range(80):
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None
        old += int((batch.row[:2].numpy() < store.head[batch.stream[:2].numpy()] - store.layout.capacity).sum())
        mixture.done(batch)
        unused = mixture.stats()["circular_unused_0"]
    assert unused > 5, "each draw brings a new batch, and one of eight is drawn"
    assert store.ledger()["fifo0/skipped"] == 5 * 2 * unused
    assert old > 0
    store.check_ledger()


def test_any_batch_at_hand_is_as_likely_as_any_other() -> None:
    store, twin, mixture = build(config_of(4, batches=3, uses=1000), batch_size=2)
    buffer = mixture.samplers[0]
    assert isinstance(buffer, Circular)
    for _ in range(3):
        fill(store, twin)
        assert buffer.select(2) is not None
    buffer.skip_older(None)  # no new ones
    slots = np.zeros(3)
    for _ in range(900):
        chosen = buffer.select(2)
        assert chosen is not None
        slots[chosen.slot[0] // 2] += 1
    assert ((slots - 300) ** 2 / 300).sum() < 2 + 4 * 2, slots


def test_batches_with_unrolls_that_are_too_old_go() -> None:
    config = config_of(4, batches=3, uses=9)
    store, twin, mixture = build(config, batch_size=2)
    fill(store, twin)
    store.arrays["param_version"][...] = 3
    one = mixture.sample(min_version=3)
    assert one is not None and not one.replayed.any()  # type: ignore[union-attr]
    mixture.done(one)
    for _ in range(3):
        again = mixture.sample(min_version=3)
        assert again is not None
        mixture.done(again)
    assert mixture.sample(min_version=4) is None
    assert mixture.missing().startswith("unrolls acted with weights of version 4 or newer; the newest has 3")
    counts = store.ledger()
    assert counts["fifo0/pending"] == counts["produced"] - counts["fifo0/trained"] - counts["fifo0/skipped"]
    store.check_ledger()


def batches(mixture: Mixture, store: StreamStore, twin: Twin, count: int) -> list[dict[str, torch.Tensor]]:
    got = []
    for _ in range(count):
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None
        mixture.done(batch)
        got.append(columns_of(batch))
    return got


@pytest.mark.parametrize("more", [0, 1])
def test_going_on_from_a_saved_state_is_going_on(more: int) -> None:
    config = config_of(batches=5, uses=3)
    store, twin, mixture = build(config)
    batches(mixture, store, twin, 8)
    for _ in range(more):
        assert mixture.sample() is not None, "one that is handed out and lost"
    other = StreamStore.allocate(store.layout)
    again = make_mixture(other, config, 4, True, 99)
    other.load_state(store.state())
    again.load_state(mixture.state())
    if not more:
        for name in ("cursor/trained", "cursor/skipped", "cursor/in_flight", "cursor/row", "cursor/taken"):
            assert np.array_equal(store.arrays[name], other.arrays[name]), name
        assert store.arrays["cursor/in_flight"].any()
    for _ in range(4):
        one, two = mixture.sample(), again.sample()
        assert one is not None and two is not None
        mixture.done(one)
        again.done(two)
        mine, theirs = columns_of(one), columns_of(two)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert one.fresh == two.fresh
        other.check_ledger()
    for name, value in mixture.state().items():
        assert np.array_equal(value, again.state()[name]), name


def test_beside_a_fifo_each_counts_its_own_and_new_rows_count_once() -> None:
    config = ReplayConfig(0, (sampler_config("circular", share=0.5), sampler_config("fifo", share=0.5)))
    store, twin, mixture = build(config)
    total = 0
    for _ in range(30):
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None and batch.replayed is not None
        assert not batch.replayed[2:].any()
        assert bool(batch.replayed[0]) == (batch.fresh == (0, 0))
        total += batch.fresh[0]
        mixture.done(batch)
        store.check_ledger()
    counts = store.ledger()
    assert counts["fifo1/trained"] == 300
    assert counts["fifo0/trained"] < 300
    assert 0 < total <= counts["fifo0/trained"]


def test_sizes_and_agents_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match=r"samplers\.0: a batch takes 4 unrolls from the fifo"):
        build(config_of(4))
    with pytest.raises(ValueError, match="circular with batches=0, uses=2; both must be at least 1"):
        build(config_of(batches=0))
    carried = ItemSpec("unroll", consecutive=True)
    with pytest.raises(ValueError, match="once; circular gives them more than once"):
        check_replay(carried, config_of(4), "mine")
    with pytest.raises(ValueError, match="samples_per_insert=2 has no effect beside a circular, which takes each row"):
        check_replay(UNROLL, ReplayConfig(90, config_of(4).samplers, samples_per_insert=2.0), "mine")
    with pytest.raises(ValueError, match="a circular with share 0"):
        build(ReplayConfig(90, (sampler_config("circular", share=0.0), sampler_config("uniform"))))
    store, _, _ = build(config_of(batches=3))
    assert copies_nbytes(config_of(batches=6), store.layout) == 2 * copies_nbytes(config_of(batches=3), store.layout)

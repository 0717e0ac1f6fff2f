"""Prioritised replay against a naive twin: a dictionary of items, each looked for anew, in plain loops."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from offbeat.algorithms.returns import rescale, unrescale
from offbeat.replay.items import ItemSpec, read_items
from offbeat.replay.prioritised import Draw, Prioritised
from offbeat.replay.streams import StreamStore
from tests.replay.episodes import Episodes, item_layout, write
from tests.replay.test_readers import operate
from tests.replay.twin import Row, Twin

SEQUENCE = ItemSpec("sequence", n=2, length=4, burn_in=2, period=4, eta=0.8, rescale=1e-3)


class BrokenTwin(Twin):
    """A twin whose actors sometimes see a value that is no number."""

    def step(self, s: int) -> None:
        super().step(s)
        if self.rng.random() < 0.05:
            self.streams[s].hand[-1]["extras/q_max"] = np.float32(self.rng.choice([np.nan, np.inf]))


class NaiveSampler:
    """What ``Prioritised`` must hold, worked out from the twin's rows."""

    def __init__(self, twin: Twin, items: ItemSpec, window: int, margin: int, from_actor: bool) -> None:
        self.twin, self.items, self.window, self.margin, self.from_actor = twin, items, window, margin, from_actor
        self.priority: dict[tuple[int, int], float] = {}
        self.highest, self.rejected, self.dropped = 1.0, 0, 0

    def sync(self) -> None:
        alive = {}
        for s, stream in enumerate(self.twin.streams):
            head = len(stream.rows)
            for t in range(max(0, head - self.window + self.margin), head):
                if self.is_item(stream.rows, t):
                    known = (s, t) in self.priority
                    alive[s, t] = self.priority[s, t] if known else self.initial(stream.rows, t)
        self.priority = alive

    def is_item(self, rows: list[Row], t: int) -> bool:
        if not rows[t]["valid"] or rows[t]["age"] % self.items.period:
            return False
        for i in range(1, 1 + (self.items.n + self.items.length if self.items.kind == "sequence" else self.items.n)):
            if t + i == len(rows):
                return False
            if not rows[t + i]["valid"]:
                return True
        return True

    def initial(self, rows: list[Row], t: int) -> float:
        if not self.from_actor:
            return self.highest
        errors = []
        for i in range(self.items.length if self.items.kind == "sequence" else 1):
            if not rows[t + i]["valid"]:
                break
            errors.append(abs(self.target(rows, t + i) - float(rows[t + i]["extras/q"])))
        if not all(math.isfinite(error) for error in errors):
            self.rejected += 1
            return 0.0
        eta = self.items.eta if self.items.kind == "sequence" else 1.0
        return eta * max(errors) + (1 - eta) * sum(errors) / len(errors)

    def target(self, rows: list[Row], t: int) -> float:
        epsilon, value, factor, ahead = self.items.rescale, 0.0, 1.0, 0
        while ahead < self.items.n and rows[t + ahead]["valid"]:
            value += factor * float(rows[t + ahead]["reward"])
            factor *= float(rows[t + ahead]["discount"])
            ahead += 1
            if rows[t + ahead - 1]["terminated"]:
                break
        else:
            bootstrap = torch.tensor(float(rows[t + ahead]["extras/q_max"]), dtype=torch.float64)
            value += factor * float(bootstrap if epsilon < 0 else unrescale(bootstrap, epsilon))
        return value if epsilon < 0 else float(rescale(torch.tensor(value, dtype=torch.float64), epsilon))

    def update(self, stream: np.ndarray, row: np.ndarray, priority: np.ndarray) -> None:
        highest = self.highest
        for s, t, value in zip(stream.tolist(), row.tolist(), priority.tolist()):
            if (s, t) in self.priority:
                self.priority[s, t] = value
                highest = max(highest, value)
            else:
                self.dropped += 1
        self.highest = highest


def check(sampler: Prioritised, naive: NaiveSampler, ring: int) -> np.ndarray:
    """The same items with the same weights, and the same counts; the weights."""
    want = np.zeros(sampler.tree.size)
    for (s, t), priority in naive.priority.items():
        want[s * ring + t % ring] = max(priority, sampler.floor) ** sampler.alpha
    np.testing.assert_array_equal(sampler.tree.leaves > 0, want > 0)
    np.testing.assert_allclose(sampler.tree.leaves, want, rtol=1e-9)
    assert sampler.size == len(naive.priority)
    assert (sampler.rejected, sampler.dropped_updates) == (naive.rejected, naive.dropped)
    return want


@pytest.mark.parametrize("from_actor", [False, True])
@pytest.mark.parametrize(
    ("items", "alpha", "window_rows"),
    [
        (ItemSpec(n=1), 0.6, 0),
        (ItemSpec(n=3), 1.0, 90),
        (ItemSpec(n=5), 0.0, 0),
        (SEQUENCE, 0.9, 0),
        (SEQUENCE, 0.6, 100),
    ],
    ids=["n1", "n3-window", "n5-uniform", "sequence", "sequence-window"],
)
def test_equals_its_naive_twin_under_random_operations(
    items: ItemSpec, alpha: float, window_rows: int, from_actor: bool
) -> None:
    rng = np.random.default_rng([items.n, window_rows, from_actor])
    layout = item_layout(items, num_streams=3, capacity=60)
    store, twin = StreamStore.allocate(layout), BrokenTwin(layout, rng, end=0.06)

    def make(seed: int) -> Prioritised:
        own = np.random.default_rng(seed)
        return Prioritised(
            store, items, own, alpha=alpha, floor=1e-3, window_rows=window_rows, last=True, from_actor=from_actor
        )

    sampler = make(0)
    margin = items.burn_in + 1 + layout.block  # history: the last action
    naive = NaiveSampler(twin, items, -(-window_rows // 3) or 60, margin, from_actor)
    draws: list[Draw] = []
    updated = 0
    for turn in range(150):
        for _ in range(rng.integers(0, 4)):
            operate(store, twin, rng)
        naive.sync()
        draw = sampler.select(6)
        want = check(sampler, naive, layout.ring)
        assert (draw is None) == (not naive.priority)
        if draw is not None:
            assert draw.size == len(naive.priority)
            assert set(zip(draw.stream.tolist(), draw.row.tolist())) <= naive.priority.keys()
            leaf = draw.stream * layout.ring + draw.row % layout.ring
            np.testing.assert_allclose(draw.probability, want[leaf] / want.sum(), rtol=1e-9)
            _, ok = read_items(store, items, draw.stream, draw.row, last=True, source=draw.source)
            assert ok.all()
            draws = [*draws[-9:], draw]
        if draws and rng.random() < 0.7:
            old = draws[rng.integers(len(draws))]
            new = rng.exponential(3, 6) * (rng.random(6) < 0.8)
            sampler.update(old.stream, old.row, new)
            naive.update(old.stream, old.row, new)
            updated += 1
            check(sampler, naive, layout.ring)
        if turn % 40 == 20:
            again = make(turn)
            again.load_state({name: values.copy() for name, values in sampler.state().items()})
            sampler = again
    assert (store.head > 2 * layout.ring).all()
    assert updated > 50
    assert naive.dropped > 20
    assert (naive.rejected > 5) == from_actor
    assert naive.highest > 5


def test_items_stay_readable_while_one_more_block_arrives() -> None:
    for items in (ItemSpec(n=2), SEQUENCE):
        rng = np.random.default_rng(0)
        layout = item_layout(items, num_streams=2, capacity=40, frame_stack=3, stacked=("observation",))
        store = StreamStore.allocate(layout)
        episodes = Episodes(store, lambda rng=rng: int(rng.integers(1, 30)))
        sampler = Prioritised(store, items, rng, alpha=1.0, last=True)
        expired = 0
        for _ in range(60):
            episodes.round()
            sampler.sync()
            stream, at = np.divmod(np.flatnonzero(sampler.tree.leaves), layout.ring)
            row = store.head[stream] - 1 - (store.head[stream] - 1 - at) % layout.ring
            for _ in range(2):
                _, ok = read_items(store, items, stream, row, last=True, source=np.zeros_like(row))
                assert ok.all()
                episodes.round()
            _, ok = read_items(store, items, stream, row, last=True, source=np.zeros_like(row))
            expired += int((~ok).sum())
        assert expired > 60


def test_draws_are_in_proportion_to_weights() -> None:
    """Pearson's statistic of 16 items, 15 degrees of freedom: above 37.697 once in 1,000 times."""
    items, count = ItemSpec(n=1), 12_000
    priority = np.random.default_rng(1).exponential(1.0, 16) + 0.05
    for alpha in (0.6, 0.0):
        sampler = Prioritised(write(items, 16), items, np.random.default_rng(2), alpha=alpha)
        sampler.sync()
        sampler.update(np.zeros(16, np.int64), np.arange(16), priority)
        weight = priority**alpha
        expected = count * weight / weight.sum()
        rows = np.zeros(count, np.int64)
        for i in range(count):  # one at a time: draws of one batch are stratified, so not independent
            draw = sampler.select(1)
            assert draw is not None
            rows[i] = draw.row[0]
            assert draw.probability[0] == pytest.approx(weight[draw.row[0]] / weight.sum(), rel=1e-12)
        statistic = ((np.bincount(rows, minlength=16) - expected) ** 2 / expected).sum()
        assert statistic < 37.697
        other = priority**0.3
        wrong = count * other / other.sum()
        assert ((np.bincount(rows, minlength=16) - wrong) ** 2 / wrong).sum() > 100  # the test could fail


def test_new_items_weigh_as_much_as_the_largest_that_came_back() -> None:
    items = ItemSpec(n=1)
    store = StreamStore.allocate(item_layout(items, capacity=60))
    episodes = Episodes(store, lambda: 1000)
    sampler = Prioritised(store, items, np.random.default_rng(0), alpha=0.5)
    episodes.append(0, 6)
    sampler.sync()
    assert sampler.tree.leaves[:6].tolist() == [1, 1, 1, 1, 1, 0]
    sampler.update(np.zeros(2, np.int64), np.array([1, 2]), np.array([9.0, 0.25]))
    episodes.append(0, 2)
    sampler.sync()
    assert sampler.tree.leaves[:8].tolist() == [1, 3, 0.5, 1, 1, 3, 3, 0]
    episodes.append(0, 100)
    sampler.sync()
    sampler.update(np.zeros(2, np.int64), np.array([1, 2]), np.array([1e6, 1e6]))  # gone: says nothing
    assert sampler.dropped_updates == 2
    assert set(sampler.tree.leaves.tolist()) == {0.0, 3.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-9])
def test_priorities_that_cannot_be_are_refused_and_change_nothing(value: float) -> None:
    items = ItemSpec(n=1)
    sampler = Prioritised(write(items, 20), items, np.random.default_rng(0), alpha=0.6)
    sampler.sync()
    before = copy.deepcopy(sampler.state())
    with pytest.raises(ValueError, match=f"expected finite and at least 0, got {value} for row 7 of stream 0"):
        sampler.update(np.zeros(3, np.int64), np.array([5, 7, 9]), np.array([3.0, value, 4.0]))
    after = sampler.state()
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_priority_of_zero_can_still_be_drawn_unless_the_floor_is_zero() -> None:
    items = ItemSpec(n=1)
    for floor, size in ((1e-6, 20), (0.0, 19)):
        sampler = Prioritised(write(items, 20), items, np.random.default_rng(0), alpha=0.6, floor=floor)
        sampler.sync()
        sampler.update(np.zeros(1, np.int64), np.array([3]), np.array([0.0]))
        assert sampler.size == size
        assert sampler.tree.leaves[3] == floor**0.6


def test_a_saved_sampler_goes_on_exactly() -> None:
    rng = np.random.default_rng(4)
    layout = item_layout(SEQUENCE, num_streams=2, capacity=60)
    stores = [StreamStore.allocate(layout), StreamStore.allocate(layout)]
    twin = Twin(layout, rng)
    samplers = [
        Prioritised(store, SEQUENCE, np.random.default_rng(seed), alpha=0.9, from_actor=True)
        for seed, store in enumerate(stores)
    ]

    def go_on(number: int) -> list[list[int]]:
        drawn = []
        for _ in range(25):
            blocks = []
            for s in range(2):
                while len(twin.streams[s].hand) < 5:
                    twin.step(s)
                blocks.append(twin.block([s], 5))
            priority = rng.exponential(1, 8)
            for store, sampler in list(zip(stores, samplers))[:number]:
                for block in blocks:
                    store.append(block)
                draw = sampler.select(8)
                if draw is not None:
                    drawn.append([*draw.stream.tolist(), *draw.row.tolist(), *draw.probability.tolist()])
                    sampler.update(draw.stream, draw.row, priority)
        return drawn

    assert go_on(1)
    stores[1].load_state(stores[0].state())
    samplers[1].load_state({name: values.copy() for name, values in samplers[0].state().items()})
    drawn = go_on(2)
    assert drawn[0::2] == drawn[1::2]
    assert len(drawn) == 50
    one, other = (sampler.state() for sampler in samplers)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_sizes_and_extras_that_cannot_work_are_refused() -> None:
    store = StreamStore.allocate(item_layout(SEQUENCE, num_streams=2, capacity=60, extras={}))
    with pytest.raises(ValueError, match="a window of 20 rows is 10 rows per stream, one item with its history needs"):
        Prioritised(store, SEQUENCE, np.random.default_rng(0), alpha=1.0, window_rows=20)
    with pytest.raises(ValueError, match="need the extras q and q_max, but rows have none"):
        Prioritised(store, SEQUENCE, np.random.default_rng(0), alpha=1.0, from_actor=True)

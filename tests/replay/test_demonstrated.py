"""Rows of a demonstration in batches: what is drawn, how often, what it weighs, and that it keeps no books of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offbeat.replay.demonstrated import Demonstrated, DemonstratedRows, DemonstrationsConfig, items_shown
from offbeat.replay.items import ItemSpec
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import ArraySpec, Transition
from tests.replay.episodes import Episodes, item_layout

GAMMA = 0.9


def rows_of(*lengths: int, shape: tuple[int, ...] = (3,)) -> DemonstratedRows:
    """Episodes of so many actions; observation (-1, episode, step), action the step, reward 1 + step; all terminate."""
    columns: dict[str, list[Any]] = {}
    for episode, length in enumerate(lengths):
        for step in range(length + 1):
            acts, last = step < length, step == length - 1
            row = {
                "observation/x": np.full(shape, 0.0) + np.resize([-1, episode, step], shape), "action": step * acts,
                "reward": (1 + step) * acts, "discount": GAMMA * (acts and not last), "terminated": last,
                "truncated": False, "first": step == 0, "valid": acts, "elapsed": int(acts),
            }  # fmt: skip
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return DemonstratedRows({name: np.stack(values) for name, values in columns.items()}, np.array(columns["valid"]))


def like(rows: DemonstratedRows, layout: Any) -> DemonstratedRows:
    """The same with the layout's keys and dtypes."""
    specs = layout.columns()
    key = next(name for name in specs if name.startswith("observation/"))
    named = {(key if name.startswith("observation/") else name): value for name, value in rows.columns.items()}
    return DemonstratedRows({name: value.astype(specs[name].dtype) for name, value in named.items()}, rows.usable)


def layout_of(n: int) -> Any:
    return replace(item_layout(ItemSpec("transition", n=n)), action=ArraySpec((), "int64"))


def shown(layout: Any, *lengths: int) -> DemonstratedRows:
    shape = next(iter(layout.observation.values())).shape
    return like(rows_of(*lengths, shape=shape), layout)


def naive(length: int, step: int, n: int) -> tuple[float, float, int]:
    """Reward, discount and steps of n steps from ``step`` in an episode of ``length`` actions."""
    total, factor, taken = 0.0, 1.0, 0
    for at in range(step, min(step + n, length)):
        total, taken = total + factor * (1 + at), taken + 1
        factor *= GAMMA if at < length - 1 else 0.0
    return total, factor, taken


@pytest.mark.parametrize("n", [1, 3])
def test_every_item_is_drawn_equally_often_and_says_what_happened(n: int):
    lengths, layout = (4, 1, 7), layout_of(n)
    sampler = Demonstrated(shown(layout, *lengths), layout, False, np.random.default_rng(0), 5)
    assert sampler.size == 12 and sampler.ready(99) and not sampler.missing(99)
    chosen = sampler.select(2400)
    batch, ok = sampler.read(chosen)
    assert isinstance(batch, Transition) and ok.all() and sampler.replayed(chosen).all()
    assert sampler.weights(chosen) is None and (batch.source == 5).all() and (batch.param_version == -1).all()
    starts = {}
    at = 0
    for length in lengths:
        starts |= {at + step: (length, step) for step in range(length)}
        at += length + 1
    counts = dict.fromkeys(starts, 0)
    for index, row in enumerate(batch.row.tolist()):
        counts[row] += 1
        reward, discount, taken = naive(*starts[row], n)
        assert batch.reward[index] == pytest.approx(reward) and int(batch.steps[index]) == taken
        assert batch.discount[index] == pytest.approx(discount)
    assert min(counts.values()) > 150 and max(counts.values()) < 250
    assert sampler.stats() == {"demonstration_items": 12.0, "demonstration_rows": 2400.0}


def test_nothing_is_learnt_across_a_row_that_did_not_happen_so():
    layout = layout_of(2)
    rows = shown(layout, 5)
    rows.usable[3] = False
    sampler = Demonstrated(rows, layout, False, np.random.default_rng(0), 0)
    assert set(sampler.select(300).row) == {0, 1, 4}  # those of two steps from 2 and from 3 pass through it


def test_other_rows_and_other_items_are_refused():
    layout = layout_of(1)
    rows, rng = shown(layout, 3), np.random.default_rng(0)
    wrong = DemonstratedRows(rows.columns | {"action": rows.columns["action"].astype(np.int32)}, rows.usable)
    with pytest.raises(ValueError, match=r"action: got int32\[\], allowed is int64\[\]"):
        Demonstrated(wrong, layout, False, rng, 0)
    with pytest.raises(ValueError, match=r"trains on sequences.*allowed are agents that train on transitions"):
        Demonstrated(rows, replace(layout, items=ItemSpec("sequence")), False, rng, 0)
    with pytest.raises(ValueError, match="no whole item of 1 steps"):
        Demonstrated(DemonstratedRows(rows.columns, rows.usable & False), layout, False, rng, 0)


def test_its_state_is_brought_back_for_the_same_demonstration_alone():
    layout = layout_of(1)
    one = Demonstrated(shown(layout, 9, 9), layout, False, np.random.default_rng(0), 0)
    one.select(5)
    other = Demonstrated(shown(layout, 9, 9), layout, False, np.random.default_rng(7), 0)
    other.load_state(one.state())
    assert np.array_equal(one.select(50).row, other.select(50).row) and one.stats() == other.stats()
    with pytest.raises(ValueError, match="another demonstration"):
        Demonstrated(shown(layout, 9, 8), layout, False, np.random.default_rng(0), 0).load_state(one.state())


def mixture_of(kind: str, share: float, pretrain: int = 0, tried: int = 0, spi: float = 0.0) -> Mixture:
    layout = layout_of(1)
    store = StreamStore.allocate(layout)
    config = ReplayConfig(samplers=(sampler_config(kind),), samples_per_insert=spi)
    options = DemonstrationsConfig("demo", pretrain, share)
    rows = shown(layout, 4, 4)
    return make_mixture(store, config, 8, False, 0, demonstrations=options, rows=rows, tried=tried)


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_its_share_of_each_batch_is_fixed_and_weighs_one(kind: str):
    mixture = mixture_of(kind, 0.25)
    assert mixture.sample() is None  # the others have nothing yet
    Episodes(mixture.store, lambda: 5).append(0, 40)
    for _ in range(20):
        batch = mixture.sample()
        assert batch is not None and batch.source.tolist() == [0] * 6 + [1] * 2
        assert batch.replayed is not None and batch.replayed.all()
        if kind == "prioritised":
            assert batch.weight is not None and (batch.weight[6:] == 1).all() and (batch.weight > 0).all()
            highest = np.arange(8.0) + 1  # what is found out of the demonstration's rows changes no priority
            mixture.feedback(batch.source.numpy(), batch.stream.numpy(), batch.row.numpy(), {"priority": highest})
            assert mixture.samplers[0]._highest <= 6.0  # type: ignore[attr-defined]
    assert mixture.stats()["demonstration_rows"] == 40.0


def test_pretraining_is_of_the_demonstration_alone_and_counts_in_no_rate():
    mixture = mixture_of("uniform", 0.25, pretrain=3, spi=1.0)
    for left in (2, 1, 0):
        assert mixture.ready() and mixture.missing().startswith("nothing")
        batch = mixture.sample()
        assert batch is not None and batch.source.tolist() == [1] * 8 and mixture.pretrain == left
        assert batch.replayed is not None and batch.replayed.all()
    assert mixture.sampled == 0 and mixture.sample() is None and not mixture.ready()
    assert mixture.stats()["demonstration_rows"] == 24.0
    Episodes(mixture.store, lambda: 5).append(0, 40)
    batch = mixture.sample()
    assert batch is not None and (batch.source == 1).sum() == 2 and mixture.sampled == 8
    assert mixture_of("uniform", 0.25, pretrain=3, tried=2).pretrain == 1
    assert mixture_of("uniform", 0.25, pretrain=3, tried=9).pretrain == 0
    none = mixture_of("uniform", 0.0, pretrain=1)
    assert none.sample() is not None
    Episodes(none.store, lambda: 5).append(0, 40)
    batch = none.sample()
    assert batch is not None and (batch.source == 0).all()


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 8), (1 / 32, 1), (31 / 32, 31)])
def test_shares_are_whole(share: float, count: int):
    assert items_shown(DemonstrationsConfig("x", 0, share), 32) == count
    for wrong in (0.3, 1.0, 1e-9):
        with pytest.raises(ValueError, match="must be a whole number, at least 1 and below 32"):
            items_shown(DemonstrationsConfig("x", 0, wrong), 32)

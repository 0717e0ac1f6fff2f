"""Samplers that take the place of others which died with their process: what goes on, is found anew, or is lost."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.circular import Circular
from offbeat.replay.items import ItemSpec
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.reservoir import Reservoir
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from tests.replay.episodes import Episodes, item_layout
from tests.replay.test_elite_insertion import sampler_of
from tests.replay.test_features import filled
from tests.replay.test_fifo import grow
from tests.replay.test_mixture import HALF, build, fill
from tests.replay.test_scoring import build as scored

BESIDE = (sampler_config("fifo", share=0.5), sampler_config("reservoir", share=0.5, size=60, min_rows=45))
CIRCULAR = (sampler_config("circular", share=0.5, batches=3, uses=2), sampler_config("uniform", share=0.5))
CONFIGS = {"half": HALF, "reservoir": ReplayConfig(90, BESIDE), "circular": ReplayConfig(90, CIRCULAR)}


def taking_over(store: StreamStore, mixture: Mixture, config: ReplayConfig) -> Mixture:
    """Another mixture in the place of this one, which has died."""
    store.settle_cursors()
    other = make_mixture(store, config, 4, True, 77)
    other.load_tallies({name: values.copy() for name, values in mixture.tallies().items()})
    return other


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("drawn", [False, True])
def test_every_row_comes_once_or_is_skipped_and_the_books_close(name: str, drawn: bool) -> None:
    store, twin, mixture = build(CONFIGS[name])
    given: list[tuple[int, int]] = []

    def train(mixture: Mixture, times: int) -> None:
        for _ in range(times):
            fill(store, twin)
            if (batch := mixture.sample()) is None:
                continue  # another sampler waits for its rows
            assert batch.replayed is not None
            new = ~batch.replayed
            given.extend(zip(batch.stream[new].tolist(), batch.row[new].tolist(), strict=True))
            mixture.done(batch)

    train(mixture, 20)
    if drawn:
        fill(store, twin)
        assert mixture.draw() is not None
    count = len(given)
    skipped = store.ledger()["fifo0/skipped"]
    other = taking_over(store, mixture, CONFIGS[name])
    store.check_ledger()
    assert store.ledger()["fifo0/skipped"] - skipped >= 10 * drawn
    assert (other.dropped, other.sampled, other.skipped) == (mixture.dropped, mixture.sampled, mixture.skipped)
    train(other, 20)
    store.check_ledger()
    assert len(set(given)) == len(given) > count > 0, "no row is handed out twice as a new one"


def test_a_reservoir_fills_with_what_the_streams_still_have() -> None:
    store, twin, mixture = build(ReplayConfig(90, BESIDE))
    for _ in range(30):
        fill(store, twin)
        if (batch := mixture.sample()) is not None:
            mixture.done(batch)
    before = mixture.samplers[1]
    other = taking_over(store, mixture, ReplayConfig(90, BESIDE)).samplers[1]
    assert isinstance(before, Reservoir) and isinstance(other, Reservoir)
    assert (other.offered, other._newcomers.missed) == (before.offered, before._newcomers.missed)
    left = int((store.head // 5 - -(-np.maximum(store.head - store.layout.capacity, 0) // 5)).sum())
    assert other.ready(1)
    missed = other._newcomers.missed - before._newcomers.missed
    assert other.offered + missed == before.offered + left
    assert missed <= 3, "the oldest of a stream, whose history is gone; not what expired long ago"


def test_a_circular_buffer_begins_empty_and_goes_on_counting() -> None:
    store, twin, mixture = build(CONFIGS["circular"])
    for _ in range(5):
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None
        mixture.done(batch)
    before, other = mixture.samplers[0], taking_over(store, mixture, CONFIGS["circular"]).samplers[0]
    assert isinstance(before, Circular) and isinstance(other, Circular)
    assert (other.taken, other.drawn, other.unused) == (before.taken, before.drawn, before.unused)
    assert not len(other._copies) and len(before._copies)


@pytest.mark.parametrize("from_actor", [False, True])
def test_a_tree_is_built_again_from_the_rows_and_counted(from_actor: bool) -> None:
    items = ItemSpec("transition", n=2)
    store = StreamStore.allocate(item_layout(items))
    episodes = Episodes(store, lambda: 9)

    def sampler() -> Prioritised:
        return Prioritised(store, items, np.random.default_rng(1), alpha=0.5, from_actor=from_actor)

    one, never = sampler(), sampler()
    for _ in range(3):
        episodes.round()
    drawn = one.select(6)
    assert drawn is not None
    one.update(drawn.stream, drawn.row, np.full(6, 50.0))
    other = sampler()
    other.load_tallies(one.tallies())
    other.sync()
    never.sync()
    assert other.stats()["rebuilt_priorities"] == other.tree.count == one.tree.count > 6
    scale = 1.0 if from_actor else 50**0.5
    np.testing.assert_allclose(other.tree.leaves, never.tree.leaves * scale)
    assert "rebuilt_priorities" not in one.stats() | never.stats()
    episodes.round()
    other.sync()
    assert other.rebuilt == one.tree.count, "those that came since are new ones"
    third = sampler()
    third.load_tallies(other.tallies())
    third.sync()
    assert third.rebuilt == other.rebuilt + third.tree.count


def test_what_anneals_by_draws_goes_on() -> None:
    one, place, twin, _ = scored()
    for s in range(3):
        for _ in range(4):
            grow(place.store, twin, s, 5)
    assert one.select(2) is not None and one.select(2) is not None
    other, *_ = scored()
    other.load_tallies(one.tallies())
    assert other.calls == one.calls == 2


def test_elite_insertion_begins_again_with_the_oldest_unrolls_that_are_there() -> None:
    place, twin, encode = filled(True, blocks=0)
    encode.weights = 1
    one = sampler_of(place)
    for _ in range(12):
        for s in range(3):
            grow(place.store, twin, s, 5)
        one.ready(1)
    other = sampler_of(place)
    other.load_tallies(one.tallies())
    assert (other.seen, other.scored, other._newcomers.missed) == (one.seen, one.scored, one._newcomers.missed)
    assert other.ready(1) and one.seen < other.seen < one.seen + 36
    assert other._newcomers.missed <= one._newcomers.missed + 3

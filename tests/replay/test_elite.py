"""Elite replay: distances between features now and when acted on, worked out row by row; in a mixture; going on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms import elite as formula
from offbeat.replay import elite
from offbeat.replay.columns import columns_of
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.scoring import Scored
from offbeat.replay.streams import StreamStore
from tests.replay.encoders import SmallEncode, drawn_by
from tests.replay.test_features import filled
from tests.replay.test_fifo import grow
from tests.replay.twin import Twin, TwinReader, image_layout

STEADY = {"multiplier": 5.0, "anneal_calls": 0}


@pytest.mark.parametrize("distance", ["ln_norm", "cosine", "kl"])
@pytest.mark.parametrize("core", [True, False])
def test_the_nearest_to_what_was_acted_are_chosen(distance: Any, core: bool) -> None:
    place, twin, encode = filled(core)
    reader = TwinReader(twin, True)
    names = [(s, t) for s in range(3) for t in range(0, 35, 5) if reader.unroll(s, t, 5) is not None]
    far = {}
    for s, t in names:
        x, y = encode.slowly(reader, s, t, 5), []
        for i in range(5):
            row: Any = reader.row(s, t + i)
            y.append(row["extras/behaviour_logits"])
        valid = [reader.row(s, t + i)["valid"] for i in range(5)]  # type: ignore[index]
        pair = [torch.tensor(np.array(each))[valid][None].double() for each in (x, y)]
        far[s, t] = float(formula.distance(distance, *pair, 2.0))
    config = elite.Config(distance=distance, strategy=1, **STEADY)
    sampler = elite.make(config, replace(place, rng=np.random.default_rng(9)))
    assert isinstance(sampler, Scored)
    drawn = drawn_by(np.random.default_rng(9), reader, place.store.head.tolist(), 20)
    got = sampler.select(4)
    assert got is not None
    chosen = list(zip(got.stream.tolist(), got.row.tolist(), strict=True))
    distinct = list(dict.fromkeys(drawn))
    assert chosen == formula.select(1, drawn, [far[name] for name in drawn], [1] * 20, 4)
    assert min(far[name] for name in distinct) == far[chosen[0]] < max(far[name] for name in distinct)
    at = sampler.books.enter(np.array([s for s, _ in chosen]), np.array([t for _, t in chosen]))
    assert sampler.books.values is not None
    assert np.allclose(sampler.books.values[at, 0], [far[name] for name in chosen], rtol=1e-4)


def mixture_of(
    seed: int, core: bool = True, kind: str = "elite", **options: Any
) -> tuple[StreamStore, Twin, Mixture, Any]:
    """Half of six unrolls from a fifo, half from a sampler that scores."""
    own = STEADY | {"min_rows": 40, "score_max_age": 6, "share": 0.5} | options
    config = ReplayConfig(120, (sampler_config("fifo", share=0.5), sampler_config(kind, **own)))
    place, twin, encode = filled(core, blocks=0, seed=seed)
    layout = replace(place.store.layout, num_cursors=1)
    store = StreamStore.allocate(layout)
    return store, twin, make_mixture(store, config, 6, True, seed, encode=encode), encode


def draws(
    store: StreamStore, twin: Twin, mixture: Mixture, encode: SmallEncode, count: int
) -> list[dict[str, torch.Tensor]]:
    """So many batches; the weights move with each."""
    got = []
    while len(got) < count:
        for s in range(3):
            while store.room(np.array([s]))[0] >= 5:
                grow(store, twin, s, 5)
        batch = mixture.sample()
        if batch is not None:
            assert batch.replayed is not None and batch.replayed.tolist() == [False] * 3 + [True] * 3
            mixture.done(batch)
            encode.weights += 1
            got.append(columns_of(batch))
            reader = TwinReader(twin, True)
            for b in range(6):
                rows = [reader.row(int(batch.stream[b]), int(batch.row[b]) + i) for i in range(5)]
                assert batch.reward[:, b].tolist() == [row["reward"] for row in rows if row]
    return got


@pytest.mark.parametrize("kind", ["elite", "attentive"])
@pytest.mark.parametrize("core", [True, False])
def test_in_a_mixture_it_goes_on_from_a_saved_state_as_if_never_interrupted(kind: str, core: bool) -> None:
    store, twin, mixture, encode = mixture_of(1, core, kind, strategy=3, score_rows=0 if core else 2)
    draws(store, twin, mixture, encode, 60)
    assert mixture.stats()["score_hits_1"] > 0
    other = StreamStore.allocate(store.layout)
    own = mixture.samplers[1]
    assert isinstance(own, Scored)
    config = ReplayConfig(120, (sampler_config("fifo", share=0.5), own.config))
    again = make_mixture(other, config, 6, True, 99, encode=encode)
    for s in range(3):
        while store.room(np.array([s]))[0] >= 5:
            grow(store, twin, s, 5)
    other.load_state(store.state())
    again.load_state(mixture.state())
    for _ in range(2):
        one, two = mixture.sample(), again.sample()
        assert one is not None and two is not None
        mine, theirs = columns_of(one), columns_of(two)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        encode.weights += 1
    for name, value in mixture.state().items():
        np.testing.assert_array_equal(value, again.state()[name], name)


def test_cached_scores_save_most_of_the_forwards() -> None:
    rows = []
    for age in (0, 50):
        store, twin, mixture, encode = mixture_of(2, score_max_age=age)
        draws(store, twin, mixture, encode, 60)
        rows.append(encode.rows)
    assert rows[1] < 0.6 * rows[0]


def test_agents_without_logits_are_refused() -> None:
    place, _, _ = filled(core=False, blocks=0)
    layout = replace(place.store.layout, extras={"behaviour_log_prob": image_layout().action})
    bare = replace(place, store=StreamStore.allocate(layout))
    with pytest.raises(ValueError, match="features='policy': rows need the logits that they were acted with"):
        elite.make(elite.Config(), bare)

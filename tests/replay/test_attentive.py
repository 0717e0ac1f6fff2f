"""Attentive replay: the query of the newest unroll, distances to it worked out row by row, features that are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms import elite as formula
from offbeat.replay import attentive
from offbeat.replay.attentive import Likeness
from offbeat.replay.features import Features
from offbeat.replay.scoring import Scored
from tests.replay.encoders import drawn_by
from tests.replay.test_features import filled
from tests.replay.test_fifo import grow
from tests.replay.twin import TwinReader


@pytest.mark.parametrize("distance", ["ln_norm", "cosine", "kl"])
@pytest.mark.parametrize("core", [True, False])
@pytest.mark.parametrize("age", [0, 10])
def test_the_nearest_to_the_newest_state_are_chosen(distance: Any, core: bool, age: int) -> None:
    place, twin, encode = filled(core)
    reader = TwinReader(twin, True)
    config = attentive.Config(distance=distance, strategy=1, multiplier=6.0, anneal_calls=0, score_max_age=age)
    sampler = attentive.make(config, replace(place, rng=np.random.default_rng(3)))
    assert isinstance(sampler, Scored)
    own = np.random.default_rng(3)
    for stream in (0, 1, 2, 2):  # all have grown before the first draw, then one, then another, then none
        drawn = drawn_by(own, reader, place.store.head.tolist(), 18)
        query = last_acted(reader, stream, int(place.store.head[stream]) - 5, encode)
        far = {}
        for s, t in drawn:
            valid = [reader.row(s, t + i)["valid"] for i in range(5)]  # type: ignore[index]
            x = torch.from_numpy(encode.slowly(reader, s, t, 5))[valid][None]
            far[s, t] = float(formula.distance(distance, x, torch.from_numpy(query).expand_as(x)))
        got = sampler.select(3)
        assert got is not None
        assert np.allclose(sampler.ruler.query.numpy(), query, rtol=1e-4, atol=1e-4)  # type: ignore[attr-defined]
        chosen = list(zip(got.stream.tolist(), got.row.tolist(), strict=True))
        assert chosen == formula.select(1, drawn, [far[name] for name in drawn], [1] * 18, 3)
        if stream < 2:
            grow(place.store, twin, stream + 1, 5)
        values = sampler.books.values
        assert values is not None and values.shape[1] == 5 * 3
    assert (sampler.hits > 0) == (age > 0)


def last_acted(reader: TwinReader, s: int, t: int, encode: Any) -> np.ndarray:
    """Features of the last row of an unroll that is a transition."""
    offset = max([i for i in range(5) if reader.row(s, t + i)["valid"]])  # type: ignore[index]
    slow: np.ndarray = encode.slowly(reader, s, t, 5)[offset]
    return slow


def test_streams_that_grew_take_turns_and_the_query_stays_where_none_did() -> None:
    place, twin, _ = filled(core=False)
    likeness = Likeness(place, Features(place, "policy", "ln_norm", 2.0, 0))
    picks = []
    for grown in ((), (), (0, 1, 2), (0, 1, 2), (0, 1, 2), (1,), (), (0, 2), (0,), (0,)):
        for s in grown:
            grow(place.store, twin, s, 5)
        likeness.begin()
        picks.append(likeness._stream)
    assert picks == [0, 0, 1, 2, 0, 1, 1, 2, 0, 0]


def test_with_one_score_row_the_query_may_still_be_another_row() -> None:
    place, twin, encode = filled(core=False, seed=4)
    reader = TwinReader(twin, True)
    likeness = Likeness(place, Features(place, "policy", "ln_norm", 2.0, 1))
    others = 0
    for _ in range(30):
        grow(place.store, twin, 0, 5)
        likeness.begin()
        t = int(place.store.head[0]) - 5
        if likeness._stream == 0:
            assert np.allclose(likeness.query.numpy(), last_acted(reader, 0, t, encode), rtol=1e-4, atol=1e-4)
            others += not reader.row(0, t + 4)["valid"]  # type: ignore[index]
    assert others > 0


def test_the_features_that_are_kept_are_counted_beforehand() -> None:
    place, _, _ = filled(core=False, blocks=0)
    layout = place.store.layout
    assert attentive.Config().nbytes(layout) == 0
    whole = attentive.Config(score_max_age=5).nbytes(layout)
    assert whole == 3 * layout.ring * 12
    assert attentive.Config(score_max_age=5, score_rows=1).nbytes(layout) == whole // 5

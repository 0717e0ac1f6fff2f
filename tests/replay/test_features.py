"""Features of stored unrolls: what a twin works out row by row, whichever rows count, however many at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay import features
from offbeat.replay.features import Features
from offbeat.replay.sampler import Place
from tests.replay.encoders import SmallEncode
from tests.replay.test_copies import place_of
from tests.replay.test_fifo import grow
from tests.replay.twin import Twin, TwinReader, dict_layout, image_layout


def filled(core: bool, blocks: int = 7, seed: int = 0) -> tuple[Place, Twin, SmallEncode]:
    """Three streams of so many unrolls of five rows."""
    layout = image_layout(capacity=30) if core else image_layout(capacity=30, core_state={})
    place = place_of(layout)
    encode = SmallEncode(core)
    place = replace(place, encode=encode)
    twin = Twin(place.store.layout, np.random.default_rng(seed))
    for _ in range(blocks):
        for s in range(3):
            grow(place.store, twin, s, 5)
    return place, twin, encode


@pytest.mark.parametrize("core", [True, False])
@pytest.mark.parametrize(("score_rows", "offsets"), [(0, [0, 1, 2, 3, 4]), (1, [4]), (2, [0, 4]), (3, [0, 2, 4])])
@pytest.mark.parametrize("most", [4096, 7])
def test_they_are_those_of_the_rows(
    core: bool, score_rows: int, offsets: list[int], most: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(features, "MOST_ROWS", most)
    place, twin, encode = filled(core)
    encode.weights = 2
    reader, found = TwinReader(twin, True), Features(place, "policy", "ln_norm", 2.0, score_rows)
    assert found.offsets.tolist() == offsets
    stream, row = np.array([0, 2, 1, 2, 0]), np.array([10, 30, 25, 15, 30])
    now, stored, ok, version = found.of(stream, row)
    assert ok.all() and version == 2
    assert now.shape == stored.shape == (5, len(offsets), 3)
    looked = 5 if core else len(offsets)
    assert encode.rows == 5 * looked
    assert encode.calls == (1 if most > 100 else -(-5 // max(1, 7 // looked)))
    lacking = 0
    for k in range(5):
        slow = encode.slowly(reader, int(stream[k]), int(row[k]), 5)
        for i, offset in enumerate(offsets):
            one: Any = reader.row(int(stream[k]), int(row[k]) + offset)
            lacking += not one["valid"]
            if one["valid"]:
                assert np.allclose(now[k, i].numpy(), slow[offset], rtol=1e-4, atol=1e-4)
                assert stored[k, i].tolist() == one["extras/behaviour_logits"].tolist()
            else:
                assert now[k, i].isnan().all() and stored[k, i].isnan().all()
    assert lacking > 0 or score_rows in (1, 2)


def test_rows_of_ones_own_choice_and_rows_that_are_gone() -> None:
    place, twin, encode = filled(core=False)
    found = Features(place, "policy", "kl", 2.0, 0)
    own = np.array([[1, 4], [2, 0], [3, 3]])
    now, _, ok, _ = found.of(np.array([0, 1]), np.array([20, 25]), own)
    slow = [encode.slowly(TwinReader(twin, True), s, row, 5) for s, row in ((0, 20), (1, 25))]
    for k in range(2):
        for i in range(3):
            assert now[k, i].isnan().all() or np.allclose(now[k, i].numpy(), slow[k][own[i, k]], rtol=1e-4, atol=1e-4)
    assert ok.tolist() == [True, True]
    assert found.of(np.array([0, 0]), np.array([0, 20]))[2].tolist() == [False, True]


def test_distances_leave_out_what_nobody_acted_on_and_what_is_forbidden() -> None:
    place, _, encode = filled(core=False)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    holes = x.clone()
    holes[:, 1] = torch.nan
    for name in ("ln_norm", "cosine", "kl"):
        found = Features(place, "policy", name, 3.0, 0)
        assert found.distances(holes, y).tolist() == pytest.approx(
            found.distances(x[:, [0, 2, 3]], y[:, [0, 2, 3]]).tolist()
        )
        masked = [torch.cat([each, torch.full((2, 4, 1), -1e30)], -1) for each in (x, y)]
        assert found.distances(*masked).tolist() == pytest.approx(found.distances(x, y).tolist()), name
    joint = Features(place, "policy", "kl", 2.0, 0)
    encode.components = (2, 1)
    pairs = joint.distances(x, y)
    encode.components = (3,)
    assert pairs.tolist() == pytest.approx(joint.distances(x[..., :2], y[..., :2]).tolist()), (
        "one choice of one is none"
    )
    assert not np.allclose(pairs, joint.distances(x, y))


def test_rows_that_lack_what_is_compared_are_refused() -> None:
    place = place_of(dict_layout())
    with pytest.raises(
        ValueError, match=r"features=.policy.: .*discrete actions store; for continuous actions use feat"
    ):
        Features(place, "policy", "kl", 2.0, 0)
    with pytest.raises(ValueError, match=r"agent\.store_features=true; rows have behaviour_log_prob, value"):
        Features(place, "torso", "kl", 2.0, 0)

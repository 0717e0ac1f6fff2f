"""Elite insertion: a naive twin that scores one unroll after the other, going on, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms import elite as formula
from offbeat.replay import elite_insertion
from offbeat.replay.columns import columns_of
from offbeat.replay.elite_insertion import EliteInsertion
from offbeat.replay.sampler import Place
from tests.replay.test_features import filled
from tests.replay.test_fifo import grow
from tests.replay.twin import TwinReader


def sampler_of(place: Place, seed: int = 3, **options: Any) -> EliteInsertion:
    """Eight unrolls of five rows, of which a newcomer looks at four."""
    config = elite_insertion.Config(**{"size": 40, "elite_batch_size": 4, "min_rows": 10} | options)
    made = elite_insertion.make(config, replace(place, rng=np.random.default_rng(seed)))
    assert isinstance(made, EliteInsertion)
    return made


def inside(sampler: EliteInsertion) -> list[tuple[int, int]]:
    """The names of what is in its slots."""
    kept = sampler._copies.choose(np.flatnonzero(sampler._copies.slots.stamp))
    return list(zip(kept.stream.tolist(), kept.row.tolist(), strict=True))


@pytest.mark.parametrize("core", [True, False])
@pytest.mark.parametrize("age", [0, 3])
@pytest.mark.parametrize("distance", ["ln_norm", "kl"])
def test_each_newcomer_replaces_the_farthest_of_some(core: bool, age: int, distance: Any) -> None:
    place, twin, encode = filled(core, blocks=0)
    sampler, own, reader = (
        sampler_of(place, distance=distance, score_max_age=age),
        np.random.default_rng(3),
        TwinReader(twin, True),
    )
    slots: list[tuple[int, int]] = []
    scores: dict[int, tuple[float, int]] = {}  # slot -> distance, weights

    def far(name: tuple[int, int]) -> float:
        valid = [reader.row(name[0], name[1] + i)["valid"] for i in range(5)]  # type: ignore[index]
        y = np.array([reader.row(name[0], name[1] + i)["extras/behaviour_logits"] for i in range(5)])  # type: ignore[index]
        pair = [torch.from_numpy(np.asarray(each, float))[valid][None] for each in (encode.slowly(reader, *name, 5), y)]
        return float(formula.distance(distance, *pair))

    replaced = 0
    for turn in range(40):
        encode.weights += turn % 2
        grown = [s for s in range(3) if (turn + s) % 2 or turn < 3]
        for s in grown:
            grow(place.store, twin, s, 5)
        assert sampler.ready(1) == (len(slots) + len(grown) >= 2)
        new = [(s, int(place.store.head[s]) - 5) for s in grown]
        free = 8 - len(slots)
        slots += new[:free]
        rest = new[free:] if free < len(new) else []
        draws = [own.choice(8, 4, replace=False).tolist() for _ in rest]
        for slot in {slot for drawn in draws for slot in drawn}:
            if slot not in scores or encode.weights - scores[slot][1] >= age:
                scores[slot] = far(slots[slot]), encode.weights
        for name, drawn in zip(rest, draws, strict=True):
            slot = max(drawn, key=lambda slot: scores[slot][0])
            slots[slot], scores[slot] = name, (far(name), encode.weights)
            replaced += 1
        assert inside(sampler) == slots
    assert replaced > 50
    assert min(row for _, row in slots) < place.store.head.min() - 35, "some have been there for long"
    drawn = sampler.select(200)
    assert drawn is not None and set(drawn.slot.tolist()) == set(range(8))
    batch, ok = sampler.read(drawn)
    assert ok.all()
    for b in range(20):
        rows = [reader.row(int(batch.stream[b]), int(batch.row[b]) + i) for i in range(5)]
        assert batch.reward[:, b].tolist() == [row["reward"] for row in rows if row]


def test_going_on_from_a_saved_state_is_going_on() -> None:
    place, twin, encode = filled(core=True, blocks=0)
    sampler = sampler_of(place, score_max_age=4)
    other = sampler_of(place, seed=8, score_max_age=4)
    for turn in range(30):
        encode.weights += 1
        for s in range(3):
            grow(place.store, twin, s, 5)
        if turn == 15:
            other.load_state(sampler.state())
        one = sampler.select(3)
        if turn >= 15:
            two = other.select(3)
            assert one is not None and two is not None
            mine, theirs = columns_of(sampler.read(one)[0]), columns_of(other.read(two)[0])
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name, value in sampler.state().items():
        np.testing.assert_array_equal(value, other.state()[name], name)
    assert sampler.stats() == other.stats()
    assert sampler.stats()["elite_seen_3"] == 90 and sampler.stats()["elite_missed_3"] == 0


def test_nothing_is_taken_in_before_there_are_weights_to_score_with() -> None:
    place, _, encode = filled(core=False, blocks=3)
    encode.published = False
    sampler = sampler_of(place)
    assert not sampler.ready(1) and sampler.missing(1).startswith("10 rows copied; 0 are")
    encode.published = True
    assert sampler.ready(1) and sampler.missing(1) == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 15}, "size=15 keeps 3 unrolls of 5 rows, fewer than elite_batch_size=4; keep 20 rows or more"),
        ({"min_rows": 41}, r"min_rows=41 is more than the 40 rows that it keeps \(size\)"),
        ({"score_rows": 6}, "score_rows=6 is more than the 5 rows of an unroll"),
        ({"p": 0.1}, "p=0.1 is out of range; allowed: 1 or above"),
        ({"elite_batch_size": 0}, "elite_batch_size=0 is out of range; allowed: 1 or above"),
        ({"features": "torso"}, "features='torso': rows need the features"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    place, _, _ = filled(core=False, blocks=0)
    with pytest.raises(ValueError, match=says):
        sampler_of(place, **options)


def test_its_memory_is_known_beforehand() -> None:
    place, _, _ = filled(core=False, blocks=0)
    layout = place.store.layout
    assert elite_insertion.Config(size=200).nbytes(layout) == 2 * elite_insertion.Config(size=100).nbytes(layout) > 0

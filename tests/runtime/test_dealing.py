"""Batches dealt to several learners: rounds, room, and who has which column."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.dealt import Dealt
from offbeat.runtime.dealing import ROUNDS, Deal, SharedDealing, owners


def columns(random: np.random.Generator, size: int, weighted: bool) -> Dealt:
    """Any columns."""
    source, stream, row = (random.integers(0, 9, size) for _ in range(3))
    return Dealt(source, stream, row, random.random(size) < 0.5, np.float32(random.random(size)) if weighted else None)


def test_random_rounds_reach_every_learner_whole() -> None:
    random = np.random.default_rng(3)
    shared = SharedDealing(5, 3, None)
    first, *others = [shared.end(learner) for learner in range(3)]
    dealt: list[Deal] = []
    read = [0, 0, 0]
    for _ in range(2000):
        if random.random() < 0.4 and first.has_room():
            found = columns(random, 5, bool(random.integers(2)))
            dealt.append(Deal(found, owners(found.stream, 3, bool(random.integers(2)))))
            assert first.deal(dealt[-1]) == len(dealt) - 1
        learner = int(random.integers(3))
        if read[learner] < first.dealt():
            got, wanted = [first, *others][learner].read(read[learner]), dealt[read[learner]]
            for name in ("source", "stream", "row", "replayed"):
                assert (getattr(got.columns, name) == getattr(wanted.columns, name)).all()
            assert (got.columns.weight is None) == (wanted.columns.weight is None)
            if wanted.columns.weight is not None:
                np.testing.assert_array_equal(got.columns.weight, wanted.columns.weight)
            assert (got.owner == wanted.owner).all()
            [first, *others][learner].copied(read[learner])
            read[learner] += 1
        assert first.has_room() == (len(dealt) - min(read) < ROUNDS)
        assert all(first.copied_by_all(number) == (number < min(read)) for number in range(len(dealt)))
    assert len(dealt) > 5 * ROUNDS
    shared.close()


def test_shares_are_a_partition_and_come_back_learner_by_learner() -> None:
    found = columns(np.random.default_rng(0), 11, True)
    deal = Deal(found, owners(found.stream, 4, False))
    shares = [deal.share(learner) for learner in range(4)]
    assert sorted(len(share) for share in shares) == [2, 3, 3, 3]
    np.testing.assert_array_equal(np.concatenate([share.row for share in shares]), deal.together().row)
    assert sorted(deal.together().row.tolist()) == sorted(found.row.tolist())


@pytest.mark.parametrize("learners", [2, 3])
def test_what_is_kept_for_each_stream_goes_to_the_same_learner_always(learners: int) -> None:
    stream = np.random.default_rng(0).integers(0, 40, 100)
    owner = owners(stream, learners, consecutive=True)
    assert all(len(set(owner[stream == one].tolist())) == 1 for one in set(stream.tolist()))
    assert set(owner.tolist()) == set(range(learners))

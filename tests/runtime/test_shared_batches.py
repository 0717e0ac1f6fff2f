"""Batches of learners that step together: shares of what the first draws, its books, rows that are let go in time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.mixture import ReplayConfig
from offbeat.runtime.dealing import SharedDealing
from offbeat.runtime.shared_batches import FollowingBatches, LeadingBatches
from offbeat.runtime.shm import Bell, Wait
from tests.runtime.test_batches import CPU, FIFO, LENGTH, MIXED, UNIFORM, Streams


class Two:
    """Two learners over the same streams."""

    def __init__(self, replay: ReplayConfig, prefetch: int = 2) -> None:
        self.streams = Streams(replay)
        self.shared = SharedDealing(2, 2, None)
        self.bells = [Bell(), Bell(), Bell()]
        self.over = False
        waits = [Wait(bell, lambda: self.over) for bell in (*self.bells, self.shared.bells[0])]
        self.first = LeadingBatches(
            self.streams.mixture, self.streams.store, CPU, dealing=self.shared.end(0), copies=waits[3],
            others=[self.bells[1]], wait=waits[0], prefetch=prefetch, frame_skip=4, writers=[self.bells[2]],
        )  # fmt: skip
        pacing = [index for index, sampler in enumerate(replay.samplers) if sampler.paces]
        self.other = FollowingBatches(
            self.streams.store, CPU, dealing=self.shared.end(1), last=True, pacing=pacing, wait=waits[1],
            first=self.shared.bells[0], prefetch=prefetch,
        )  # fmt: skip

    def grow(self, blocks: int = 1) -> None:
        """More rows, and the first hears of them."""
        self.streams.grow(blocks)
        self.bells[0].ring()

    def both(self) -> tuple[Any, Any]:
        """The shares of the next batch."""
        one, two = self.first.next(20.0), self.other.next(20.0)
        assert one is not None and two is not None
        return one, two

    def close(self) -> None:
        """End the threads."""
        self.over = True
        for bell in (*self.bells, *self.shared.bells):
            bell.ring()
        self.first.close()
        self.other.close()
        self.shared.close()


@pytest.mark.parametrize("replay", [FIFO, MIXED, UNIFORM])
def test_shares_are_what_one_learner_would_have_got(replay: ReplayConfig) -> None:
    two, alone = Two(replay), Streams(replay)
    two.grow(4), alone.grow(4)
    for _ in range(3):
        batch, shares = alone.mixture.sample(), two.both()
        assert batch is not None
        assert [len(share.stream) for share in shares] == [1, 1]
        for name in ("stream", "row", "source", "replayed", "reward", "valid"):
            joined = torch.cat([getattr(share, name) for share in shares], -1)
            torch.testing.assert_close(joined, getattr(batch, name), rtol=0, atol=0)
        fresh = np.add(shares[0].fresh, shares[1].fresh)
        assert tuple(fresh) == batch.fresh
    two.close()


def test_the_first_keeps_the_books_of_all_shares() -> None:
    two = Two(FIFO)
    two.grow(3)
    one, other = two.both()
    one.fresh = tuple(np.add(one.fresh, other.fresh))  # as the sum over all learners has it
    two.first.done(one)
    two.other.done(other)
    assert (two.first.steps(), two.first.frames()) == tuple(two.streams.counted(0, LENGTH) * (1, 4))
    assert two.streams.store.ledger()["fifo0/trained"] == 2 * LENGTH
    one, other = two.both()
    two.first.skip(one)
    assert two.streams.store.ledger()["fifo0/skipped"] == 2 * LENGTH
    two.close()


def test_writers_may_go_on_only_once_all_have_copied() -> None:
    two = Two(FIFO, prefetch=0)
    two.grow(4)
    room = two.streams.store.room(np.arange(2)).copy()
    drawn = two.first.draw(1.0)
    assert drawn is not None and two.first.copy(drawn) is not None
    letting = threading.Thread(target=two.first.release, args=(drawn,))
    letting.start()
    letting.join(0.1)
    assert letting.is_alive() and (two.streams.store.room(np.arange(2)) == room).all()
    assert two.other.next(1.0) is not None
    letting.join(20.0)
    assert not letting.is_alive() and (two.streams.store.room(np.arange(2)) > room).all()
    two.close()


def test_feedback_of_all_learners_reaches_the_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two(MIXED)
    two.grow(4)
    one, other = two.both()
    two.first.done(one)
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(two.streams.mixture, "feedback", lambda *found: told.append(found))
    two.first.feedback(one, {"priority": torch.tensor([50.0, 70.0], dtype=torch.float64)})
    ((source, stream, row, found),) = told
    for name, values in (("source", source), ("stream", stream), ("row", row)):
        assert values.tolist() == torch.cat([getattr(share, name) for share in (one, other)]).tolist()
    assert found["priority"].tolist() == [50, 70]
    two.close()

"""The mirror of a learner: always whole, also when its learner is killed while it writes; and what is lost by that."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime import mirror as module
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.learner_report import COUNTERS
from offbeat.runtime.mirror import SHARE, SOON_S, MirrorStore, SharedMirror
from offbeat.runtime.ports import Point

SIZE = 200_000

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def counters(updates: int) -> dict[str, int]:
    """Counters after so many updates, all different."""
    return {name: updates + 1000 * place for place, name in enumerate(COUNTERS)}


def part(value: int) -> dict[str, Any]:
    """A part of which all is ``value``, and which is the longer the greater that is."""
    return {
        "weights/w": torch.full((SIZE,), float(value)),
        "weights/half": torch.full((3,), float(value), dtype=torch.bfloat16),
        "trace/seen": torch.full((value, 2), value, dtype=torch.int64),
        "numbers": np.full(5, value, np.int32),
    }


def same(found: dict[str, Any], value: int) -> None:
    """It is ``part(value)``, dtypes included."""
    expected = part(value)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(*(torch.as_tensor(each).double().numpy() for each in (found[name], values)))


def keep(store: MirrorStore, value: int) -> None:
    """Keep a part, after so many updates."""
    store.tell(counters(value))
    store.keep(part(value), {"counts": np.array([value])})


def test_the_newest_copy_is_read_and_the_counters_of_now_go_on_above_all_that_was_seen() -> None:
    shared = SharedMirror(5)
    store = shared.end()
    assert not shared.filled()
    for value in (3, 1, 4):
        keep(store, value)
        kept = shared.read()
        same(kept.part, value)
        assert kept.tallies["counts"].tolist() == [value] and kept.counters == counters(value)
    assert shared.filled() and kept.part["weights/half"].dtype == torch.bfloat16
    store.tell(counters(7))
    assert shared.counted() == Point(7, 1007, 2007)
    assert shared.rebuild(Point(9, 1005, 2009)) == 5, "one update more was published than was told"
    assert shared.read().counters == counters(7) | {
        "updates": 10, "agent_steps": 1007, "frames": 2009, "bad_in_a_row": 0
    }  # fmt: skip
    keep(shared.end(), 10)
    shared.end().tell(counters(12))
    assert shared.rebuild(Point(11)) == 2, "what was lost before is not lost again"
    assert (shared.restarts, shared.lost_updates) == (2, 7)
    shared.close()


def test_it_is_due_after_so_many_updates_and_sooner_where_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    store = SharedMirror(5).end(clock)
    seen: list[int] = []
    for updates in range(1, 13):
        if store.tell(counters(updates)):
            store.keep(part(1), {})
            seen.append(updates)
    assert seen == [5, 10], "no time passes"
    clock.sleep(SOON_S / 2)
    assert not store.tell(counters(13))
    clock.sleep(SOON_S)
    assert store.tell(counters(13)), "it took no time"
    clock.sleep(2 * SOON_S)
    store.keep(part(1), {})
    clock.sleep(2 * SOON_S * SHARE - 1)
    assert not store.tell(counters(14)), "it took long"
    clock.sleep(2)
    assert store.tell(counters(14)) and not store.tell(counters(13)), "nothing is new without an update"


def die_while_writing(shared: SharedMirror, pieces_written: int) -> None:
    """Be killed when so many pieces of a copy are written."""

    def pieces(value: Any) -> Any:
        for number, piece in enumerate(whole(value)):
            if number == pieces_written:
                os.kill(os.getpid(), signal.SIGKILL)
            yield piece

    whole, module.pieces = module.pieces, pieces  # type: ignore[assignment]
    keep(shared.end(), 99)


@needs_fork
@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_a_copy_that_its_learner_was_killed_in_is_never_read(at: int) -> None:
    fork = multiprocessing.get_context("fork")
    shared = SharedMirror(5)
    for value in (2, 3):
        keep(shared.end(), value)
    killed = fork.Process(target=die_while_writing, args=(shared, at))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert shared.rebuild(Point(0)) == 96, "it had told of its update"
    same(shared.read().part, 3)
    keep(shared.end(), 4)
    same(shared.read().part, 4)
    shared.close()


def test_where_there_is_no_room_the_copy_before_stays_and_it_is_tried_again_later() -> None:
    shared = SharedMirror(5)
    store = shared.end()
    keep(store, 1)
    copies = store._copies

    class Full:
        def write(self, pieces: Any) -> int:
            raise OSError(28, "No space left on device")

    store._copies = (Full(), Full())  # type: ignore[assignment]
    keep(store, 6)
    assert "No space" in store.failed
    store._copies = copies
    same(shared.read().part, 1)
    assert not store.tell(counters(7)), "not at each update"
    assert store.tell(counters(11))
    store.keep(part(2), {})
    assert not store.failed
    same(shared.read().part, 2)
    shared.close()

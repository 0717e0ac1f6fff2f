"""Versioned weights: readers get whole vectors, the newest ones, and never an older one after a newer one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from offbeat.runtime.params import SLOTS, ParamStore, SharedParams, param_arrays
from tests.runtime.parts import private_params

SIZE = 40_000
"""Weights: large enough that copying lets other threads run in the middle."""


def test_a_reader_gets_the_newest_vector_and_its_version() -> None:
    store, flat = private_params(5), torch.zeros(5)
    assert store.version() == -1
    for version in (0, 1, 2, 7, 8, 1000, 1_000_000):
        assert store.publish(torch.full((5,), float(version)), version)
        assert store.version() == version
        assert store.pull(flat).updates == version
        assert (flat == version).all()
    assert store.retries == 0


def test_nothing_to_pull_before_the_first_publication() -> None:
    with pytest.raises(RuntimeError, match="no weights have been published"):
        private_params(3).pull(torch.zeros(3))


def test_versions_must_grow() -> None:
    store, flat = private_params(3), torch.zeros(3)
    store.publish(torch.ones(3), 4)
    for old in (4, 3, -1):
        with pytest.raises(ValueError, match=f"version={old}: must be greater than the published 4"):
            store.publish(torch.full((3,), 9.0), old)
    assert store.pull(flat).updates == 4
    assert (flat == 1).all(), "a refused publication leaves the weights"


def test_the_publisher_keeps_no_reference_to_its_vector() -> None:
    store, flat, own = private_params(3), torch.zeros(3), torch.ones(3, requires_grad=True)
    store.publish(own, 0)
    with torch.no_grad():
        own.fill_(5.0)
    store.pull(flat)
    assert (flat == 1).all()
    with torch.no_grad():
        flat.fill_(7.0)
    again = torch.zeros(3)
    store.pull(again)
    assert (again == 1).all()


class Interrupting:
    """A target whose first copies are overtaken by ``publications`` of the publisher."""

    def __init__(self, store: object, publications: int, times: int) -> None:
        self.store, self.publications, self.times = store, publications, times
        self.seen = torch.zeros(8)
        self.next = 1

    def copy_(self, values: torch.Tensor) -> None:
        """Half a vector, then the publisher's turn, then the rest."""
        half = len(self.seen) // 2
        self.seen[:half] = values[:half]
        if self.times:
            self.times -= 1
            for _ in range(self.publications):
                number = self.next
                self.store.publish(torch.full((8,), float(number)), number, 10 * number, 40 * number)  # type: ignore[attr-defined]
                self.next += 1
        self.seen[half:] = values[half:]


@pytest.mark.parametrize(
    ("publications", "retries", "expected"), [(1, 0, 0), (SLOTS - 1, 0, 0), (SLOTS, 2, 2 * SLOTS), (SLOTS + 1, 2, 8)]
)
def test_an_overtaken_copy_is_made_again(publications: int, retries: int, expected: int) -> None:
    """Fewer publications than slots never touch the slot that is being read; more make the reader copy again."""
    store = private_params(8)
    store.publish(torch.zeros(8), 0)
    target = Interrupting(store, publications, times=2)
    version, agent_steps, frames = store.pull(target)  # type: ignore[arg-type]
    assert (agent_steps, frames) == (10 * version, 40 * version), "the counters are those of the weights"
    assert (target.seen == version).all(), f"torn: {target.seen.tolist()}"
    assert (version, store.retries) == (expected, retries)


class Dying:
    """Weights whose publisher dies in the middle of writing them into ``slot``."""

    def __init__(self, slot: np.ndarray) -> None:
        self.slot = slot
        self.detach = self.cpu = lambda: self

    def numpy(self) -> np.ndarray:
        """Some of the numbers, then no more."""
        self.slot[-3:] = 99.0
        raise KeyboardInterrupt


def test_a_slot_that_is_being_written_is_never_believed() -> None:
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in param_arrays(8).items()}
    store = ParamStore(arrays)
    store.publish(torch.zeros(8), 0)
    reading = int(arrays["newest"][0]) % SLOTS
    target = Interrupting(store, SLOTS - 1, times=1)
    publish = target.copy_

    def copy(values: torch.Tensor) -> None:
        if not target.times:
            publish(values)
            return
        target.times = 0
        target.seen.copy_(values)
        for version in range(1, SLOTS):
            store.publish(torch.full((8,), float(version)), version)
        with pytest.raises(KeyboardInterrupt):
            store.publish(Dying(arrays["slot"][reading]), SLOTS)  # type: ignore[arg-type]
        target.seen[-3:] = values[-3:]

    target.copy_ = copy  # type: ignore[method-assign]
    assert store.pull(target).updates == SLOTS - 1  # type: ignore[arg-type]
    assert (target.seen == SLOTS - 1).all(), f"torn: {target.seen.tolist()}"


def test_reading_threads_never_see_a_mixed_vector() -> None:
    params = SharedParams(SIZE)
    params.store.publish(torch.zeros(SIZE), 0)
    done = threading.Event()
    problems: list[str] = []
    pulls = [0, 0]

    def read(index: int) -> None:
        flat, before = torch.zeros(SIZE), -1
        while not done.is_set() or pulls[index] < 10:
            version, steps, frames = params.store.pull(flat)
            if not bool((flat == version).all()) or (steps, frames) != (2 * version, 3 * version):
                problems.append(f"version {version} has weights from {flat.min()} to {flat.max()}")
            if version < before:
                problems.append(f"version {version} after {before}")
            before = version
            pulls[index] += 1

    readers = [threading.Thread(target=read, args=(index,)) for index in range(2)]
    for reader in readers:
        reader.start()
    flat = torch.zeros(SIZE)
    for version in range(1, 1500):
        flat.fill_(version)
        params.store.publish(flat, version, 2 * version, 3 * version)
    done.set()
    for reader in readers:
        reader.join(timeout=60)
    assert not problems, problems[:3]
    assert min(pulls) >= 10
    final = torch.zeros(SIZE)
    assert params.store.pull(final) == (1499, 2 * 1499, 3 * 1499)
    newest, point = params.store.newest()
    assert torch.equal(newest, final) and point.frames == 3 * 1499


def shared(readers: int = 2, size: int = 8) -> tuple[ParamStore, list[ParamStore]]:
    """A publisher, and readers that may pin."""
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in param_arrays(size, readers).items()}
    store = ParamStore(arrays)
    return store, [store.reader(index) for index in range(readers)]


def test_what_is_pinned_stays_whatever_is_published() -> None:
    store, (one, other) = shared()
    store.publish(torch.zeros(8), 0)
    held, point = one.pin()
    assert point == (0, 0, 0)
    for version in range(1, 10):
        assert store.publish(torch.full((8,), float(version)), version, 10 * version, 40 * version)
        assert (held == 0).all()
        newest, point = other.pin()
        assert (newest == version).all() and point == (version, 10 * version, 40 * version)
    again, _ = other.pin()
    assert again.data_ptr() == newest.data_ptr(), "nothing is copied"


def test_where_every_slot_is_pinned_nothing_is_published_until_one_is_given_back() -> None:
    store, readers = shared(SLOTS)
    for version, reader in enumerate(readers[: SLOTS - 1]):
        assert store.publish(torch.full((8,), float(version)), version)
        reader.pin()
    assert store.publish(torch.full((8,), 7.0), 7)
    assert not store.publish(torch.full((8,), 8.0), 8)
    assert store.version() == 7
    assert (readers[-1].pin()[0] == 7).all(), "the newest can be had all the same"
    readers[0].release()
    assert store.publish(torch.full((8,), 8.0), 8)
    assert (readers[1].pin()[0] == 8).all()


def test_a_new_incarnation_holds_nothing_of_the_one_before() -> None:
    store, readers = shared(SLOTS)
    for version, reader in enumerate(readers[: SLOTS - 1]):
        store.publish(torch.zeros(8), version)
        reader.pin()
    store.publish(torch.zeros(8), 5)
    assert not store.publish(torch.zeros(8), 6)
    store.reader(0)
    assert store.publish(torch.zeros(8), 6)


def test_a_reader_that_only_copies_cannot_pin() -> None:
    store, _ = shared()
    store.publish(torch.zeros(8), 0)
    with pytest.raises(RuntimeError, match="only copies"):
        store.pin()
    store.release()
    with pytest.raises(RuntimeError, match="no weights have been published"):
        shared()[1][0].pin()


def test_a_slot_taken_between_the_look_and_the_pin_is_not_believed() -> None:
    store, (reader, _) = shared()
    store.publish(torch.zeros(8), 0)
    look = reader._look

    def overtaken() -> tuple[int, int, bool]:
        seen = look()
        if store.version() < SLOTS:
            for version in range(1, SLOTS + 1):
                store.publish(torch.full((8,), float(version)), version)
        return seen

    reader._look = overtaken  # type: ignore[method-assign]
    held, point = reader.pin()
    assert (held == SLOTS).all() and point.updates == SLOTS
    assert reader.retries == 1

"""The mailbox and the action slots: nothing torn between real processes, nothing lost uncounted, killed writers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from offbeat.runtime.mailbox import PUBLISHED, ActionSlots, Decision, Mailbox, mailbox_arrays, slot_arrays
from offbeat.runtime.shm import SharedArrays, make_guard
from offbeat.types import ArraySpec

PICTURE = {"picture": ArraySpec((4, 84, 84), "uint8"), "number": ArraySpec((), "int64")}
ACTION, EXTRAS = ArraySpec((), "int64"), {"seen": ArraySpec((2000,), "int64")}
FORK = multiprocessing.get_context("fork")  # children that import nothing are there at once


def seen_at(frame: int) -> dict[str, np.ndarray]:
    """The observation of a frame: all of its pixels say which."""
    return {"picture": np.full((1, 4, 84, 84), frame % 251, np.uint8), "number": np.array([frame])}


def ids_of(frame: int) -> tuple[int, int, int]:
    """Frame, episode, step."""
    return frame, frame // 100, frame % 100


def decision(source: int, slot: int = 1, episode: int = 0, action: int = 0) -> Decision:
    """Whose every part follows from ``slot``."""
    times, seen = np.full(6, float(slot)), np.full((1, 2000), slot)
    return Decision(slot, source, episode, source, slot + 7, times, np.array([action]), {"seen": seen})


def private_slots(workers: int) -> ActionSlots:
    """In this process's memory."""
    return ActionSlots({name: spec.zeros() for name, spec in slot_arrays(workers, ACTION, EXTRAS).items()})


def private_mailbox() -> Mailbox:
    """In this process's memory."""
    return Mailbox({name: spec.zeros() for name, spec in mailbox_arrays(PICTURE).items()})


def count(upto_s: float) -> Iterator[int]:
    """1, 2, ... for so long."""
    end = time.monotonic() + upto_s
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1))


def write(boxes: list[tuple[SharedArrays, Any]], told: SharedArrays, each_s: float) -> None:
    """One mailbox after the other: a new frame again and again, without a pause."""
    for number, (block, guard) in enumerate(boxes):
        box, frame = Mailbox(block.arrays, guard), 0
        for frame in count(each_s):
            box.put(*ids_of(frame), time.monotonic, seen_at(frame))
        told["wrote"][number] = frame


def read(boxes: list[tuple[SharedArrays, Any]], told: SharedArrays, row: int) -> None:
    """Read each until nothing more comes; what was wrong is counted."""
    for number, (block, guard) in enumerate(boxes):
        box, last, last_s = Mailbox(block.arrays, guard), 0, 0.0
        while not box.number:
            time.sleep(0.001)
        while not told["wrote"][number] or last < told["wrote"][number]:
            seen = box.read()
            whole = (seen.observation["picture"] == seen.frame % 251).all() and seen.observation["number"] == seen.frame
            told["torn"][row] += not whole or (seen.frame, seen.episode, seen.step) != ids_of(seen.frame)
            told["back"][row] += seen.frame < last or seen.time_s < last_s
            last, last_s = seen.frame, seen.time_s
            told["reads"][row] += 1


def publish(block: SharedArrays, told: SharedArrays, worker: int, each_s: float) -> None:
    """Actions from ever newer frames, without a pause; every tenth from an earlier episode."""
    slots = ActionSlots(block.arrays)
    for number in count(each_s):
        slots.put(worker, decision(number, number, -(number % 10 == 0), number), time.monotonic)
        told["wrote"][worker] = number
        if number % 10 == 0:
            time.sleep(0.0005)  # else whoever reads is hardly ever quick enough


def run(*jobs: tuple[Any, ...]) -> list[Any]:
    """Started processes, each (function, arguments...)."""
    processes = [FORK.Process(target=job[0], args=job[1:], daemon=True) for job in jobs]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[Any]) -> list[int | None]:
    """Their exit codes."""
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_no_reader_sees_a_torn_observation_or_an_older_one() -> None:
    arrays = mailbox_arrays(PICTURE)
    boxes = [(SharedArrays(arrays), None), (SharedArrays(arrays), make_guard(force=True))]
    names = {"wrote": ArraySpec((2,), "int64")} | {name: ArraySpec((2,), "int64") for name in ("torn", "back", "reads")}
    told = SharedArrays(names)
    assert ended(run((write, boxes, told, 0.5), (read, boxes, told, 0), (read, boxes, told, 1))) == [0, 0, 0]
    assert (told["wrote"] > 20).all()
    assert (told["reads"] > 20).all()
    assert told["torn"].tolist() == [0, 0]
    assert told["back"].tolist() == [0, 0]


class Disturbed(dict[str, np.ndarray]):
    """Arrays by name; something happens when they are first looked through."""

    def __init__(self, arrays: dict[str, np.ndarray], happens: Callable[[], object]) -> None:
        super().__init__(arrays)
        self.happens: Callable[[], object] | None = happens

    def items(self) -> Any:
        """All of them, and what happens then."""
        happens, self.happens = self.happens, None
        found = [(name, values) for name, values in super().items()]
        if happens is not None:
            happens()
        return found


def killed() -> float:
    """Stands for the end of a process."""
    raise InterruptedError


@pytest.mark.parametrize("whole", [True, False])
def test_a_reader_that_is_overtaken_copies_again(whole: bool) -> None:
    box = private_mailbox()
    with pytest.raises(RuntimeError, match="empty: the environment has not begun"):
        box.read()

    def overtake() -> None:
        for frame in range(2, 5):
            box.put(*ids_of(frame), lambda: 0.5, seen_at(frame))
        with nullcontext() if whole else pytest.raises(InterruptedError):
            box.put(*ids_of(5), (lambda: 0.5) if whole else killed, seen_at(5))

    box.put(*ids_of(1), lambda: 0.5, seen_at(1))
    box._observation = Disturbed(box._observation, overtake)
    seen = box.read()
    assert (seen.frame, box.retries) == (5 if whole else 4, 1)
    assert (seen.observation["picture"] == seen.frame).all()


def test_each_action_is_taken_once_and_all_are_accounted_for_between_processes() -> None:
    block = SharedArrays(slot_arrays(2, ACTION, EXTRAS))
    told = SharedArrays({"wrote": ArraySpec((2,), "int64")})
    slots, taken, last = ActionSlots(block.arrays), [], -1
    processes = run((publish, block, told, 0, 0.6), (publish, block, told, 1, 0.6))
    torn = 0

    def take() -> None:
        nonlocal last, torn
        found = slots.take(0, time.monotonic())
        for one in slots.fresh:
            parts = {one.source, one.step, one.version - 7, int(one.action[0]), *one.extras["seen"][0].tolist()}
            torn += parts != {one.slot}
        if found is not None:
            assert found.episode == 0
            assert found.source >= last, "a newer observation has acted before"
            last = found.source
            taken.append((found.worker, found.slot))

    while any(process.is_alive() for process in processes):
        take()
    take()
    assert ended(processes) == [0, 0]
    assert torn == 0
    assert len(set(taken)) == len(taken) > 0  # how many depends on how often this process gets its turn
    assert slots.lost + slots.old_episode + len(taken) == told["wrote"].sum()
    assert slots.old_episode > 0


class Twin:
    """The action slots with lists: every action of each worker that nobody has looked at."""

    def __init__(self, workers: int) -> None:
        self.waiting: list[list[Decision]] = [[] for _ in range(workers)]
        self.newest, self.lost, self.old = -1, 0, 0

    def take(self, episode: int, now_s: float) -> Decision | None:
        """The newest action of all."""
        there = [each for each in self.waiting if each and each[-1].times[PUBLISHED] <= now_s]
        candidates = [each[-1] for each in there]
        self.lost += sum(len(each) - 1 for each in there)
        for each in there:
            each.clear()
        ours = [one for one in candidates if one.episode == episode]
        self.old += len(candidates) - len(ours)
        fit = [one for one in ours if one.source >= self.newest]
        best = max(fit, key=lambda one: one.source, default=None)
        self.lost += len(ours) - (best is not None)
        self.newest = self.newest if best is None else best.source
        return best


@pytest.mark.parametrize("seed", range(20))
def test_slots_are_their_naive_twin(seed: int) -> None:
    draw, slots, twin, now = np.random.default_rng(seed), private_slots(3), Twin(3), 0.0
    episode = put = taken = 0
    for step in range(400):
        now += 1.0
        if draw.random() < 0.6:
            worker, source, of = int(draw.integers(3)), int(draw.integers(step // 4, step + 1)), episode
            one = decision(source, step, of - (draw.random() < 0.2), int(draw.integers(3)))
            one.worker = worker
            at = now + (5 if draw.random() < 0.2 else 0)
            assert slots.put(worker, one, lambda at=at: at) == at
            twin.waiting[worker].append(one)
            put += 1
        else:
            episode += draw.random() < 0.1
            found, want = slots.take(episode, now), twin.take(episode, now)
            assert (found is None) == (want is None)
            if found is not None and want is not None:
                assert (found.worker, found.slot, found.action[0]) == (want.worker, want.slot, want.action[0])
                taken += 1
            published = [one.times[PUBLISHED] for one in slots.fresh]
            assert published == sorted(published)
        if step == 200:
            slots, before = private_slots(3), slots
            slots.load_state(before.state())
    assert (slots.lost, slots.old_episode) == (twin.lost, twin.old)
    assert put == taken + slots.lost + slots.old_episode + sum(map(len, twin.waiting))
    assert min(taken, slots.lost, slots.old_episode) > 0


def test_an_action_that_means_to_do_nothing_is_one_and_one_of_the_future_waits() -> None:
    slots = private_slots(2)
    slots.put(0, decision(3, action=0), lambda: 2.0)
    assert slots.take(0, 1.9) is None
    assert slots.fresh == []
    found = slots.take(0, 2.0)
    assert found is not None
    assert found.action.tolist() == [0]
    assert slots.take(0, 2.1) is None, "once"


def test_an_action_that_is_written_over_while_it_is_read_is_left_for_the_next_frame() -> None:
    slots = private_slots(1)
    slots.put(0, decision(3), lambda: 2.0)
    slots._extras = Disturbed(slots._extras, lambda: slots.put(0, decision(4, 2), lambda: 2.5))
    assert slots.take(0, 9.0) is None
    assert slots.fresh == []
    found = slots.take(0, 9.0)
    assert found is not None
    assert (found.slot, slots.lost) == (2, 1)


def die() -> float:
    """Ask for the time, and be killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived")


def die_in_put(slots: SharedArrays, box: SharedArrays) -> None:
    """Killed while it publishes; the last word is the observation's or the action's."""
    if slots["stamp"][0] == 2:
        ActionSlots(slots.arrays).put(0, decision(9, 9, action=3), die)
    Mailbox(box.arrays).put(*ids_of(2), die, seen_at(2))


def test_a_writer_killed_in_the_middle_is_not_seen_and_can_be_replaced() -> None:
    blocks = SharedArrays(slot_arrays(1, ACTION, EXTRAS)), SharedArrays(mailbox_arrays(PICTURE))
    slots, box = ActionSlots(blocks[0].arrays), Mailbox(blocks[1].arrays)
    box.put(*ids_of(1), lambda: 0.0, seen_at(1))
    assert ended(run((die_in_put, *blocks))) == [-signal.SIGKILL]
    assert box.read().frame == 1
    assert (box.read().observation["picture"] == 1).all()
    box.put(*ids_of(2), lambda: 0.0, seen_at(2))
    assert box.read().frame == 2
    slots.put(0, decision(1), lambda: 1.0)
    assert ended(run((die_in_put, *blocks))) == [-signal.SIGKILL]
    assert blocks[0]["stamp"][0] % 2 == 1
    assert slots.take(0, 100.0) is None
    slots.put(0, decision(4, 10, action=2), lambda: 3.0)
    found = slots.take(0, 100.0)
    assert found is not None
    assert (found.slot, found.action[0]) == (10, 2)
    assert (slots.lost, slots.old_episode) == (1, 0), "the one that was written over; the killed one never was"


def test_the_mailbox_goes_on_from_a_saved_state() -> None:
    box, other = private_mailbox(), private_mailbox()
    for frame in range(1, 8):
        box.put(*ids_of(frame), lambda: 2.5, seen_at(frame))
    other.load_state(box.state())
    assert (other.number, other.read().frame, other.read().time_s) == (7, 7, 2.5)
    other.put(*ids_of(8), lambda: 3.0, seen_at(8))
    assert (other.read().frame, box.read().frame) == (8, 7)

"""Shared memory, bells and waiting, between real processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from offbeat.runtime import shm
from offbeat.runtime.params import SharedParams
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, Heart, SharedArrays, SharedFile, Wait, make_guard
from offbeat.types import ArraySpec

SPECS = {
    "a": ArraySpec((3, 5), "int64"),
    "empty": ArraySpec((0, 7)),
    "flag": ArraySpec((1,), "bool"),
    "counter": ArraySpec((2,), "int64"),
}
ROUNDS = 3000
"""Of ping-pong, and of increments under the lock."""
PATIENCE_S = 60.0


def other_process(given: dict[str, Any]) -> None:
    """Fill the arrays, play ping-pong, count under the lock, read the weights."""
    for block in given["blocks"]:
        block["a"][...] = np.arange(15).reshape(3, 5)
    memory, guard = given["blocks"][0], given["guard"]
    for number in range(1, ROUNDS):
        while memory["counter"][0] != number:
            if not given["ping"].wait(PATIENCE_S):
                os._exit(3)  # a wake-up was lost
        memory["counter"][1] = number
        given["pong"].ring()
    for _ in range(ROUNDS):
        with guard:
            memory["a"][2, 4] += 1
    flat = given["flat"].clone()
    for number, file in enumerate(given["files"]):
        file.write([file.read(3), b"", memoryview(np.full(100_000, number + 1, np.uint8))])
    memory["flag"][0] = given["params"].store.pull(flat).updates == 5 and bool((flat == 5).all())


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[dict[str, Any], int, int]]:
    """What the parent and a spawned process did together; the number of lost wake-ups; the child's exit code."""
    import torch

    given: dict[str, Any] = {
        "blocks": [SharedArrays(SPECS, backing) for backing in ("auto", "memfd", "file") if usable(backing)],
        "files": [SharedFile(backing) for backing in ("auto", "memfd", "file") if usable(backing)],
        "ping": Bell(),
        "pong": Bell(),
        "guard": make_guard(force=True),
        "params": SharedParams(40, make_guard(force=True)),
        "flat": torch.zeros(40),
    }
    given["params"].store.publish(torch.full((40,), 5.0), 5)
    for file in given["files"]:
        assert file.write([b"abc", b"de"]) == 5
    child = multiprocessing.get_context("spawn").Process(target=other_process, args=(given,), daemon=True)
    child.start()
    memory, lost = given["blocks"][0], 0
    for number in range(1, ROUNDS):
        memory["counter"][0] = number
        for _ in range(1 + number % 3):  # ringing more than once is ringing once
            given["ping"].ring()
        while memory["counter"][1] != number and child.is_alive():
            lost += not given["pong"].wait(PATIENCE_S)
    for _ in range(ROUNDS):
        with given["guard"]:
            memory["a"][2, 4] += 1
    child.join(PATIENCE_S)
    yield given, lost, child.exitcode if child.exitcode is not None else -1
    child.kill()


def usable(backing: str) -> bool:
    """Whether this system has it."""
    return backing != "memfd" or hasattr(os, "memfd_create")


def test_arrays_of_every_backing_reach_a_spawned_process(both: Any) -> None:
    given, _, code = both
    assert code == 0
    assert len(given["blocks"]) >= 2
    for block in given["blocks"]:
        assert (block["a"].ravel()[:14] == np.arange(14)).all()


def test_no_wake_up_is_lost_between_two_processes(both: Any) -> None:
    given, lost, code = both
    assert (lost, code) == (0, 0)
    assert given["blocks"][0]["counter"].tolist() == [ROUNDS - 1] * 2


def test_the_lock_of_other_architectures_excludes(both: Any) -> None:
    given, _, _ = both
    assert given["blocks"][0]["a"][2, 4] == 14 + 2 * ROUNDS


def test_weights_reach_a_spawned_process(both: Any) -> None:
    given, _, _ = both
    assert given["blocks"][0]["flag"][0]


@pytest.mark.parametrize("backing", ["memfd", "file"])
def test_arrays_are_zero_aligned_and_apart(backing: str, tmp_path: Any) -> None:
    if not usable(backing):
        pytest.skip("no memfd here")
    memory = SharedArrays(SPECS, backing, str(tmp_path))
    assert {name: array.shape for name, array in memory.arrays.items()} == {n: s.shape for n, s in SPECS.items()}
    assert all(not array.any() for array in memory.arrays.values())
    starts = [array.__array_interface__["data"][0] for name, array in memory.arrays.items() if array.size]
    assert all(start % shm.ALIGN == 0 for start in starts)
    memory["a"][...] = -1
    assert not memory["counter"].any()
    assert not memory["flag"].any()
    assert memory["a"] is memory.arrays["a"]
    assert list(tmp_path.iterdir()) == [], "no name in the file system refers to it"


def test_an_unknown_backing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'auto', 'memfd' and 'file'"):
        SharedArrays(SPECS, "magic")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_bell_remembers_and_never_blocks(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("eventfd is Linux's")
    monkeypatch.setattr(shm.sys, "platform", platform)
    bell = Bell()
    assert not bell.wait(0)
    for _ in range(20_000):  # more than a pipe holds
        bell.ring()
    assert bell.wait(0)
    while bell.wait(0):
        continue
    threading.Timer(0.05, bell.ring).start()
    assert bell.wait(PATIENCE_S)
    assert bell.fileno() >= 0


def test_waiting_ends_by_readiness_timeout_or_stop() -> None:
    state = {"stop": False, "ready": False}
    beats = SharedArrays({"beat": ArraySpec((2,), "float64")})
    heart = Heart(beats, 1)
    heart.clear()
    assert heart.last() == 0
    wait = Wait(Bell(), lambda: state["stop"], heart)
    assert wait.until("at once", lambda: True)
    assert "at once" not in wait.seconds
    assert not wait.until("rows", lambda: False, 0.01)
    assert wait.seconds["rows"] > 0
    assert heart.last() > 0, "waiting is a sign of life"

    def make_ready() -> None:
        state["ready"] = True
        wait.bell.ring()

    threading.Timer(0.05, make_ready).start()
    assert wait.until("ready", lambda: state["ready"], PATIENCE_S)
    state["stop"] = True
    with pytest.raises(Stopped, match="room"):
        wait.until("room", lambda: False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_waiting_role_notices_that_its_parent_is_gone() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            wait = Wait(Bell(), lambda: False)
            os.write(write, b"waiting,")
            try:
                wait.until("rows", lambda: False, PATIENCE_S)
            except Stopped as stopped:
                os.write(write, str(stopped).encode())
            os._exit(0)
        os.read(read, 8)  # the grandchild knows its parent
        os.write(write, b"parent ends,")
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(write)
    said = b""
    while chunk := os.read(read, 100):
        said += chunk
    os.close(read)
    assert said == b"parent ends,rows: the parent process is gone"


def test_x86_needs_no_lock_and_others_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm.platform, "machine", lambda: "x86_64")
    assert make_guard() is None
    monkeypatch.setattr(shm.platform, "machine", lambda: "aarch64")
    guard = make_guard()
    assert guard is not None
    for _ in range(3):  # it can be taken again and again
        with guard:
            pass
    guard.__exit__(None, None, None)  # what a killed holder left behind does no harm
    with guard:
        pass


def test_a_long_step_beats_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "SLICE_S", 0.01)
    beats = SharedArrays({"beat": ArraySpec((2,), "float64")})
    heart = Heart(beats, 1)
    with heart.beating():
        first = heart.last()
        deadline = time.monotonic() + PATIENCE_S
        while heart.last() <= first:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert heart.last() <= time.monotonic()
    last = heart.last()
    time.sleep(0.05)
    assert heart.last() == last, "only while it lasts"
    assert beats["beat"][0] == 0
    assert "heart" not in [thread.name for thread in threading.enumerate()]


def test_closed_memory_and_bells_give_their_descriptors_back() -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform.startswith("linux") else 0
    block, bell = SharedArrays(SPECS), Bell()
    kept = block["a"]
    for _ in range(2):
        block.close()
        bell.close()
    kept[0, 0] = 5  # a view that somebody still holds is no view of nothing
    assert kept[0, 0] == 5
    del kept
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def count_under_lock(block: SharedArrays, which: int, times: int) -> None:
    """Once both are there: read, wait a little, write one more, as often as said, each time alone."""
    block["there"][which] = True
    while not block["there"].all():
        time.sleep(0.001)
    for _ in range(times):
        with block.lock():
            before = int(block["count"][0])
            time.sleep(0.0002)
            block["count"][0] = before + 1


def test_a_lock_goes_with_a_block_and_keeps_processes_apart() -> None:
    block = SharedArrays({"count": ArraySpec((1,), "int64"), "there": ArraySpec((2,), "bool")})
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=count_under_lock, args=(block, n, 300), daemon=True) for n in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert block["count"][0] == 600
    block.close()


def test_files_without_a_name_grow_and_are_read_by_all(both: tuple[dict[str, Any], int, int]) -> None:
    for number, file in enumerate(both[0]["files"]):
        assert file.read(100_003) == b"abc" + bytes([number + 1]) * 100_000
        with pytest.raises(ValueError, match="expected 100004 bytes, got 100003"):
            file.read(100_004)
        assert file.write([b"xy"]) == 2 and file.read(3) == b"xyc"


def test_a_write_that_the_system_does_in_parts_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    file, write, read = SharedFile(), os.pwrite, os.pread
    monkeypatch.setattr(shm.os, "pwrite", lambda fd, data, at: write(fd, data[:7], at))
    monkeypatch.setattr(shm.os, "pread", lambda fd, count, at: read(fd, min(count, 5), at))
    assert file.write([bytes(range(100)), b"end"]) == 103
    assert file.read(103) == bytes(range(100)) + b"end"
    for _ in range(2):
        file.close()

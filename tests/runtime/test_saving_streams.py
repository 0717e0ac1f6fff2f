"""Streams saved beside writers at work: every forced interleaving gives the rows that were written, in their places."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from offbeat.replay import snapshot
from offbeat.replay.layout import StreamBlock
from offbeat.replay.streams import StreamStore
from offbeat.runtime import writer as writing
from offbeat.runtime.shm import make_guard
from offbeat.runtime.world import World
from offbeat.runtime.writer import StoreWriter
from offbeat.storage.checkpoint import write_part
from tests.replay.twin import Twin, TwinReader
from tests.runtime.parts import Metrics, item_config, make_host, small_world
from tests.runtime.test_conductor import make_conductor, writes

BLOCK = 5
LIMIT_S = 30.0


class Saving:
    """A learner that can save, and a writer of two of its four streams, whose rows are known."""

    def __init__(self, folder: Path, guarded: bool = False) -> None:
        config = item_config(
            "r2d2", engine="local", replay__samples_per_insert=0, learner__prefetch=0, replay__capacity=80
        )
        self.folder = folder
        self.world: World = small_world(folder, config)
        self.world.guard = make_guard(force=True) if guarded else None
        self.store = StreamStore(self.world.layout, self.world.memory.arrays, self.world.guard)
        self.twin = Twin(self.world.layout, np.random.default_rng(0))
        self.look = self.world.paused
        self.writer = StoreWriter(
            self.store, self.world.wait("actor-0"), lambda: self.look(), [self.world.bells["learner"]], np.array([0, 2])
        )
        self.learner = make_host(self.world, "learner", Metrics(), free=True)

    def block(self) -> StreamBlock:
        """The next rows."""
        for stream in (0, 2):
            for _ in range(BLOCK):
                self.twin.step(stream)
                self.store.add_produced(np.array([stream]))
        return self.twin.block([0, 2], BLOCK)

    def append(self, count: int = 1) -> None:
        """So many blocks."""
        for _ in range(count):
            self.writer.append(self.block())

    def save(self) -> dict[str, Any]:
        """A checkpoint's streams, by the learner."""
        self.answer = self.learner.save(partial(write_part, self.folder))
        arrays = load_file(self.folder / "streams.safetensors")
        return {name.removeprefix("streams/"): v for name, v in arrays.items() if name.startswith("streams/")}

    def check(self, saved: dict[str, Any]) -> list[int]:
        """Load into other streams and compare every row with the one that was written; the heads."""
        layout = self.world.layout
        store = StreamStore.allocate(layout)
        store.load_state(saved)
        store.settle()
        store.check_ledger()
        reader = TwinReader(self.twin, True)
        for stream, head in enumerate(store.head.tolist()):
            known = self.twin.streams[stream].rows
            assert head <= len(known)
            assert saved["non_transitions"][stream] == sum(not row["valid"] for row in known[:head])
            for row in range(max(0, head - layout.capacity), head):
                at = store.locate(np.array(stream), np.array(row))
                for name in layout.columns():
                    if name != "discount":  # 0 in rows that are no transitions
                        np.testing.assert_array_equal(store.take(name, at), known[row][name], f"{name} of row {row}")
            rows = np.arange(max(0, head - layout.capacity + 1), head)  # the one before it is there for its last action
            read, ok = store.read_unrolls(np.full(len(rows), stream), rows, 1, last=True)
            for column, row in enumerate(rows):
                state = reader.core(stream, int(row))
                assert ok[column] == (state is not None), f"state before row {row}"
                for name, values in (state or {}).items():
                    np.testing.assert_array_equal(read.core_state[name][column], values, f"{name} before row {row}")
        return store.head.tolist()


class Beside(threading.Thread):
    """Something done in another thread; what it raised is raised by ``result``."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._what, self._error, self._value = what, None, None  # type: ignore[var-annotated]
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self._value = self._what()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """What it gave."""
        self.join(LIMIT_S)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._value


def stop_saver(saving: Saving, where: str, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The saver stops before it looks up or copies rows until the second event is set; the first says it is there."""
    there, go_on = threading.Event(), threading.Event()
    owner = saving.world.store if where == "take" else snapshot
    true = getattr(owner, where)

    def slow(*arguments: Any) -> Any:
        if not there.is_set():
            there.set()
            assert go_on.wait(LIMIT_S)
        return true(*arguments)

    monkeypatch.setattr(owner, where, slow)
    return there, go_on


@pytest.mark.parametrize("before", [1, 9], ids=["not full", "full"])
@pytest.mark.parametrize("where", ["_used_rows", "take"])
def test_a_pause_that_comes_between_the_writers_look_and_its_reservation(
    before: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = Saving(tmp_path)
    saving.append(before)
    there, go_on = stop_saver(saving, where, monkeypatch)
    savers: list[Beside] = []

    def look() -> bool:
        seen = saving.world.paused()
        if not savers:  # the writer has looked, and before it does anything more the saver comes and begins to copy
            savers.append(Beside(saving.save))
            assert there.wait(LIMIT_S)
        return seen

    saving.look = look
    block = saving.block()
    appending = Beside(lambda: saving.writer.append(block))
    assert there.wait(LIMIT_S)
    appending.join(0.2)  # a writer that does not see the pause writes its rows now
    held = saving.store.head.copy()
    go_on.set()
    saved = savers[0].result()
    assert saving.check(saved) == [BLOCK * before, 0, BLOCK * before, 0]
    assert not saving.answer["note"]
    assert held.tolist() == [BLOCK * before, 0, BLOCK * before, 0]
    appending.result()
    assert saving.store.head.tolist() == [BLOCK * (before + 1), 0, BLOCK * (before + 1), 0], "it waited, no more"
    assert (saving.store.reserved == saving.store.head).all()


class Stopping(dict[str, np.ndarray]):
    """The columns of a block whose writer stops in the middle of its rows."""

    def __init__(self, columns: dict[str, np.ndarray], hook: Callable[[], None]) -> None:
        super().__init__(columns)
        self._hook = hook

    def items(self) -> Any:
        """The columns; half of them, the hook, the others."""
        names = sorted(self)
        for number, name in enumerate(names):
            if number == len(names) // 2:
                self._hook()
            yield name, self[name]


def stopping_block(saving: Saving) -> tuple[StreamBlock, threading.Event, threading.Event]:
    """A block whose writer stops in its middle until the second event is set; the first says that it is there."""
    block, there, go_on = saving.block(), threading.Event(), threading.Event()

    def stop() -> None:
        there.set()
        assert go_on.wait(LIMIT_S)

    block.columns = Stopping(block.columns, stop)
    return block, there, go_on


def test_a_block_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    saving.append(9)
    block, there, go_on = stopping_block(saving)
    appending = Beside(lambda: saving.writer.append(block))
    assert there.wait(LIMIT_S)
    saver = Beside(saving.save)
    saver.join(0.2)
    assert saver.is_alive()
    go_on.set()
    assert saving.check(saver.result()) == [50, 0, 50, 0]
    assert not saving.answer["note"]
    appending.result()


@pytest.mark.parametrize("before", [1, 9], ids=["not full", "full"])
@pytest.mark.parametrize("where", ["_used_rows", "take"])
def test_a_writer_that_does_not_finish_its_block_loses_that_block_only(
    before: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, and goes on just while the saver copies."""
    monkeypatch.setattr(writing, "HOLD_S", 0.1)
    saving = Saving(tmp_path)
    saving.append(before)
    block, in_block, write_on = stopping_block(saving)
    appending = Beside(lambda: saving.writer.append(block))
    assert in_block.wait(LIMIT_S)
    copying, copy_on = stop_saver(saving, where, monkeypatch)
    saver = Beside(saving.save)
    assert copying.wait(LIMIT_S)
    write_on.set()
    appending.result()
    copy_on.set()
    assert saving.check(saver.result()) == [BLOCK * before, 0, BLOCK * before, 0]
    assert saving.answer["note"] == (
        "streams 0, 2 are saved without a block that their writer did not finish within 0.1 s"
    )
    assert not saving.world.paused()


@pytest.fixture
def fast_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("guarded", [False, True])
def test_many_saves_beside_a_writer_at_full_speed(guarded: bool, tmp_path: Path, fast_switches: None) -> None:
    saving, ended, begun = Saving(tmp_path, guarded), threading.Event(), threading.Event()

    def write() -> None:
        while not ended.is_set():
            saving.append()
            begun.set()

    appending, heads = Beside(write), []
    try:
        assert begun.wait(LIMIT_S)
        until = time.monotonic() + LIMIT_S
        while len(heads) < 40 or (
            heads[-1] == heads[0] and time.monotonic() < until
        ):  # the writer gets its turns as well
            saved = saving.save()
            heads.append(saving.check(saved)[0])
            assert not saving.answer["note"]
    finally:
        ended.set()
        saving.world.ring()
        appending.result()
    assert heads == sorted(heads)
    assert heads[-1] > heads[0] > 0


def test_the_run_says_that_a_block_is_left_out(tmp_path: Path) -> None:
    conductor, said = make_conductor(tmp_path)

    def save(folder: Path) -> dict[str, Any]:
        return writes(20)(folder) | {"note": "streams 0, 2 are saved without a block"}

    assert conductor.save(save) is not None
    assert said == ["streams 0, 2 are saved without a block"]
    assert conductor.save(lambda folder: writes(40)(folder) | {"note": ""}) is not None
    assert len(said) == 1

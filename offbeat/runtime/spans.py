"""Spans: what each thread of each role was doing when, recorded for ``offbeat trace``.

A role that is recorded gets its ports wrapped once, before its loop starts (``calls`` of the role table): each call
becomes a span; one within another counts as its own (``forward, backward`` is what ``train_step`` does beside the
optimiser's step, ``append`` what it does beside waiting for room). The
loops of the roles know nothing of it, and a run that records nothing runs the very same code as before.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "trace"
"""Folder of a run that holds its time line."""

SPAN = np.dtype([("name", "<i8"), ("start", "<i8"), ("end", "<i8")])
"""One span: index of its name; start and end in ns of the monotonic clock, which all processes of a machine share."""

CAPACITY = 200_000
"""Spans that are kept per thread; what comes after them is dropped and counted. 5 MB."""


@dataclass(frozen=True)
class TraceConfig:
    """Recording of a time line, which ``offbeat trace`` draws."""

    seconds: float = 0.0
    """Record for so long what every role does; 0: record nothing. Unit: seconds."""
    start_s: float = 1.0
    """Recording starts so long after the learner's first update. Unit: seconds."""


class Lane:
    """The spans of one thread, in a buffer of ``capacity``; a full buffer drops and counts what comes after."""

    def __init__(self, thread: str, capacity: int) -> None:
        self.thread = thread
        self.names: dict[str, int] = {}
        self.count = self.dropped = self.depth = 0
        self.written = False
        self._rows = np.empty(capacity, SPAN)
        self._columns = [self._rows[name].data for name in ("name", "start", "end")]  # fast to write one by one

    def add(self, name: str, start: int, end: int) -> None:
        """Keep one span. Spans come in the order of their ends."""
        count, (names, starts, ends) = self.count, self._columns
        if count == len(names):
            self.dropped += 1
            return
        names[count], starts[count], ends[count] = self.names.setdefault(name, len(self.names)), start, end
        self.count = count + 1

    def spans(self) -> np.ndarray:
        """What was kept, [n] SPAN."""
        return self._rows[: self.count]


class Spans:
    """Records what one role does in the window of a run, and writes it: per thread ``.npy`` spans and ``.json`` names.

    The window is the same for all roles: the learner sets it on the notice board after its first update. A thread
    writes its spans when its first call ends after the window; ``close`` writes what is left.

    Args:
        role: name of the role.
        folder: where the files go.
        config: the window.
        board: the run's notice board.
        leads: it sets when the window begins, and removes what an earlier start has recorded.
        order: place among the run's roles.
        clock: gives ns on the monotonic clock.
        capacity: spans kept per thread.
    """

    def __init__(
        self,
        role: str,
        folder: Path,
        config: TraceConfig,
        board: Any,
        *,
        leads: bool = False,
        order: int = 0,
        clock: Callable[[], int] = time.monotonic_ns,
        capacity: int = CAPACITY,
    ) -> None:
        self._role, self._folder, self._board, self._leads, self._order = role, folder, board, leads, order
        self._clock, self._capacity = clock, capacity
        self._start_ns, self._length_ns = int(config.start_s * 1e9), int(config.seconds * 1e9)
        self._begin = 0
        self._born = clock()
        self._main = threading.current_thread()
        self._own = threading.local()
        self._lanes: list[Lane] = []
        if leads and folder.is_dir():
            for old in [*folder.glob("*.npy"), *folder.glob("*.json")]:  # of the run before it was resumed
                old.unlink()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """From now on each call of ``owner.method`` is a span; ``{}`` in ``name`` stands for its first argument."""
        call, clock, varies = getattr(owner, method), self._clock, "{}" in name

        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            lane = getattr(self._own, "lane", None) or self._new_lane()
            lane.depth += 1
            start = clock()
            try:
                return call(*arguments, **options)
            finally:
                end = clock()
                lane.depth -= 1
                if not lane.written:
                    self._add(lane, name.format(*arguments) if varies else name, start, end)

        setattr(owner, method, timed)

    def close(self) -> None:
        """Write the lanes that are still open; nothing if the window never began."""
        now = self._clock()
        for lane in self._lanes:
            if not lane.written and 0 < self._begin < now:
                self._write(lane, now)

    def _new_lane(self) -> Lane:
        thread = threading.current_thread()
        lane = Lane("main" if thread is self._main else thread.name, self._capacity)
        self._own.lane = lane
        self._lanes.append(lane)
        return lane

    def _add(self, lane: Lane, name: str, start: int, end: int) -> None:
        begin = self._begin or self._look(end)
        if not begin or end < begin:
            return
        if start < begin + self._length_ns:
            lane.add(name, start, end)
        if end >= begin + self._length_ns and not lane.depth:  # calls around this one began in the window
            self._write(lane, end)

    def _look(self, now: int) -> int:
        """When the window begins, 0 if that is not known yet. The learner decides."""
        if self._leads and self._board["updates"][0] and not self._board["trace_ns"][0]:
            self._board["trace_ns"][0] = now + self._start_ns
        self._begin = int(self._board["trace_ns"][0])
        return self._begin

    def _write(self, lane: Lane, now: int) -> None:
        """Write one lane, whole or not at all; ``now``: until when it was recorded."""
        lane.written = True
        spans = lane.spans()
        begin, end = max(self._begin, self._born), min(self._begin + self._length_ns, now)
        if lane.dropped:
            end = min(end, int(spans["end"][-1]))
        if begin >= end:
            return  # a role that was started after the window
        said = {"role": self._role, "order": self._order, "thread": lane.thread}
        said |= {"begin": begin, "end": end, "dropped": lane.dropped}
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in lane.thread)
        base = self._folder / f"{self._role}.{name}"
        draft = base.with_name(f".{base.name}.npy")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            np.save(draft, spans, allow_pickle=False)
            base.with_name(f"{base.name}.json").write_text(json.dumps(said | {"names": list(lane.names)}))
            os.replace(draft, base.with_name(f"{base.name}.npy"))
        except OSError as error:  # a full disk ends no run
            print(f"{base}.npy cannot be written, the time line lacks it: {error}", file=sys.stderr, flush=True)


def wrap_calls(spans: Spans, host: Any, calls: Mapping[str, str]) -> None:
    """Record the ``calls`` of a role's row: method, as the ``host`` that was built reaches it -> name of its span."""
    for path, name in calls.items():
        owner, _, method = path.rpartition(".")
        target = attrgetter(owner)(host) if owner else host
        if target is not None:  # roles in lock-step never wait
            spans.wrap(target, method, name)

"""The files behind ``MetricLogger``: append-only text with a resumable offset, period averages, TensorBoard events."""

from __future__ import annotations

import io
import itertools
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from offbeat.run.log import put_aside

Value = float | int | str | None | Sequence[float]
"""What a record may hold under one name."""

COUNTERS = frozenset({
    "updates", "samples", "sample_frames", "env_frames", "frames",
    "agent_steps", "steps", "policy_version", "version", "learning_rate", "skipped", "bad_rewards",
    "own_updates", "sampled_rows", "dropped_unrolls", "skipped_unrolls", "stored_rows",
})  # fmt: skip
"""Names whose last value stands for a period; names ending in ``_s`` are summed, all others averaged."""
LARGEST = frozenset({"staleness_largest"})
"""Names whose largest value stands for a period."""

MOST_KEPT_BYTES = 64 << 20
"""Records that a disk does not take wait in memory, so many bytes for each file at most."""


class AppendFile:
    """A file that is only ever appended to, in chunks, and can be cut back to a remembered length.

    Nothing here raises for what the disk does: records that it does not take wait in memory, ``MOST_KEPT_BYTES`` at
    most; then the oldest are lost and counted. A failure is said once, and so is its end.
    """

    def __init__(
        self,
        path: Path,
        *,
        offset: int = 0,
        header: str | bytes = b"",
        chunk_bytes: int = 1 << 16,
        lines: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        """Open ``path`` and drop everything after ``offset`` bytes; an empty file starts with ``header``.

        A file of ``lines`` that ends before ``offset`` or in the middle of a line, as a power cut leaves it, is cut
        back to its last whole line. What is no file that can be written is moved aside. ``say`` hears of all that.
        """
        self.path = path
        self._header = header if isinstance(header, bytes) else f"{header}\n".encode()
        self._chunk_bytes, self._lines, self._say = chunk_bytes, lines, say
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._written = offset
        self._lost, self._trouble = 0, ""
        self._file: io.FileIO | None = None
        self._closed = False
        self.flush()

    def write(self, line: str) -> None:
        """Append one line (without its line end)."""
        self.append(f"{line}\n".encode())

    def append(self, record: bytes) -> None:
        """Append one record, whole or not at all."""
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        if self._waiting_bytes >= self._chunk_bytes and not self._trouble:
            self.flush()
        while self._waiting_bytes > MOST_KEPT_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._lost += 1

    def flush(self) -> None:
        """Hand everything to the operating system. What it does not take waits for the next time."""
        if self._closed:
            return
        try:
            self._file = self._file or self._open()
            while self._waiting:
                self._write_chunk(self._file)
        except OSError as error:
            self._leave(cut=True)
            new, self._trouble = not self._trouble, error.strerror or str(error)
            if new:
                at_most = f"up to {MOST_KEPT_BYTES >> 20} MiB of its records wait in memory"
                self._say(f"{self.path} cannot be written ({self._trouble}); the run goes on, {at_most}")
        except BaseException:  # Ctrl-C, who knows where
            self._leave(cut=True)
            raise
        else:
            if self._trouble:
                self._say(f"{self.path} is written again; {self._lost} records were lost")
                self._trouble, self._lost = "", 0

    def offset(self) -> int:
        """Bytes of the file once everything that the disk takes is on it (flushes)."""
        self.flush()
        return self._written

    def close(self) -> None:
        """Flush and close; harmless when called twice."""
        self.flush()
        if not self._closed and self._trouble:
            lost = self._lost + len(self._waiting)
            self._say(f"{self.path}: {lost} records are lost at the end of the run ({self._trouble})")
        self._closed = True
        self._leave()

    def _open(self) -> io.FileIO:
        """The file, cut to what was written. Raises OSError."""
        try:
            return self._open_at_end()
        except (IsADirectoryError, PermissionError, io.UnsupportedOperation) as error:
            aside = put_aside(self.path)
            self._say(f"{self.path} cannot be written ({error.strerror or error}): moved to {aside}, begun anew")
            self._written = 0
            return self._open_at_end()

    def _open_at_end(self) -> io.FileIO:
        there = self.path.exists()
        if there and not self.path.is_file() and not self.path.is_dir():
            raise io.UnsupportedOperation("it is no file")  # opening a named pipe would wait for its other end
        file = io.FileIO(self.path, "r+" if there else "x+")
        try:
            self._written = self._whole(file)
            file.truncate(self._written)
            file.seek(self._written)
        except BaseException:
            file.close()
            raise
        if not self._written and self._header and not (self._waiting and self._waiting[0] is self._header):
            self._waiting.appendleft(self._header)
            self._waiting_bytes += len(self._header)
        return file

    def _whole(self, file: io.FileIO) -> int:
        """How many of the bytes that were written are still there, in whole lines."""
        length = file.seek(0, 2)
        if not self._lines:
            return self._written if self._written <= length else 0
        end = line_end(file, min(self._written, length))
        if end != self._written:
            self._say(
                f"{self.path} has {length} bytes where {self._written} were written (a power cut does that): "
                f"it goes on behind the {end} bytes of its whole lines"
            )
        return end

    def _write_chunk(self, file: io.FileIO) -> None:
        """Write about as many records as make a chunk; those that the disk took whole count as written."""
        chunk, size = [], 0
        for record in self._waiting:
            chunk.append(record)
            size += len(record)
            if size >= self._chunk_bytes:
                break
        data, done = memoryview(b"".join(chunk)), 0
        try:
            while done < size:
                done += file.write(data[done:]) or 0
        finally:
            for record in chunk:
                if done < len(record):
                    break
                done -= len(record)
                self._waiting.popleft()
                self._waiting_bytes -= len(record)
                self._written += len(record)

    def _leave(self, cut: bool = False) -> None:
        """Close the file, which is opened anew for the next record; ``cut`` off what was written in part."""
        file, self._file = self._file, None
        if file is None:
            return
        with suppress(OSError, ValueError):  # it is cut again when it is opened again
            if cut:
                file.truncate(self._written)
        with suppress(OSError):  # closed already, or told late; what is not there is found missing by its length
            file.close()


def line_end(file: io.FileIO, end: int) -> int:
    """The last place at or before ``end`` that follows a line's end; 0 if there is none."""
    while end > 0:
        start = max(0, end - (1 << 16))
        file.seek(start)
        found = (file.read(end - start) or b"").rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class PeriodAverage:
    """Makes one record of the many of a role: counters keep their last value, seconds add up, the rest is averaged.

    Values that are not finite are left out of averages and counted under ``nonfinite``.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Empty, or as ``state()`` of another one describes."""
        state = state or {}
        self.records: int = state.get("records", 0)
        self._total: dict[str, float] = dict(state.get("total", {}))
        self._count: dict[str, int] = dict(state.get("count", {}))
        self._last: dict[str, Value] = dict(state.get("last", {}))
        self._nonfinite: int = state.get("nonfinite", 0)

    def add(self, values: Mapping[str, Value]) -> None:
        """Take one record in."""
        self.records += 1
        for name, value in values.items():
            if name in LARGEST:
                self._last[name] = max(value, self._last.get(name, value))  # type: ignore[type-var]
            elif name in COUNTERS or not isinstance(value, (int, float)):
                self._last[name] = value
            elif math.isfinite(value):
                self._total[name] = self._total.get(name, 0.0) + value
                self._count[name] = self._count.get(name, 0) + 1
            else:
                self._nonfinite += 1
                self._count.setdefault(name, 0)

    def take(self) -> dict[str, Value]:
        """The period's record; the next one starts empty."""
        result = dict(self._last)
        for name, count in self._count.items():
            if name.endswith("_s"):
                result[name] = self._total.get(name, 0.0)
            else:
                result[name] = self._total[name] / count if count else None
        if self._nonfinite:
            result["nonfinite"] = self._nonfinite
        self.__init__()  # type: ignore[misc]
        return result

    def state(self) -> dict[str, Any]:
        """Everything in it, as JSON can hold it."""
        return {
            "records": self.records,
            "total": dict(self._total),
            "count": dict(self._count),
            "last": dict(self._last),
            "nonfinite": self._nonfinite,
        }


class Meter:
    """Rates of counters that several roles report now and then, each measured between its own reports.

    A counter that falls belongs to a role that started again, from zero.
    """

    def __init__(self, counts: Mapping[str, float] | None = None, now_s: float = 0.0) -> None:
        """``counts``: where the counters of a resumed run stood."""
        self._base = {role: (count, now_s) for role, count in (counts or {}).items()}
        self._newest = dict(self._base)
        self._start_s = now_s

    def update(self, role: str, count: float, now_s: float) -> None:
        """The counter of ``role`` is ``count`` now."""
        last_count, _ = self._newest.get(role, (0.0, 0.0))
        if count < last_count:
            base_count, base_s = self._base.get(role, (0.0, self._start_s))
            self._base[role] = (base_count - last_count, base_s)
        self._newest[role] = (count, now_s)

    def per_s(self, least_s: float = 0.0) -> float | None:
        """Sum of all roles' rates since ``restart``; None if there was no report ``least_s`` or more after it."""
        total, longest = 0.0, 0.0
        for role, (count, now_s) in self._newest.items():
            base_count, base_s = self._base.get(role, (0.0, self._start_s))
            if now_s > base_s:
                total += (count - base_count) / (now_s - base_s)
                longest = max(longest, now_s - base_s)
        return total if longest > 0 and longest >= least_s else None

    def restart(self) -> None:
        """Measure from the newest reports on."""
        self._base = dict(self._newest)

    def counts(self) -> dict[str, float]:
        """Where the counters stand, for a checkpoint."""
        return {role: count for role, (count, _) in self._newest.items()}


def plain(value: Value) -> Value:
    """``value`` as JSON should show it: whole numbers as int, seven digits otherwise, None for what is not finite."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain_number(float(item)) for item in value]  # type: ignore[misc]
    return _plain_number(float(value))  # type: ignore[arg-type]


def _plain_number(number: float) -> float | int | None:
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.7g}")


class EventWriter:
    """TensorBoard scalars, with environment frames as the step, in an event file that a full disk does not end.

    TensorBoard's own writer has a thread that dies of the first error, and every later call raises that error;
    ``torch.utils.tensorboard`` is built on it and would cost two seconds of imports.
    """

    def __init__(self, folder: Path, *, purge_from: int | None = None, say: Callable[[str], None] = print) -> None:
        """Open a new event file in ``folder``; events of earlier files at steps >= ``purge_from`` are hidden."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._framed = event_pb2.Event, summary_pb2.Summary, RecordWriter
        version = self._event(wall_time=time.time(), file_version="brain.Event:2")
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        path = next(path for i in itertools.count() if not (path := folder / f"{name}.{i}").exists())
        self._file = AppendFile(path, header=self._record(version), lines=False, say=say)
        if purge_from is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(self._event(wall_time=time.time(), step=purge_from, session_log=start))

    def scalars(self, values: Mapping[str, Value], step: int, prefix: str) -> None:
        """Write the numbers of one record as ``prefix/name``."""
        scalars = [
            self._summary.Value(tag=f"{prefix}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        ]
        if scalars:
            self._add(self._event(wall_time=time.time(), step=step, summary=self._summary(value=scalars)))

    def flush(self) -> None:
        """Put everything on disk."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _add(self, event: Any) -> None:
        self._file.append(self._record(event))

    def _record(self, event: Any) -> bytes:
        """An event as the file holds it: with its length and checksums."""
        record = io.BytesIO()
        self._framed(record).write(event.SerializeToString())
        return record.getvalue()

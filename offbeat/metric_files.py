"""The files behind ``MetricLogger``: append-only text with a resumable offset, period averages, TensorBoard events."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Value = float | int | str | None | Sequence[float]
"""What a record may hold under one name."""

COUNTERS = frozenset({
    "updates", "samples", "frames", "agent_steps", "steps", "policy_version", "version", "learning_rate", "skipped",
    "sampled_rows", "dropped_unrolls", "skipped_unrolls", "stored_rows",
})  # fmt: skip
"""Names whose last value stands for a period; names ending in ``_s`` are summed, all others averaged."""

MOST_KEPT_BYTES = 64 << 20
"""Lines that a full disk did not take are kept in memory up to so many bytes."""


class AppendFile:
    """A text file that is only ever appended to, in chunks, and can be cut back to a remembered length."""

    def __init__(self, path: Path, *, offset: int = 0, header: str = "", chunk_bytes: int = 1 << 16) -> None:
        """Open ``path`` and drop everything after ``offset`` bytes; an empty file starts with ``header``.

        Raises ValueError where the file is shorter than ``offset``: lines that a checkpoint counted are gone.
        """
        self.path = path
        self._chunk_bytes = chunk_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        length = self._file.seek(0, 2)
        if length < offset:
            self._file.close()
            raise ValueError(f"{path} has {length} bytes, the checkpoint remembers {offset}; put the longer file back")
        self._file.truncate(offset)
        self._file.seek(offset)
        self._written = offset
        if offset == 0 and header:
            self.write(header)

    def write(self, line: str) -> None:
        """Append one line (without its line end)."""
        data = f"{line}\n".encode()
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= self._chunk_bytes:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system in one write. What a full disk does not take waits for the next."""
        data, start = b"".join(self._pending), self._written
        self._pending.clear()
        try:
            while self._written < start + len(data):
                self._written += self._file.write(memoryview(data)[self._written - start :]) or 0
        except OSError:
            whole = data.rfind(b"\n", 0, self._written - start) + 1
            self._written = start + whole
            self._file.truncate(self._written)
            self._file.seek(self._written)
            if len(data) - whole > MOST_KEPT_BYTES:
                raise
            self._pending.append(data[whole:])
        self._pending_bytes = start + len(data) - self._written

    def offset(self) -> int:
        """Bytes of the file once everything that the disk takes is on it (flushes)."""
        self.flush()
        return self._written

    def close(self) -> None:
        """Flush and close; harmless when called twice."""
        if not self._file.closed:
            self.flush()
            self._file.close()


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
            if name in COUNTERS or not isinstance(value, (int, float)):
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
    """TensorBoard scalars, with environment frames as the step.

    Uses TensorBoard's own event writer: ``torch.utils.tensorboard`` would cost two seconds of imports.
    """

    def __init__(self, folder: Path, *, purge_from: int | None = None) -> None:
        """Open a new event file in ``folder``; events of earlier files at steps >= ``purge_from`` are hidden."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder), max_queue_size=1000, flush_secs=30)
        if purge_from is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(self._event(wall_time=time.time(), step=purge_from, session_log=start))

    def scalars(self, values: Mapping[str, Value], step: int, prefix: str) -> None:
        """Write the numbers of one record as ``prefix/name``."""
        scalars = [
            self._summary.Value(tag=f"{prefix}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        ]
        if scalars:
            self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=scalars)))

    def flush(self) -> None:
        """Put everything on disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

"""A training run in processes of its own, followed from outside: what it has learnt, its memory, its processor time."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from offbeat.config.run_config import RunConfig, to_toml
from offbeat.errors import UserError

LONGEST_START_S = 300.0
"""A run that has not made its first update by then counts as hung, and one that has not reported for so long. Compiling
is the slowest. Unit: seconds."""
SLOWEST_FILL = 100.0
"""So much longer may a run take that must store rows before its first update. Unit: rows per second."""
STOP_S = 30.0
"""A run that has not ended by then is killed with all of its processes. Unit: seconds."""
LOOK_S = 0.05
"""The run's files are looked at so often. Unit: seconds."""


@dataclass(frozen=True)
class Point:
    """Where a run was when its learner last reported."""

    seconds: float
    """Since the run began."""
    agent_steps: int
    frames: int
    samples: int
    """Transitions trained on, replayed ones included; neither padding nor final observations."""
    updates: int
    policy_lag: float | None
    learner_wait: float | None
    """Share of the learner's time spent waiting for batches, since its last report."""


class LiveRun:
    """``config`` being trained in a temporary folder without evaluations, checkpoints and end; a context manager.

    Args:
        config: the run.
        deadline: ``time.monotonic()`` beyond which nothing of it is waited for.
        stop_s: how long its end is waited for before it is killed. Unit: seconds.
    """

    def __init__(self, config: RunConfig, *, deadline: float = math.inf, stop_s: float = STOP_S) -> None:
        self._deadline, self._stop_s = deadline, stop_s
        self._folder = tempfile.TemporaryDirectory(prefix="offbeat-bench-")
        self._run = Path(self._folder.name) / "run"
        preset = Path(self._folder.name) / "preset.toml"
        preset.write_text(to_toml(endless(config)))
        command = [sys.executable, "-m", "offbeat", "train", str(preset), "--out", str(self._run)]
        self._output = Path(self._folder.name) / "output.txt"
        self.longest_start_s = LONGEST_START_S + rows_before_training(config) / SLOWEST_FILL
        self.started = time.monotonic()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def __enter__(self) -> LiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = process_family(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=self._stop_s)
        except subprocess.TimeoutExpired:
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._folder.cleanup()

    def point(self) -> Point | None:
        """Where the run is; None before the first update. Raises ``UserError`` if it has ended."""
        if self._process.poll() is not None:
            last = self._output.read_text(errors="replace").strip().splitlines()[-12:]
            raise UserError("the run that was to be measured has ended:\n" + "\n".join(last))
        path = self._run / "progress.csv"
        if not path.exists():
            return None
        text = path.read_text()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        return _point(rows[-1]) if rows and int(rows[-1]["updates"]) else None

    def wait_for_first_update(self) -> float:
        """Seconds from the command to the first report of an update, which comes after ``rows_before_training``."""
        while self.point() is None:
            self._look_again(self.started, self.longest_start_s, "the run has made no update in")
        return time.monotonic() - self.started

    def next_point(self) -> Point:
        """The learner's next report, as soon as it is there."""
        last, began = self.point(), time.monotonic()
        while (point := self.point()) is None or point == last:
            self._look_again(began, LONGEST_START_S, "the run's learner has reported nothing for")
        return point

    def _look_again(self, since: float, most_s: float, what: str) -> None:
        """Sleep until the next look at the run's files. ``UserError`` where ``most_s`` or all of the time is over."""
        now = time.monotonic()
        if now - since > most_s:
            raise UserError(f"{what} {most_s:.0f} s")
        if now > self._deadline:
            raise UserError(f"{what} {now - since:.0f} s, and no time is left")
        time.sleep(LOOK_S)

    def memory_bytes(self) -> int:
        """Proportional set size of all processes of the run together: shared pages count once. 0 where unknown."""
        return sum(memory_of(pid) for pid in process_family(self._process.pid))

    def processor_s(self) -> float:
        """Processor time of all processes of the run that are alive. Unit: seconds."""
        return sum(processor_s_of(pid) for pid in process_family(self._process.pid))


def endless(config: RunConfig) -> RunConfig:
    """The same run without an end, scores and checkpoints, reporting as often as its learner does.

    The learning rate stays where it starts.
    """
    return replace(
        config,
        out="",
        total_frames=2**53,
        evaluation=replace(config.evaluation, every_frames=0, at_end=False),
        checkpoint=replace(config.checkpoint, every_s=0.0, every_updates=0, replay=False),
        log=replace(config.log, every_updates=1, tensorboard=False, dashboard=False),
    )


def rows_before_training(config: RunConfig) -> int:
    """Rows that must be stored before the first update: the largest ``min_rows`` of the samplers that have one."""
    return config.replay.min_rows


def process_family(pid: int) -> list[int]:
    """``pid`` and all its descendants; [] where it has ended. Linux; elsewhere only ``pid``."""
    family, todo = [], [pid]
    while todo:
        parent = todo.pop()
        if Path("/proc").exists() and not Path(f"/proc/{parent}").exists():
            continue
        family.append(parent)
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                todo += [int(child) for child in children.read_text().split()]
    return family


def memory_of(pid: int) -> int:
    """Proportional set size of one process in bytes; 0 where it has ended or the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def processor_s_of(pid: int) -> float:
    """Processor time of one process in seconds; 0 where it has ended or the system does not tell."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _point(row: dict[str, str]) -> Point:
    def optional(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return Point(
        seconds=float(row["seconds"]),
        agent_steps=int(row["agent_steps"]),
        frames=int(row["frames"]),
        samples=int(row["samples"]),
        updates=int(row["updates"]),
        policy_lag=optional("policy_lag"),
        learner_wait=optional("learner_wait"),
    )

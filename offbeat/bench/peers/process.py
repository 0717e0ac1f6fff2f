"""A peer that trains in processes of its own, from its own virtual environment, followed by the counter it reports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from offbeat.bench.live import memory_of, process_family, processor_s_of
from offbeat.bench.peers.measure import LONGEST_SILENCE_S, Point, RunFailed

STOP_S = 20.0
"""What a peer gets to end by itself before it is killed. Unit: seconds."""
REST_S = 5.0
"""What its other processes get once the first has ended. Unit: seconds."""
LAST_LINES = 12
"""Lines of a peer's output that are shown when it fails."""
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables of our own Python that would mislead another one."""


class PeerRun:
    """``script`` run by ``python`` in a process group and folder of its own; a context manager that leaves nothing.

    The script's standard output holds lines of JSON: first what runs, then ``{"frames": total, "seconds": monotonic}``.
    Its standard input is a pipe that closes when this process ends, however it does.
    """

    patience_s = LONGEST_SILENCE_S

    def __init__(self, python: Path, script: Path, arguments: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="offbeat-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._counters, self._output = folder / "counters.jsonl", folder / "output.txt"
        (folder / "work").mkdir()
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment["PATH"] = os.pathsep.join([str(python.parent), environment.get("PATH", os.defpath)])
        self.started = time.monotonic()
        with self._counters.open("wb") as counters, self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(python), str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=counters,
                stderr=output,
                cwd=folder / "work",
                env=environment,
                start_new_session=True,
            )

    def __enter__(self) -> PeerRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the peer: as Ctrl-C would, so that it frees its shared memory, then by force."""
        family = {pid: began(pid) for pid in process_family(self._process.pid)}
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)  # to the first alone, which knows how to end the others
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_S)
                wait_for_end(family)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            try:
                wait_for_end(family)  # outside of the group: those that clean up once the others are gone
            finally:
                for pid in alive(family):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._folder.cleanup()

    def about(self) -> dict[str, Any]:
        """What the script said of itself: ``version``, ``torch``, ``workload``, ``counts``; {} before."""
        return next((line for line in self._lines() if "version" in line), {})

    def point(self) -> Point | None:
        """The newest counter; None before the first. Raises ``RunFailed`` if the peer has ended."""
        ended = self._process.poll()
        if ended is not None:
            raise RunFailed(f"it ended with exit code {ended}", self.last_lines())
        counters = [line for line in self._lines() if line.get("frames", 0) > 0]
        return Point(counters[-1]["seconds"], counters[-1]["frames"]) if counters else None

    def last_lines(self) -> list[str]:
        """The end of what the peer printed, without colours."""
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self._output.read_text(errors="replace"))
        return [line for line in re.split(r"[\r\n]+", text) if line.strip()][-LAST_LINES:]

    def memory_bytes(self) -> int:
        """Proportional set size of all its processes together. 0 where unknown."""
        return sum(memory_of(pid) for pid in process_family(self._process.pid))

    def processor_s(self) -> float:
        """Processor time of all its processes that are alive. Unit: seconds."""
        return sum(processor_s_of(pid) for pid in process_family(self._process.pid))

    def _lines(self) -> list[dict[str, Any]]:
        """Complete lines of the script's standard output."""
        text = self._counters.read_text(errors="replace")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def began(pid: int) -> str:
    """When a process began, in ticks of the system; '' where it has ended or the system does not tell."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def alive(family: dict[int, str]) -> list[int]:
    """Those of ``family`` (process -> when it began) that still run; a number that was given anew is another's."""
    return [pid for pid, start in family.items() if start and began(pid) == start]


def wait_for_end(family: dict[int, str]) -> None:
    """Until none of these processes runs, but at most ``REST_S``: the next measurement needs the machine."""
    deadline = time.monotonic() + REST_S
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.05)

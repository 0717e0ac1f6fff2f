"""``offbeat`` as a user starts it, in a process group of its own, with what a fault needs: its roles, its output."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from offbeat.run.chaos.verdicts import Broken
from offbeat.run.passing_on import ends_with_parent

PATIENCE_S = 120.0
"""Longest wait for anything but training that goes on; machines are busy. Unit: seconds."""
LOOK_S = 0.05
"""How often something is looked at that is waited for. Unit: seconds."""
MARK = "OFFBEAT_CHAOS_RUN"
"""Environment variable that all processes of a run have, so that those left behind are found."""
STACK = re.compile(r"/\.stack-(.+)-\d+$")
"""The file that a role holds open for its stacks; it holds the role's name."""
SHOWN = 200
"""So many characters of a line are shown."""


class Child:
    """A running ``offbeat`` command; its output goes to ``output.txt`` in its folder ``work``."""

    def __init__(
        self,
        arguments: list[str],
        work: Path,
        *,
        shell: str = "",
        stdout: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. ``shell``: what a shell does around it, e.g. ``'exec "$@" >/dev/full'``; ``stdout``: a descriptor
        in the place of the file; ``variables``: further ones of its environment.
        """
        command = [sys.executable, "-m", "offbeat", *arguments]
        if shell:
            command = ["sh", "-c", shell, "sh", *command]
        self._temporary = work / "tmp"
        self._temporary.mkdir(exist_ok=True)
        self._mark = f"{MARK}={self._temporary}"
        self._output = work / "output.txt"
        self._shared: set[Path] = set()
        own = {MARK: str(self._temporary), "TMPDIR": str(self._temporary), "PYTHONUNBUFFERED": "1"}
        with self._output.open("ab") as output:
            self._before = output.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=subprocess.STDOUT if stdout is None else output,
                start_new_session=True,
                preexec_fn=_as_from_a_shell(),
                env=os.environ | own | dict(variables or {}),
            )

    @property
    def output(self) -> str:
        """Everything that this command has printed so far."""
        with self._output.open("rb") as file:
            file.seek(self._before)
            return file.read().decode(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that it has printed."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1][:SHOWN] if lines else "(it printed nothing)"

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def until(self, ready: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until ``ready()``, which ``what`` names; the seconds that took. Broken where the command ends first."""
        began = time.monotonic()
        while not ready():
            if not self.running():
                raise Broken(what, f"exit code {self.process.returncode}: {self.last_line}")
            if time.monotonic() - began > patience_s:
                raise Broken(f"{what} within {patience_s:.0f} s", f"nothing of it; last line: {self.last_line}")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def until_said(self, text: str) -> float:
        """Wait until it has printed ``text``; the seconds that took."""
        return self.until(lambda: text in self.output, f"the line {text!r}")

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the end; the exit code. Broken where it does not end."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"an end within {patience_s:.0f} s", f"it runs on; last line: {self.last_line}") from None

    def tell(self, number: signal.Signals) -> None:
        """A signal for the whole group, as a terminal sends it."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it and all that is left of it, and wait until all of that is gone."""
        if self.running():  # it is not reaped yet, so the group's number is still its own
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        deadline = time.monotonic() + PATIENCE_S
        while (pids := self.marked()) and time.monotonic() < deadline:  # a killed process lives on for a moment
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)

    def roles(self) -> dict[str, int]:
        """Role -> process, of those that have started."""
        found = {}
        for pid in self.marked():
            for link in _targets(Path(f"/proc/{pid}/fd")):
                if match := STACK.search(link.removesuffix(" (deleted)")):
                    found[match[1]] = pid
        return found

    def marked(self) -> list[int]:
        """All processes of this run that live, by the variable that they have inherited; on Linux."""
        wanted, found = self._mark.encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0") and state(int(entry.name)) not in ("", "Z"):
                    found.append(int(entry.name))
        return sorted(found)

    def note_shared(self) -> None:
        """Remember the files in shared memory that its processes have mapped now."""
        for pid in self.marked():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                names = (line.partition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line)
                self._shared.update(Path("/dev/shm") / name for name in names if not name.endswith(" (deleted)"))

    def left_behind(self, patience_s: float = 10.0) -> str:
        """What there is of it after its end: processes, shared memory, temporary files; empty: nothing."""
        deadline = time.monotonic() + patience_s
        while (pids := self.marked()) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        files = [path for path in self._temporary.iterdir() if not path.name.startswith("torchinductor")]
        left = [f"process {pid}" for pid in pids] + [str(path) for path in [*self._shared, *files] if path.exists()]
        return ", ".join(left)


def state(pid: int) -> str:
    """The letter of a process's state, such as T for stopped; empty where there is none of that number; on Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def descriptors(pid: int) -> int:
    """How many descriptors a process has open; on Linux."""
    return len(_targets(Path(f"/proc/{pid}/fd")))


def _targets(folder: Path) -> list[str]:
    """What the links in a folder of /proc lead to; none where the process is gone."""
    found = []
    with contextlib.suppress(OSError):
        for link in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
    return found


def _as_from_a_shell() -> Callable[[], None]:
    """What the child does before anything else: it takes signals as from a shell, and ends with this process."""
    tie = ends_with_parent()

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if tie is not None:
            tie()

    return prepare

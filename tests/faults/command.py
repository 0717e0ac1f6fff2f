"""``python -m offbeat`` as a user starts it, with what a test needs to break it: signals, its children, its log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from offbeat.storage.checkpoint import newest

PATIENCE_S = 100.0
"""Longest wait for anything; generous, as machines under test are busy. Unit: seconds."""

PRESET = """
total_frames = 1000000000
[env]
id = "toy/counting"
length = 4
{agent}
[actor]
workers = 1
envs_per_worker = 4
[learner]
batch_size = 4
unroll_length = 5
[evaluation]
every_frames = 0
at_end = false
episodes = 2
envs = 2
[checkpoint]
every_s = 0
[log]
tensorboard = false
dashboard = false
every_s = 0.5
"""


TRAINED = "impala"
"""The agent of ``training``."""
AGENTS = {
    "impala": """
[agent]
name = "impala"
hidden_size = [8]
""",
    "dqn": """
[agent]
name = "dqn"
hidden_size = [8]
explore = 1000
[replay]
capacity = 400
samples_per_insert = 1.0
[[replay.samplers]]
kind = "uniform"
min_rows = 20
""",
    "r2d2": """
[agent]
name = "r2d2"
hidden_size = [8]
core_size = 4
head_size = 0
length = 4
burn_in = 2
period = 2
n_step = 2
[replay]
capacity = 400
samples_per_insert = 4.0
[[replay.samplers]]
kind = "prioritised"
min_rows = 20
initial_priority = "actor"
""",
}
"""Agents of each kind, and what they train on."""


class Command:
    """A running command in a process group of its own."""

    def __init__(self, *arguments: str, folder: Path, shell: str = "", stdout: int | None = None) -> None:
        """``shell``: what a shell does around it, e.g. ``'"$@" | head -5'``; ``stdout``: in the place of a file."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "offbeat", *arguments]
        if shell:
            command = ["sh", "-c", shell, "sh", *command]
        self._output = folder / "output.txt"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=subprocess.STDOUT if stdout is None else output,
                start_new_session=True,
                preexec_fn=_default_signals,
                env=environment,
            )

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text(errors="replace")

    def until(self, ready: Callable[[], object], what: str) -> None:
        """Wait until ``ready()``; fails when the command ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.output}"
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        """Wait until it has printed ``text``."""
        self.until(lambda: text in self.output, f"it said {text!r}")

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.output}") from None

    def press_ctrl_c(self) -> None:
        """SIGINT for the whole group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def children(self) -> list[int]:
        """Processes of its roles, in the order in which they started: learner, evaluator, actor-0, ..."""
        return [pid for pid in descendants(self.process.pid) if "spawn_main" in command_line(pid)]


def _default_signals() -> None:
    """What a shell gives a command: a suite that was itself started in the background ignores some signals."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def running(*arguments: str, folder: Path, shell: str = "", stdout: int | None = None) -> Iterator[Command]:
    """A command that is gone afterwards, whatever happens."""
    command = Command(*arguments, folder=folder, shell=shell, stdout=stdout)
    try:
        yield command
    finally:
        if command.process.poll() is None:  # it is not reaped yet, so the group's number is still its own
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.wait()


@contextlib.contextmanager
def training(folder: Path, *options: str, shell: str = "", stdout: int | None = None) -> Iterator[Command]:
    """``offbeat train`` of a tiny endless run in ``folder``/run, of the agent that ``TRAINED`` names."""
    preset = folder / "tiny.toml"
    preset.write_text(PRESET.replace("{agent}", AGENTS[TRAINED]))
    arguments = ("train", str(preset), "--out", str(folder / "run"), *options)
    with running(*arguments, folder=folder, shell=shell, stdout=stdout) as command:
        yield command


def saved(folder: Path) -> list[str]:
    """Names of the checkpoints in ``folder``/run."""
    return sorted(path.name for path in (folder / "run" / "checkpoints").glob("[0-9]*"))


def intact(folder: Path) -> bool:
    """Whether the newest checkpoint of ``folder``/run is complete."""
    broken: list[str] = []
    return newest(folder / "run", report=broken.append) is not None and not broken


def resumes(folder: Path, total_frames: int) -> str:
    """Go on with ``folder``/run to its new end; what was printed."""
    with running("resume", str(folder / "run"), "--total-frames", str(total_frames), folder=folder) as command:
        assert command.wait() == 0, command.output
        return command.output


def descendants(pid: int) -> list[int]:
    """Children of a process, by age."""
    task = Path(f"/proc/{pid}/task")
    if task.exists():
        return sorted(int(child) for path in task.glob("*/children") for child in path.read_text().split())
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, found.split()))


def command_line(pid: int) -> str:
    """How a process was started; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return _ps(pid, "args") if not Path("/proc/self").exists() else ""


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        state = _ps(pid, "stat") if not Path("/proc/self").exists() else ""
    return bool(state) and not state.startswith("Z")


def _ps(pid: int, column: str) -> str:
    return subprocess.run(["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()

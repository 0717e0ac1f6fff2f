"""No output ends a run or holds it up: terminals that are gone, full, closed or not read; files that cannot be used."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.command import Command, intact, resumes, saved, training

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes and disks of Linux")

OFTEN = ("--engine", "inline", "--checkpoint.every-updates", "20", "--log.tensorboard", "true")
PROMPT_S = 30.0
"""A run with nothing to do but save ends within this; generous, as machines under test are busy."""


def slow(value: str) -> object:
    """A parameter for the slow suite."""
    return pytest.param(value, marks=pytest.mark.slow)


def log(folder: Path) -> str:
    """The run's log so far."""
    path = folder / "run" / "run.log"
    return path.read_text() if path.exists() else ""


def goes_on(command: Command, folder: Path, checkpoints: int = 2) -> None:
    """Wait until it has saved some more."""
    seen = set(saved(folder))

    def saw() -> int:
        seen.update(saved(folder))
        return len(seen)

    wanted = len(seen) + checkpoints
    command.until(lambda: saw() >= wanted, f"{checkpoints} more checkpoints")


def stops(command: Command, folder: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """A signal saves and ends it soon, with exit code 0."""
    os.killpg(command.process.pid, number)
    began = time.monotonic()
    code = command.wait()
    assert time.monotonic() - began < PROMPT_S
    assert code == 0, (code, command.output, log(folder))
    assert f"stopped ({number.name}) and saved" in log(folder)
    assert "Traceback" not in command.output
    assert "Exception ignored" not in command.output
    assert intact(folder)


def test_a_reader_that_has_seen_enough_leaves_the_run_training(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with training(tmp_path, *OFTEN, stdout=writing) as command:
        os.close(writing)
        with os.fdopen(reading) as lines:
            assert "run" in lines.readline()
        command.until(lambda: "standard output takes no more lines" in log(tmp_path), "it noticed")
        goes_on(command, tmp_path)
        stops(command, tmp_path)
    assert log(tmp_path).count("standard output takes no more lines (Broken pipe)") == 1
    assert command.output.count("offbeat: standard output takes no more lines (Broken pipe)") == 1


def test_a_run_whose_reader_left_finishes_with_exit_code_0(tmp_path: Path) -> None:
    shell = '("$@"; echo "code $?" >&2) | head -n 1'
    with training(tmp_path, "--engine", "inline", "--total-frames", "2000", shell=shell) as command:
        command.wait()
        assert "code 0" in command.output
    assert "main finished: " in log(tmp_path)


@pytest.mark.parametrize("shell", ['exec "$@" >/dev/full', slow('exec "$@" >/dev/full 2>&1'), 'exec "$@" >&- 2>&- <&-'])
def test_a_terminal_that_takes_nothing(shell: str, tmp_path: Path) -> None:
    with training(tmp_path, *OFTEN, shell=shell) as command:
        goes_on(command, tmp_path)
        stops(command, tmp_path)
    reason = "it is closed" if "&-" in shell else "No space left on device"
    assert log(tmp_path).count(f"standard output takes no more lines ({reason})") == 1
    for name in ("metrics.jsonl", "progress.csv", "config.toml"):
        assert "progress frames" not in (tmp_path / "run" / name).read_text(), "a file in the terminal's place"


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe in which nothing more fits, and that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


@pytest.mark.parametrize(("engine", "number"), [("inline", signal.SIGINT), ("local", signal.SIGTERM)])
def test_a_pipe_that_nobody_reads_neither_stalls_the_run_nor_its_end(
    engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    """The environment prints too, in the process where it is."""
    options = ("--engine", engine, "--env", "toy/print@1", "--actor.hang-timeout-s", "20")
    with full_pipe() as writing, training(tmp_path, *OFTEN, *options, stdout=writing) as command:
        goes_on(command, tmp_path)
        if engine == "inline":
            command.until(
                lambda: "standard output takes no more lines (nobody reads it)" in log(tmp_path), "it said so"
            )
        goes_on(command, tmp_path)
        stops(command, tmp_path, number)
    assert "showed no life" not in log(tmp_path)


@pytest.mark.parametrize("fault", ["pipe", slow("exit")])
def test_an_environments_broken_pipe_is_not_taken_for_the_terminals(fault: str, tmp_path: Path) -> None:
    shell = '("$@"; echo "code $?" >&2) | head -n 1'
    with training(tmp_path, "--engine", "inline", "--env", f"toy/{fault}@60", shell=shell) as command:
        command.wait()
        assert "code 1" in command.output
        assert f"toy/{fault}: raised on purpose" in command.output
        assert "Traceback" in command.output


@pytest.mark.parametrize("then", ["unread", slow("closed")])
def test_a_terminal_that_nobody_reads_or_that_is_closed(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dashboard draws on it; it takes 4 KiB and no more."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    options = ("--log.dashboard", "true", "--log.every-s", "0.1")
    with training(tmp_path, *OFTEN, *options, stdout=slave) as command:
        os.close(slave)
        goes_on(command, tmp_path, 5)
        if then == "closed":
            os.close(master)
            goes_on(command, tmp_path, 5)
        stops(command, tmp_path, signal.SIGINT)
    if then == "closed":
        assert "standard output takes no more lines (Input/output error)" in log(tmp_path)
    else:
        os.close(master)


@pytest.mark.slow
def test_a_closed_terminal_saves_and_stops_like_sigterm(tmp_path: Path) -> None:
    with training(tmp_path, "--checkpoint.every-updates", "20") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        os.killpg(command.process.pid, signal.SIGHUP)  # by the kernel and by the shell
        stops(command, tmp_path, signal.SIGHUP)
    assert "finished" in resumes(tmp_path, int(saved(tmp_path)[-1]) + 100)


@pytest.mark.slow
def test_a_terminal_closed_after_ctrl_c_does_not_keep_it_from_saving(tmp_path: Path) -> None:
    with training(tmp_path, *OFTEN) as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        command.press_ctrl_c()
        os.killpg(command.process.pid, signal.SIGHUP)
        assert command.wait() == 0, command.output
    assert ") and saved at" in log(tmp_path)


@pytest.mark.slow
def test_nohup_is_obeyed(tmp_path: Path) -> None:
    with training(tmp_path, *OFTEN, shell='exec nohup "$@"') as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        os.killpg(command.process.pid, signal.SIGHUP)
        goes_on(command, tmp_path)
        stops(command, tmp_path)


@contextmanager
def failing_disk(folder: Path) -> Iterator[Path]:
    """A disk that becomes read-only at its first error, as servers' disks do; skips where none may be mounted."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(120 << 20)
    disk = folder / "disk"
    disk.mkdir()
    mount = ("mount", "-o", "loop,errors=remount-ro", str(image), str(disk))
    for command in (("mkfs.ext4", "-q", str(image)), mount):
        try:
            done = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            done = False
        if not done:
            pytest.skip("may not mount a disk here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def break_disk(disk: Path) -> None:
    """Its first error."""
    device = subprocess.run(["findmnt", "-no", "SOURCE", str(disk)], capture_output=True, text=True).stdout.strip()
    trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip("this kernel breaks no disks")
    trigger.write_text("1")


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_ends_no_run(tmp_path: Path) -> None:
    with failing_disk(tmp_path) as disk:
        options = (*OFTEN, "--engine", "local", "--out", str(disk / "run"), "--checkpoint.keep", "2")
        with training(tmp_path, *options) as command:
            command.until(lambda: len(saved(disk)) >= 2, "two checkpoints")
            break_disk(disk)
            command.until_said("checkpoint failed, the run goes on")
            shown = command.output.count("progress ")
            command.until(lambda: command.output.count("progress ") > shown + 8, "it trains")
            command.press_ctrl_c()
            assert command.wait() == 2, command.output
            assert "the run's end is not saved" in command.output
            assert "Traceback" not in command.output
            for name in ("metrics.jsonl", "progress.csv", "run.log", "events.out.tfevents"):
                said = [line for line in command.output.splitlines() if name in line and "cannot be written" in line]
                assert len(said) == 1, (name, said)
                assert "Read-only file system" in said[0]
        assert intact(disk)


def lines(folder: Path) -> list[dict[str, object]]:
    """The records of ``folder``/run."""
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def finished(folder: Path) -> int:
    """A run of a few seconds; its length."""
    with training(folder, "--engine", "inline", "--total-frames", "2000", "--log.tensorboard", "true") as command:
        assert command.wait() == 0, command.output
    return 2000


def cut(path: Path, size: int) -> int:
    """Cut a file as a power cut does; its whole lines."""
    with path.open("r+b") as file:
        file.truncate(size)
    return path.read_bytes().count(b"\n")


def test_files_that_a_power_cut_shortened_do_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    frames, run = finished(tmp_path), tmp_path / "run"
    whole = cut(run / "metrics.jsonl", (run / "metrics.jsonl").stat().st_size // 2)
    assert not (run / "metrics.jsonl").read_bytes().endswith(b"\n")
    cut(run / "progress.csv", 7)
    cut(run / "environment.json", 100)
    said = resumes(tmp_path, frames + 500)
    assert "finished" in said
    assert len(lines(tmp_path)) > whole
    table = (run / "progress.csv").read_text().splitlines()
    assert table[0].startswith("seconds,frames,")
    assert len({line.count(",") for line in table}) == 1
    assert json.loads((run / "environment.json").read_text())["seed"] == 0
    assert len((run / "environment.json.broken").read_bytes()) == 100
    for name in ("metrics.jsonl", "progress.csv", "environment.json"):
        assert sum(name in line for line in said.splitlines()) == 1, said


@pytest.mark.slow
def test_files_that_are_something_else_are_moved_aside(tmp_path: Path) -> None:
    frames, run = finished(tmp_path), tmp_path / "run"
    for name in ("metrics.jsonl", "progress.csv", "environment.json", "run.log"):
        (run / name).unlink()
    (run / "metrics.jsonl").mkdir()
    os.mkfifo(run / "progress.csv")
    (run / "environment.json").write_text("[1]")
    (run / "run.log").mkdir()
    said = resumes(tmp_path, frames + 500)
    assert "finished" in said
    assert (run / "metrics.jsonl.broken").is_dir()
    assert (run / "progress.csv.broken").is_fifo()
    assert (run / "environment.json.broken").read_text() == "[1]"
    assert "finished" in log(tmp_path)
    assert lines(tmp_path)
    for name in ("metrics.jsonl", "progress.csv", "environment.json"):
        assert sum(name in line for line in said.splitlines()) == 1, said

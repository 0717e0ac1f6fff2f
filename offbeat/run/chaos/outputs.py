"""Terminals that are gone, full, closed or not read, and disks that are full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offbeat.run.chaos.child import Child
from offbeat.run.chaos.ground import Fault, Ground, copied, ended, goes_on, intact, role, saved, within
from offbeat.run.chaos.verdicts import Unfit, expect

PROMPT_S = 10.0
"""A run that is told to stop ends within this. Unit: seconds."""
FAILED = "checkpoint failed, the run goes on and earlier ones are kept"
"""What is said of a checkpoint that could not be written."""
SMALL = 200
"""A file of this size is smaller than any checkpoint. Unit: bytes."""
ROOM = 256 << 20
"""So much more than some runs is on a small disk. Unit: bytes."""
NO_LINES = "standard output takes no more lines"
"""What run.log says of a terminal that is gone."""


def _log(run: Path) -> str:
    path = run / "run.log"
    return path.read_text() if path.exists() else ""


def _resumed(ground: Ground, reason: str, **child: Any) -> str:
    """The shared run is resumed with another standard output, goes on without, says why, and stops as ever.

    ``reason``: what run.log says, once. Empty: it says nothing.
    """
    run = ground.stopped()
    before = len(_log(run))
    begun = ground.resume(run, **child)
    goes_on(begun, run)
    if reason:
        begun.until(lambda: NO_LINES in _log(run)[before:], f"{NO_LINES!r} in run.log")
    goes_on(begun, run)
    began = time.monotonic()
    begun.tell(signal.SIGTERM)
    ended(begun, run, 0)
    took = within(PROMPT_S, began, "the end")
    said = _log(run)[before:]
    expect("stopped (SIGTERM) and saved" in said, "'stopped (SIGTERM) and saved' in run.log", said[-200:])
    if reason:
        expect(said.count(f"{NO_LINES} ({reason})") == 1, f"{NO_LINES!r} ({reason}) once in run.log", said[-200:])
    return f"trains on, run.log says so once ({reason}); SIGTERM saves and ends it in {took}, exit code 0"


def reader_gone(ground: Ground) -> str:
    """A pipe whose reader is gone, as ``| head`` is once it has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return _resumed(ground, "Broken pipe", stdout=writing)
    finally:
        os.close(writing)


def output_closed(ground: Ground) -> str:
    """Standard input, output and error are closed: ``<&- >&- 2>&-``."""
    return _resumed(ground, "it is closed", shell='exec "$@" >&- 2>&- <&-')


def output_full(ground: Ground) -> str:
    """A full disk behind ``>``."""
    return _resumed(ground, "No space left on device", shell='exec "$@" >/dev/full')


@contextlib.contextmanager
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


def output_unread(ground: Ground) -> str:
    """A pipe that is full and that nobody reads."""
    with full_pipe() as writing:
        return _resumed(ground, "", stdout=writing).replace("run.log says so once ()", "waits for no reader")


@contextlib.contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[Path]:
    """A disk of that size in memory. ``Unfit`` where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        raise Unfit("needs a small disk, and none may be mounted here (only root may)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_full(ground: Ground) -> str:
    """A copy of the shared run on a small disk, which somebody else fills up."""
    source = ground.stopped()
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    with small_disk(ground.folder / "disk", 4 * size + ROOM) as disk:
        run, filler = copied(source, disk / "run"), disk / "filler"
        child = ground.resume(run, work=ground.folder)
        goes_on(child, run)
        _fill(filler)
        child.until(lambda: child.output.count(FAILED) >= 2, "two checkpoints that failed, each in a line")
        shown = child.output.count("progress ")
        child.until(lambda: child.output.count("progress ") > shown + 4, "training that goes on")
        drafts = [path.name for path in (run / "checkpoints").glob(".tmp-*")]
        before = saved(run)
        filler.unlink()
        child.until(lambda: set(saved(run)) - set(before), "a checkpoint once there is room")
        told = [line for line in child.output.splitlines() if "metrics.jsonl" in line and "writ" in line]
        child.tell(signal.SIGINT)
        ended(child, run, 0, "stopped (SIGINT) and saved")
        lost = [line for line in told if "is written again" in line and "; 0 records were lost" not in line]
        expect(not lost, "no record lost", lost)
        expect(len(drafts) <= 1, "drafts that are removed", ", ".join(drafts))
    return "two checkpoints failed in a line each, it trained on; with room again it saves, no record is lost"


def _fill(file: Path) -> None:
    """Write until nothing fits any more."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(b"x" * 4096)


def saving_fails(ground: Ground) -> str:
    """The learner's files can grow no more for a while, by ``RLIMIT_FSIZE``."""
    child = ground.live(2)
    learner = role(child, "learner")
    hard = resource.prlimit(learner, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(learner, resource.RLIMIT_FSIZE, (SMALL, hard))
    child.until(lambda: child.output.count(FAILED) >= 2, "two checkpoints that failed, each in a line")
    whole = intact(ground.run).name
    before = saved(ground.run)
    resource.prlimit(learner, resource.RLIMIT_FSIZE, (hard, hard))
    child.until(lambda: set(saved(ground.run)) - set(before), "a checkpoint once files may grow")
    _stop(ground, child)
    return f"two failed in a line each, {int(whole):,} steps stayed whole; the run went on and saved again"


def _stop(ground: Ground, child: Child) -> None:
    """By Ctrl-C."""
    child.tell(signal.SIGINT)
    ended(child, ground.run, 0, "stopped (SIGINT) and saved")
    drafts = [path.name for path in (ground.run / "checkpoints").glob(".tmp-*")]
    expect(not drafts, "no draft left", ", ".join(drafts))


GONE = ("the terminal goes away, `\\| head`, a full disk behind `>`, standard output is closed",)
"""The row of three of them."""
WITHOUT = "goes on without a terminal, exit code as ever; run.log says so once"
"""Its promise."""

FAULTS = (
    Fault("head", "the output goes to `| head`", WITHOUT, GONE, reader_gone),
    Fault("output-closed", "standard output is closed", WITHOUT, GONE, output_closed),
    Fault("output-full", "a full disk is behind `>`", WITHOUT, GONE, output_full),
    Fault(
        "output-unread",
        "the output goes to a pipe that nobody reads",
        "goes on; SIGTERM acts as ever, the end waits for no reader",
        ("a pipe or terminal that nobody reads",),
        output_unread,
    ),
    Fault(
        "saving-fails",
        "files of a checkpoint cannot be written",
        "the draft is removed, older checkpoints stay, one line says why; the run goes on and saves again",
        ("the disk is full while saving",),
        saving_fails,
        ("processes",),
    ),
    Fault(
        "disk-full",
        "the disk is full",
        "no output ends a run: records wait in memory; it saves again when there is room",
        (
            "the disk is full while saving",
            "the disk is full otherwise, or becomes read-only, or a descriptor is closed",
        ),
        disk_full,
    ),
)

"""A disk that is full while a run saves: the checkpoint fails loudly, the run goes on, the earlier ones stay."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.command import intact, running, saved, training

resource = pytest.importorskip("resource")
FAILED = "checkpoint failed, the run goes on and earlier ones are kept"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit is Linux's")
def test_a_file_that_cannot_grow_costs_one_checkpoint_only(tmp_path: Path) -> None:
    with training(tmp_path, "--checkpoint.every-updates", "20", "--checkpoint.keep", "30") as command:
        command.until(lambda: len(saved(tmp_path)) >= 2, "two checkpoints")
        learner = command.children()[0]
        hard = resource.prlimit(learner, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (200, hard))
        command.until(lambda: command.output.count(FAILED) >= 2, "two checkpoints failed")
        before = saved(tmp_path)
        assert intact(tmp_path)
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (hard, hard))
        command.until(lambda: len(saved(tmp_path)) > len(before), "a checkpoint succeeded again")
        command.press_ctrl_c()
        assert command.wait() == 0, command.output
    assert set(saved(tmp_path)) > set(before)
    assert intact(tmp_path)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of that size; skips the test where none may be mounted."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder))
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_no_run(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 100) as disk:
        options = ("--out", str(disk / "run"), "--checkpoint.every-updates", "20", "--checkpoint.keep", "3")
        with training(tmp_path, *options, "--log.tensorboard", "true") as command:
            command.until(lambda: len(saved(disk)) >= 2, "two checkpoints")
            filler = disk / "filler"
            fill(filler)
            shown = command.output.count("progress ")
            command.until(lambda: command.output.count(FAILED) >= 2, "two checkpoints failed")
            command.until(lambda: command.output.count("progress ") > shown + 8, "its records need more room")
            assert intact(disk)
            filler.unlink()
            before = saved(disk)
            command.until(lambda: set(saved(disk)) - set(before), "a checkpoint succeeded again")
            command.until_said("metrics.jsonl is written again")
            command.press_ctrl_c()
            assert command.wait() == 0, command.output
            for name in ("metrics.jsonl", "events.out.tfevents"):  # the few rows of progress.csv may have had room
                said = [line for line in command.output.splitlines() if name in line and "writ" in line]
                assert len(said) % 2 == 0 < len(said), (name, said)  # a failed checkpoint makes room for a moment
                assert all("cannot be written (No space left on device); the run goes on" in one for one in said[::2])
                assert all("is written again; 0 records were lost" in one for one in said[1::2])
        assert intact(disk)
        assert all(json.loads(line) for line in (disk / "run" / "metrics.jsonl").read_text().splitlines())
        check_events(disk / "run")
        check_resume(disk, tmp_path)


def check_events(run: Path) -> None:
    """TensorBoard shows every row of progress.csv."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    rows = (run / "progress.csv").read_text().splitlines()
    assert len(events.Scalars("progress/updates")) == len(rows) - 1


def check_resume(disk: Path, folder: Path) -> None:
    """The run goes on."""
    total = str(int(saved(disk)[-1]) + 100)
    with running("resume", str(disk / "run"), "--total-frames", total, folder=folder) as command:
        assert command.wait() == 0, command.output


def fill(file: Path) -> None:
    """Write until nothing fits any more."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(b"x" * 4096)

"""Reading checkpoints beside a run that saves and removes them, and saving beside what somebody else left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.storage import checkpoint as checkpoints
from offbeat.storage import reading as reading
from offbeat.storage.checkpoint import CheckpointError

SAVER = """
import sys
from pathlib import Path
import torch
from offbeat.storage import checkpoint
number = 0
while True:
    number += 1
    checkpoint.save(Path(sys.argv[1]), number // 2, {"learner": {"weights/a": torch.full((3,), float(number))}},
                    {"number": number}, keep=1)
"""


def test_a_reader_beside_a_run_that_keeps_one_checkpoint_always_finds_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)]) as saver:
        try:
            while checkpoints.newest(tmp_path) is None:
                time.sleep(0.01)
            before, tries, until = 0, 0, time.monotonic() + 3.0
            while time.monotonic() < until:
                skipped: list[str] = []
                weights, meta = checkpoints.load_weights(tmp_path)
                assert (weights["a"] == meta["number"]).all(), "of one save"
                assert meta["number"] >= before
                assert checkpoints.newest(tmp_path, skipped.append) is not None
                assert skipped == []
                before, tries = meta["number"], tries + 1
        finally:
            saver.kill()
    assert tries > 10


@pytest.mark.parametrize("same_step", [True, False])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_left_for_the_next(
    same_step: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = iter(range(1, 5))

    def save() -> None:
        number = next(saves, 0)
        if number:
            weights = {"weights/a": torch.tensor([float(number)])}
            checkpoints.save(tmp_path, 7 if same_step else number, {"learner": weights}, {"number": number}, keep=1)

    def verified_then_pruned(*arguments: Any) -> reading.Checkpoint:
        found = verified(*arguments)
        save()
        return found

    save()
    verified = reading.verified
    monkeypatch.setattr(reading, "verified", verified_then_pruned)
    weights, meta = checkpoints.load_weights(tmp_path)
    assert meta["number"] == 4
    assert weights["a"].tolist() == [4.0]


def test_a_folder_that_always_changes_is_said_and_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, 1, {"learner": {"weights/a": torch.ones(1)}}, {}, keep=1)
    numbers = iter(range(10**9))
    monkeypatch.setattr(reading, "_entries", lambda folder: {f"{1:012d}": (next(numbers), 0)})
    with pytest.raises(CheckpointError, match="changed each of the 100 times"):
        checkpoints.newest(tmp_path)


@pytest.mark.parametrize("name", [".tmp-000000000005", "000000000005"])
@pytest.mark.parametrize(
    "make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("..")], ids=["file", "fifo", "link"]
)
def test_strangers_beside_the_checkpoints_do_not_stop_saves(
    name: str, make: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    make(tmp_path / "checkpoints" / name)
    for number in (5, 6):
        checkpoints.save(tmp_path, number, {"learner": {"weights/a": torch.ones(1)}}, {}, keep=1)
        found = checkpoints.newest(tmp_path)
        assert found is not None
        assert found.agent_steps == number
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{6:012d}"]

"""Two runs compared bit for bit, and what is left when the command is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from offbeat.run.verify import compare_checkpoints
from offbeat.storage import checkpoint


def saved(run: Path, values: np.ndarray) -> Path:
    """A run folder with one checkpoint of these values."""
    (run / "checkpoints").mkdir(parents=True)
    checkpoint.save(run, 10, {"learner": {"values": values}}, {"counters": {"updates": 1}}, keep=1)
    return run


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [np.nan, 1.0], False),
        ([0.0, 1.0], [-0.0, 1.0], False),
        ([0.0, 1.0], [[0.0, 1.0]], False),
    ],
)
def test_equal_means_the_same_bytes(tmp_path: Path, one: list[float], other: list[float], equal: bool) -> None:
    runs = [saved(tmp_path / name, np.array(values, np.float32)) for name, values in (("a", one), ("b", other))]
    result = compare_checkpoints(*runs)
    assert (result.arrays, result.equal) == (1, equal)
    assert equal or result.differing == ("learner/values",)


@pytest.mark.slow
def test_a_command_that_is_ended_takes_its_runs_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "offbeat", "verify", "resume", "impala-catch", "--total-frames", "100000000"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("*/whole/checkpoints/0*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed

"""What a realtime run wrote, read back, and one clear line where there is nothing to read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offbeat.config.run_config import to_toml
from offbeat.errors import UserError
from offbeat.run.realtime_files import read_recording
from tests.report.recordings import recording_of, write_files
from tests.scoring.drift import Answering, drift_config, drift_run

ROWS = [(n, n + 3, 0, n) for n in range(20)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with what was written out by hand."""
    write_files(recording_of(ROWS), tmp_path / "run")
    return tmp_path / "run"


def test_a_real_run_is_read(tmp_path: Path) -> None:
    paced = {"realtime__fps": 50, "realtime__inference": 2, "realtime__inference_s": 0.03, "env__length": 40}
    run = drift_run(tmp_path / "run", Answering, 120, **paced)
    found = read_recording(run)
    assert (found.period_s, found.workers, found.virtual) == (0.02, 2, True)
    source, frame, episode, step = (found.column(name) for name in ("source", "frame", "episode", "step"))
    assert set(episode) == {0, 1, 2, 3}
    assert (source - step == episode * 40).all(), "each episode has 40 frames"
    assert ((frame - source)[found.acted] == 2).all()
    assert found.staleness.sum() == found.staleness[2] == found.acted.sum()
    assert found.totals["decisions"] == found.acted.sum() > 0
    assert found.totals["steps"] == found.totals["decisions"] + found.totals["inaction"]


def test_metrics_are_read(run: Path) -> None:
    lines = [
        {"kind": "realtime", "missed": 4, "role": "realtime_env"},
        {"kind": "learner", "staleness": 1.0, "staleness_largest": 3}, {"kind": "learner", "staleness": 2.0},
        {"kind": "learner", "loss": 0.0}, {"kind": "restart", "realtime_actor": 1}, {"kind": "restart", "evaluator": 0},
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"kind": "re')
    found = read_recording(run)
    assert found.totals == recording_of(ROWS).totals, "as it was when the run ended, not at the last record"
    assert found.gradients == (1.5, 3.0)
    assert found.restarts == 1


def test_a_run_that_waits_for_its_actions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(to_toml(drift_config(tmp_path)))
    with pytest.raises(UserError, match=r"is no realtime run: its realtime.fps is 0"):
        read_recording(tmp_path)


def test_files_that_are_not_there_or_broken_are_named(run: Path) -> None:
    (run / "realtime" / "frames.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"frames.npy cannot be read"):
        read_recording(run)
    np.save(run / "realtime" / "frames.npy", np.zeros((0, 6)))
    with pytest.raises(UserError, match="no whole record"):
        read_recording(run)
    np.save(run / "realtime" / "decisions.npy", np.zeros((5, 12)))
    with pytest.raises(UserError, match=r"has shape \[5, 12\], expected \[n, 14\]: another version of offbeat"):
        read_recording(run)
    (run / "realtime" / "totals.json").write_text("[]")
    np.save(run / "realtime" / "decisions.npy", recording_of(ROWS).decisions)
    with pytest.raises(UserError, match=r"totals.json cannot be read"):
        read_recording(run)
    (run / "realtime" / "decisions.npy").unlink()
    with pytest.raises(UserError, match=r"decisions.npy is not there: a realtime run writes it when it ends"):
        read_recording(run)

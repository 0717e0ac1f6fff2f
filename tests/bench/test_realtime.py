"""What is read out of a realtime run's folder, and the bench itself, shortly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offbeat.bench.realtime import bench_realtime, describe, read_run
from offbeat.bench.wakeups import late_s, ping_s
from offbeat.errors import UserError
from tests.conformance.realtime_runs import realtime_config

DECISIONS = np.array([
    # worker, slot, version, source, frame, seen, read, started, ended, due, published, acted, episode, step
    [0, 1, 5, 10, 12, 0.0, 1.0, 1.25, 2.0, 2.0, 2.5, 2.75, 0, 10],
    [1, 1, 5, 11, 15, 0.0, 1.5, 1.5, 3.5, 3.0, 3.5, np.nan, 0, 11],
])  # fmt: skip
FRAMES = np.pad([[0.0, 0.001, 0], [1.0, 0.0, 2], [2.0, 0.003, 1], [3.0, 0.0, 0]], ((0, 0), (0, 3)))


def made_run(folder: Path, decisions: np.ndarray = DECISIONS) -> Path:
    """As a run leaves it: a frame skip of four, and reports of three roles."""
    (folder / "realtime").mkdir(parents=True)
    for name, array in (("decisions", decisions), ("frames", FRAMES)):
        np.save(folder / "realtime" / f"{name}.npy", array)
    report = {"kind": "realtime", "role": "realtime_env", "frames": 3, "realtime_frames": 40}
    lines = [
        report | {"steps": 1, "inaction": 1, "run_queue_s": 0.125},
        {"kind": "realtime_actor", "role": "realtime_actor-0", "run_queue_s": 1.0},
        {"kind": "realtime_actor", "role": "realtime_actor-1", "run_queue_s": 2.0},
        {"kind": "realtime_actor", "role": "realtime_actor-0", "run_queue_s": 1.5},
        report | {"steps": 10, "inaction": 4, "run_queue_s": 0.25},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_is_read_and_described(tmp_path: Path) -> None:
    found = read_run(made_run(tmp_path / "run"))
    wanted = {
        "frames": 4, "missed": 3, "missed_events": 2, "worst_late_s": 0.003, "late_p50_s": 0.0005, "inaction": 0.4,
        "overhead_p50_s": 0.375, "staleness": 2, "env_run_queue_s": 0.25, "actor_run_queue_s": 3.5,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["publish_late_p99_s"] == pytest.approx(0.5)
    added = ("steal_s", "ping_p50_s", "ping_p99_s", "bare_late_p50_s", "bare_late_p99_s")
    text = describe(found | {"processes": 2} | dict.fromkeys(added, 0.000125))
    for part in ("N = 2: 4 frames, 3 missed in 2 events, 1 of them unexplained",
                 "(latest start 3.0 ms late)", "default behaviour 40.00%",
                 "staleness 2.00 frames", "bare wake-up 125 / 125, bare ping 125 / 125", "0.25 s (environment), 3.50 s",
                 "overhead 375000 / 742500"):  # fmt: skip
        assert part in text, text


def test_a_run_without_actions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no action was published"):
        read_run(made_run(tmp_path / "run", DECISIONS[:0]))


def test_bare_wake_ups_are_counted() -> None:
    assert (late_s(5, 0.002) >= 0).all()
    took = ping_s(5, 0.002)
    assert took.shape == (5,)
    assert (took > 0).all()


@pytest.mark.slow
def test_the_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offbeat.bench.realtime.PINGS", 10)
    config = realtime_config(tmp_path, "wall", agent="dqn", env__id="toy/catch", env__length=6)
    rows = bench_realtime(config, [2], 0.02, tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert len(rows) == 2
    assert rows[0]["frames"] > 50
    assert rows[1]["manager_p50_s"] > 0
    assert "N = 2: " in capsys.readouterr().out

"""What a realtime run measured, in numbers and as text, from recordings that are written out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offbeat.report.realtime import latencies, report_run, summarise, text
from offbeat.runtime.realtime_books import DECISION
from tests.report.recordings import recording_of, write_files

ROWS = [(2 * n, 2 * n + 3, 0, 2 * n) for n in range(60)]
"""Every second frame, from an observation that is three frames old."""


def test_latencies_are_those_of_the_recording() -> None:
    found = latencies(recording_of(ROWS))
    for name, seconds in {
        "observation_age": 0.005, "inference": 0.274, "slot_wait": 0.01, "overhead": 0.003, "to_published": 0.292,
        "to_acted": 0.3,
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(np.full(60, seconds)), name


def test_spacing_is_the_mean_and_the_spread_of_the_gaps() -> None:
    even = summarise(recording_of(ROWS))["spacing_s"]
    assert even["mean"] == pytest.approx(0.2)
    assert even["cv"] == pytest.approx(0.0, abs=1e-9)
    uneven = recording_of([row for row in ROWS if row[0] % 6])  # gaps 0.2 and 0.4 in turn
    spacing = summarise(uneven)["spacing_s"]
    gaps = np.array([0.2, 0.4] * 20)[:39]
    assert spacing["cv"] == pytest.approx(gaps.std() / gaps.mean())
    assert summarise(recording_of(ROWS[:1]))["spacing_s"] == {"mean": None, "cv": None}


def test_counts_come_from_the_whole_run() -> None:
    totals = {
        "steps": 100, "inaction": 30, "decisions": 72, "missed": 5, "lost": 3, "old_episode": 4, "processes_gone": 1,
    }  # fmt: skip
    numbers = summarise(recording_of(ROWS, totals=totals, gradients=(1.5, 4.0), restarts=2))
    assert (numbers["frames"], numbers["inaction_share"]) == (100, 0.3)
    assert [numbers[name] for name in ("missed", "lost", "old_episode", "processes_gone", "restarts")] == [
        5,
        3,
        4,
        1,
        2,
    ]
    said = text(numbers)
    for part in (
        "10 frames/s on the wall clock, mode async, 2 inference processes",
        "frames: 100, missed: 5, left to the default behaviour: 30.00%",
        "actions: 72 acted, 3 lost",
        "4 for an episode that was over",
        "inference processes: 1 lost their slots, 2 were replaced",
        "gradients: 1.50 updates old, at most 4",
        "mean 3.00, p99 3, max 3",
    ):
        assert part in said


def test_actions_that_never_acted_have_no_such_latency() -> None:
    recording = recording_of(ROWS)
    recording.decisions[10:, DECISION.index("acted")] = np.nan
    assert len(latencies(recording)["to_acted"]) == 10
    recording.decisions[:, DECISION.index("acted")] = np.nan
    recording.staleness[:] = 0
    numbers = summarise(recording)
    assert numbers["latency_s"]["to_acted"]["p50"] is None
    assert "staleness: no action acted" in text(numbers)


def test_the_histogram_of_staleness() -> None:
    recording = recording_of(ROWS)
    recording.staleness[:] = 0
    recording.staleness[:30], recording.staleness[1024] = 1000 + np.arange(30), 7
    found = summarise(recording)["staleness"]
    assert found["counts"]["1024+"] == 7
    assert found["p50"] == np.searchsorted(np.cumsum(recording.staleness), 0.5 * recording.staleness.sum())
    assert found["max"] == 1024
    said = text(summarise(recording))
    assert "29                  1,029" in said
    assert "others" in said, "not all are printed"


def test_files_are_written_and_hold_the_numbers(tmp_path: Path) -> None:
    recording = recording_of(ROWS)
    write_files(recording, tmp_path / "run")
    reported = report_run(tmp_path / "run", from_s=1.0, seconds=0.5)
    assert reported.json == tmp_path / "run" / "report" / "realtime.json"
    assert json.loads(reported.json.read_text()) == reported.numbers
    png, svg = reported.pictures
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    elsewhere = report_run(tmp_path / "run", out=tmp_path / "out")
    assert elsewhere.json.parent == tmp_path / "out"

"""``offbeat trace``: what becomes of recorded spans, and of real runs that record them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from offbeat.cli import main
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.report.trace import OTHER, SPAN_COLOURS, Lane, events, read_lanes, segments, shares, table
from offbeat.run.train import train
from offbeat.runtime.spans import SPAN
from offbeat.runtime.topology import topology
from offbeat.types import UNROLL
from tests.runtime.parts import small_config


def lane(*spans: tuple[str, int, int], begin: int = 0, end: int = 100, **said: Any) -> Lane:
    """A lane with these spans (name, start, end), in the order of their ends as they are recorded."""
    names = tuple(dict.fromkeys(name for name, _, _ in spans))
    rows = np.array([(names.index(name), start, stop) for name, start, stop in spans], SPAN)
    usual = {"role": "learner", "order": 0, "thread": "main", "dropped": 0}
    return Lane(**(usual | said), begin=begin, end=end, names=names, spans=rows)


def cut(one: Lane, begin: int, end: int) -> list[tuple[str, int, int]]:
    """``segments`` with names."""
    return [(one.names[name], start, stop) for name, start, stop in segments(one, begin, end).tolist()]


def test_spans_within_others_cut_them() -> None:
    one = lane(("b", 20, 30), ("c", 30, 40), ("a", 10, 50), ("a", 60, 70), ("d", 80, 120))
    assert cut(one, 0, 100) == [
        ("a", 10, 20), ("b", 20, 30), ("c", 30, 40), ("a", 40, 50), ("a", 60, 70), ("d", 80, 100),
    ]  # fmt: skip
    assert cut(one, 25, 65)[0] == ("b", 25, 30)
    assert cut(one, 25, 65)[-1] == ("a", 60, 65)
    assert cut(one, 71, 79) == []


def test_of_two_spans_with_the_same_times_the_inner_one_counts() -> None:
    assert cut(lane(("inner", 10, 20), ("outer", 10, 20)), 0, 100) == [("inner", 10, 20)]


def nested(rng: random.Random, begin: int, end: int, depth: int) -> list[tuple[str, int, int]]:
    """Random calls within [begin, end], in the order of their ends."""
    spans: list[tuple[str, int, int]] = []
    at = begin
    while depth and at < end:
        start = rng.randint(at, end)
        at = rng.randint(start, end)
        spans += [*nested(rng, start, at, depth - 1), (rng.choice("abc"), start, at)]
    return spans


@pytest.mark.parametrize("seed", range(20))
def test_segments_agree_with_looking_at_each_moment(seed: int) -> None:
    rng = random.Random(seed)
    spans = nested(rng, 0, 60, 3)
    one = lane(*spans, end=60)
    begin, end = sorted((rng.randint(0, 60), rng.randint(0, 60)))
    expected = {}
    for moment in range(begin, end):
        around = [(name, stop - start) for name, start, stop in spans if start <= moment < stop]
        if around:
            shortest = min(length for _, length in around)
            expected[moment] = next(name for name, length in around if length == shortest)  # inner calls come first
    found = {moment: name for name, start, stop in cut(one, begin, end) for moment in range(start, stop)}
    assert found == expected


def test_shares_sum_to_one_and_count_calls() -> None:
    one = lane(("b", 20, 30), ("a", 10, 50), ("a", 60, 70), ("wait for batch", 90, 130), ("b", 101, 102), ("a", -5, 5))
    found = {row.name: (row.calls, round(row.share, 6)) for row in shares(one)}
    assert found == {"a": (3, 0.45), "b": (1, 0.1), "wait for batch": (1, 0.1), OTHER: (0, 0.35)}
    assert sum(row.share for row in shares(one)) == pytest.approx(1)
    assert shares(one)[0].seconds == 45e-9
    assert [row.share for row in shares(lane())] == [1.0], "a lane without spans was in none"


def test_events_are_what_trace_viewers_read() -> None:
    lanes = [
        lane(("sample", 2_000, 5_000), ("wait for batch", 1_000, 9_000), begin=1_500),
        lane(("assemble", 3_000, 4_000), thread="assembly"),
        lane(("act", 4_000, 8_500), role="actor-0"),
    ]
    found = json.loads(json.dumps(events(lanes)))["traceEvents"]
    spans = [event for event in found if event["ph"] == "X"]
    assert spans[0] == {
        "ph": "X", "name": "wait for batch", "cat": "wait", "pid": 1, "tid": 1, "ts": 1.0, "dur": 8.0
    }  # fmt: skip
    assert [(event["name"], event["pid"], event["tid"]) for event in spans[1:]] == [
        ("sample", 1, 1), ("assemble", 1, 2), ("act", 2, 3),
    ]  # fmt: skip
    named = {(event["name"], event["pid"], event["tid"]): event["args"] for event in found if event["ph"] == "M"}
    assert named["process_name", 2, 3] == {"name": "actor-0"}
    assert named["thread_name", 1, 2] == {"name": "assembly"}


def test_every_span_that_is_no_wait_has_a_colour_of_its_own() -> None:
    roles = topology(small_config(engine="local", actor__inference="server"), UNROLL).roles
    names = {name for role in roles for name in role.calls.values() if not name.startswith("wait")}
    assert names == set(SPAN_COLOURS)
    assert len(set(SPAN_COLOURS.values())) == len(SPAN_COLOURS)


def test_the_table_says_what_found_no_room() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([lane(("act", 0, 40), role="actor-0", dropped=1234)]))
    text = console.export_text()
    assert "40.0%" in text
    assert "1,234 later spans found no room" in text


def recorded(out: Path, **options: Any) -> Path:
    """A run of seconds that records all but its first update."""
    options |= {"out": str(out), "device": "cpu", "trace.start_s": 0.0, "trace.seconds": 300.0}
    config = apply_overrides(load_preset("debug"), options.items())
    return train(config).run


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_run_shows_what_its_roles_did(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recorded(tmp_path / "run", engine=engine)
    lanes = {one.label: one for one in read_lanes(run)}
    ahead = ["learner (assembly)"] if engine == "local" else []  # inline assembles nothing ahead
    assert list(lanes) == ["learner", *ahead, "evaluator", "actor-0"]
    for one in lanes.values():
        assert 0 < one.end - one.begin < 300e9, "the run ended first"
        assert one.dropped == 0
        assert sum(row.share for row in shares(one)) == pytest.approx(1)
        assert min(row.share for row in shares(one)) >= 0
        ends = one.spans["end"]
        assert (np.diff(ends) >= 0).all()
        assert (ends >= one.spans["start"]).all()
    assert {"environment", "observe", "act", "append", "take weights"} <= set(lanes["actor-0"].names)
    learner = {row.name: row for row in shares(lanes["learner"])}
    assert {"wait for batch", "forward, backward", "optimiser", "publish"} <= set(learner)
    assert learner["optimiser"].calls == pytest.approx(learner["publish"].calls, abs=1)
    assert learner["forward, backward"].seconds > 0
    capsys.readouterr()
    out = tmp_path / "elsewhere" / "line.json"
    assert main(["trace", str(run), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for text in ("forward, backward", "actor-0", "share", str(out), str(out.with_suffix(".png"))):
        assert text in shown
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG") and not (run / "report" / "trace.png").exists()
    written = [event for event in json.loads(out.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(written) == sum(len(one.spans) for one in lanes.values())
    assert min(event["ts"] for event in written) >= 0


def test_a_run_without_a_recording_says_how_to_record_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text("")
    assert main(["trace", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{tmp_path} has no recorded time line" in line
    assert "offbeat train PRESET --trace.seconds 2" in line
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"]

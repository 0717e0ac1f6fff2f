"""MetricLogger: the numbers in its files, periods, resuming, and what is shown."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import random
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.config.log import LogConfig
from offbeat.run.dashboard import LiveDashboard, PlainLines, event_line, make_display, progress_line
from offbeat.run.metric_files import AppendFile, EventWriter, Meter, PeriodAverage, plain
from offbeat.run.metrics import MetricLogger
from offbeat.run.panel import clock_text
from offbeat.run.status import Status


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


QUIET = LogConfig(tensorboard=False, dashboard=False)


def make(folder: Path, clock: Clock, config: LogConfig = QUIET, **options: Any) -> MetricLogger:
    display = PlainLines(10_000, options.pop("out", io.StringIO()))
    return MetricLogger(folder, config, total_frames=10_000, clock=clock, display=display, **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def learner(update: int, **values: float) -> dict[str, float]:
    counted = {"updates": update, "samples": update * 100, "sample_frames": update * 400}
    return {**counted, "agent_steps": update * 100, "frames": update * 400, **values}


def test_a_file_that_was_begun_with_fewer_columns_keeps_them(tmp_path: Path) -> None:
    clock = Clock()
    logger = make(tmp_path, clock)
    logger.record("learner", "learner", learner(1, loss=1.0))
    clock.now += 10
    logger.tick()
    saved = logger.offsets()
    logger.close()
    old = [line.rsplit(",", 2)[0] for line in (tmp_path / "progress.csv").read_text().splitlines()]
    (tmp_path / "progress.csv").write_text("\n".join(old) + "\n")
    saved["progress_bytes"] = (tmp_path / "progress.csv").stat().st_size
    logger = make(tmp_path, clock, resume_offset=saved)
    logger.record("learner", "learner", learner(2, loss=3.0))
    clock.now += 10
    logger.tick()
    logger.close()
    written = rows(tmp_path)
    assert [row["updates"] for row in written] == ["1", "2"]
    assert all(None not in row and None not in row.values() for row in written)
    assert list(written[0]) == old[0].split(",")


def test_learner_lines_are_averages_of_their_period(tmp_path: Path) -> None:
    clock, rng = Clock(), random.Random(0)
    logger = make(tmp_path, clock)
    losses: list[list[float]] = [[], []]
    for period in range(2):
        for update in range(10):
            clock.now += 0.5
            losses[period].append(rng.random())
            values = learner(
                period * 10 + update + 1, loss=losses[period][-1], wait_s=0.1, train_s=0.3, learning_rate=update
            )
            logger.record("learner", "learner", values)
            logger.tick()
    logger.close()
    written = [line for line in lines(tmp_path) if line["kind"] == "learner"]
    assert [line["loss"] for line in written] == pytest.approx([statistics.fmean(one) for one in losses], rel=1e-6)
    assert [line["updates"] for line in written] == [10, 20]
    assert [line["frames"] for line in written] == [4000, 8000]
    assert [line["agent_steps"] for line in written] == [1000, 2000]
    assert [line["learning_rate"] for line in written] == [9, 9]  # the newest, no average
    assert [line["wait_s"] for line in written] == pytest.approx([1.0, 1.0])  # seconds add up
    table = rows(tmp_path)
    assert [float(row["learner_wait"]) for row in table] == pytest.approx([0.25, 0.25])
    assert [float(row["seconds"]) for row in table] == [5, 10]
    assert [float(row["learner_frames_per_s"]) for row in table] == pytest.approx([800, 800])


def test_learners_that_count_together_are_not_counted_twice(tmp_path: Path) -> None:
    """Each tells what all have done; one may tell late. Losses are averaged, times add up, staleness is the largest."""
    clock = Clock()
    logger = make(tmp_path, clock)
    for second in range(1, 11):
        clock.now += 1
        for role, late in (("learner", 0), ("learner-1", 1)):
            values = learner(second - late, loss=float(late), wait_s=0.5, train_s=0.5, own_updates=second)
            logger.record(role, "learner", values | {"samples": 100 * (second - late), "staleness_largest": second % 4})
        logger.tick()
    logger.close()
    table = rows(tmp_path)
    assert [int(row["updates"]) for row in table] == [5, 10]
    assert [int(row["samples"]) for row in table] == [500, 1000]
    assert [float(row["loss"]) for row in table] == [0.5, 0.5]
    assert [float(row["learner_wait"]) for row in table] == [0.5, 0.5]
    assert [float(row["learner_frames_per_s"]) for row in table] == pytest.approx([400, 400])
    own = [line for line in lines(tmp_path) if line["role"] == "learner-1"]
    assert [(line["updates"], line["own_updates"], line["staleness_largest"]) for line in own] == [
        (4, 5, 3),
        (9, 10, 3),
    ]


def test_actor_rate_counts_all_actors_also_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    logger = make(tmp_path, clock)
    steps = {"actor-0": 0, "actor-1": 0}
    for second in range(10):
        clock.now += 1
        if second == 6:
            steps["actor-1"] = 0  # a new incarnation counts from zero
        for role, count in (("actor-0", 50), ("actor-1", 150)):
            steps[role] += count
            logger.record(role, "actor", {"env_frames": 4 * steps[role], "forward_s": 0.2, "env_s": 0.2, "wait_s": 0.6})
        logger.tick()
    logger.close()
    assert [float(row["actor_frames_per_s"]) for row in rows(tmp_path)] == pytest.approx([800, 800])
    assert [float(row["actor_wait"]) for row in rows(tmp_path)] == pytest.approx([0.6, 0.6])
    assert sorted(line["role"] for line in lines(tmp_path)) == ["actor-0", "actor-0", "actor-1", "actor-1"]


def test_a_resumed_actor_may_go_on_counting_or_start_from_zero(tmp_path: Path) -> None:
    for again in (1100, 100):
        clock, folder = Clock(), tmp_path / str(again)
        folder.mkdir()
        logger = make(folder, clock)
        clock.now += 5
        logger.record("actor-0", "actor", {"env_frames": 4000})
        logger.tick()
        saved = logger.offsets()
        logger.close()
        logger = make(folder, clock, resume_offset=saved)
        clock.now += 5
        logger.record("actor-0", "actor", {"env_frames": 4 * again})
        logger.tick()
        logger.close()
        assert [float(row["actor_frames_per_s"]) for row in rows(folder)] == pytest.approx([800, 80])


def test_records_carry_the_newest_progress(tmp_path: Path) -> None:
    logger = make(tmp_path, Clock())
    logger.record("learner", "learner", learner(2))
    logger.progress(updates=3, agent_steps=350, frames=1400)
    logger.record("actor-0", "episode", {"return": 1.0})
    logger.progress(updates=1, agent_steps=50, frames=200)  # never backwards
    logger.record("actor-0", "episode", {"return": 2.0})
    logger.close()
    assert [(line["frames"], line["agent_steps"]) for line in lines(tmp_path)[:2]] == [(1400, 350)] * 2
    assert rows(tmp_path)[-1]["updates"] == "3"


def test_skipped_updates_are_counted_and_said(tmp_path: Path) -> None:
    clock, out = Clock(), io.StringIO()
    logger = make(tmp_path, clock, out=out)
    for update, skipped in enumerate([0, 2, 2, 3]):
        logger.record("learner", "learner", learner(update + 1, skipped=skipped))
    logger.record("learner", "learner", learner(5, skipped=4, bad_rewards=1))
    assert logger.status.skipped == 4
    assert [line for line in out.getvalue().splitlines() if line.startswith("skipped learner")] == [
        "skipped learner updates=2 reason=loss, gradient or result not finite",
        "skipped learner updates=3 reason=loss, gradient or result not finite",
        "skipped learner updates=4 reason=the environment's rewards are not finite",
    ]
    logger.close()


def test_every_column_is_explained_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [name for name in asdict(Status()) if f"`{name}`" not in text] == []


def test_each_episode_is_a_line_and_the_mean_is_of_the_last_hundred(tmp_path: Path) -> None:
    logger = make(tmp_path, Clock())
    returns = [float(value) for value in range(250)]
    for value in returns:
        logger.record("actor-0", "episode", {"return": value, "length": value * 2, "frames": value * 8})
    status = logger.status
    assert (status.episodes, status.return_mean, status.return_max) == (250, statistics.fmean(returns[-100:]), 249)
    assert status.length_mean == 2 * statistics.fmean(returns[-100:])
    logger.close()
    written = lines(tmp_path)
    assert [line["return"] for line in written] == returns
    assert written[-1]["frames"] == 0  # the run's counter; the episode's own is kept under another name
    assert written[-1]["episode_frames"] == 249 * 8


def test_numbers_that_are_not_finite_become_null_and_are_counted(tmp_path: Path) -> None:
    clock = Clock()
    logger = make(tmp_path, clock)
    for loss in (1.0, float("nan"), 3.0, float("inf")):
        logger.record("learner", "learner", learner(1, loss=loss, entropy=float("nan")))
    logger.close()
    line = lines(tmp_path)[0]
    assert (line["loss"], line["entropy"], line["nonfinite"]) == (2, None, 6)
    assert rows(tmp_path)[-1]["entropy"] == ""


def play(logger: MetricLogger, clock: Clock, start: int, stop: int) -> None:
    for second in range(start, stop):
        clock.now += 1
        logger.record("learner", "learner", learner(second + 1, loss=second / 7, wait_s=0.01, train_s=0.1))
        logger.record("actor-0", "episode", {"return": second % 13, "length": 5})
        if second % 9 == 0:
            logger.record("evaluator", "evaluation", {"mean": second, "frames": second * 400, "returns": [1.0, 2.0]})
        logger.tick()


@pytest.mark.parametrize("every_updates", [0, 4])
@pytest.mark.parametrize("cut", [7, 10])
def test_a_resumed_log_equals_one_never_interrupted(tmp_path: Path, every_updates: int, cut: int) -> None:
    config = LogConfig(tensorboard=False, dashboard=False, every_updates=every_updates)
    (tmp_path / "whole").mkdir()
    clock = Clock()
    whole = make(tmp_path / "whole", clock, config)
    play(whole, clock, 0, 30)
    whole.close()

    (tmp_path / "parts").mkdir()
    clock = Clock()
    first = make(tmp_path / "parts", clock, config)
    play(first, clock, 0, cut)
    saved = json.loads(json.dumps(first.offsets()))  # as a checkpoint holds it
    play(first, clock, cut, 20)  # what is lost
    first.flush()
    clock.now = 5000.0
    second = make(tmp_path / "parts", clock, config, resume_offset=saved)
    play(second, clock, cut, 30)
    second.close()

    def untimed(folder: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k != "time"} for line in lines(tmp_path / folder)]

    if every_updates:  # periods by updates do not depend on when ticks came
        assert untimed("parts") == untimed("whole")
        no_times = {"seconds", "actor_frames_per_s", "learner_frames_per_s"}
        strip = [
            [{k: v for k, v in row.items() if k not in no_times} for row in rows(tmp_path / f)]
            for f in ("parts", "whole")
        ]
        assert strip[0] == strip[1]
    assert [r for r in untimed("parts") if r["kind"] != "learner"] == [
        r for r in untimed("whole") if r["kind"] != "learner"
    ]
    assert second.status.episodes == 30
    assert second.status.return_mean == whole.status.return_mean
    times = [line["time"] for line in lines(tmp_path / "parts")]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(30)


def test_a_file_shorter_than_the_checkpoint_remembers_goes_on_behind_its_whole_lines(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a").write_text("one\ntwo\nthr")
    file = AppendFile(tmp_path / "a", offset=20, say=said.append)
    file.write("new")
    assert file.offset() == 12
    assert (tmp_path / "a").read_text() == "one\ntwo\nnew\n"
    assert len(said) == 1
    assert "has 11 bytes where 20 were written" in said[0]


def test_what_was_written_after_the_offset_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept\nlost\nlost too\n")
    file = AppendFile(tmp_path / "a", offset=5, header="not again")
    file.write("new")
    assert file.offset() == 9
    assert (tmp_path / "a").read_text() == "kept\nnew\n"
    file.close()


def test_a_line_torn_at_the_offset_is_dropped(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a").write_bytes(b"x" * 100_000 + b"\none\n" + b"\0" * 200_000)
    file = AppendFile(tmp_path / "a", offset=250_000, say=said.append)
    assert file.offset() == 100_005
    assert len(said) == 1
    file.close()
    (tmp_path / "b").write_bytes(b"\0" * 100)
    file = AppendFile(tmp_path / "b", offset=100, header="a,b", say=said.append)
    file.close()
    assert (tmp_path / "b").read_text() == "a,b\n"


class Disk:
    """Every call of the operating system that ``AppendFile`` makes, failing on demand, for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: set[str] = set()
        self.room = 10**9
        disk = self

        class File(io.FileIO):
            def __init__(self, *arguments: Any) -> None:
                disk.check("open")
                super().__init__(*arguments)

            def write(self, data: Any) -> int:
                taken = memoryview(data)[: disk.room]
                if "write" in disk.failing and len(taken) == len(data):
                    disk.check("write")
                if not len(taken):
                    raise OSError(errno.ENOSPC, "No space left on device")
                disk.room -= len(taken)
                return super().write(taken)

            def truncate(self, size: int | None = None) -> int:
                disk.check("truncate")
                return super().truncate(size)

            def seek(self, *arguments: int) -> int:
                disk.check("seek")
                return super().seek(*arguments)

            def close(self) -> None:
                super().close()
                disk.check("close")

        monkeypatch.setattr("offbeat.run.metric_files.io.FileIO", File)

    def check(self, name: str) -> None:
        if name in self.failing:
            raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("failing", [{"open"}, {"write"}, {"write", "truncate"}, {"write", "seek", "close"}])
def test_a_disk_that_fails_for_a_while_loses_nothing(
    failing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, said = Disk(monkeypatch), list[str]()
    if failing == {"open"}:
        disk.failing = set(failing)
    file = AppendFile(tmp_path / "a", header="head", chunk_bytes=20, say=said.append)
    offsets = []
    for number in range(300):
        file.write(f"line {number}")
        if number == 100:
            disk.failing = set(failing)
        if number == 200:
            disk.failing.clear()
        if number % 7 == 0:
            offsets.append(file.offset())
    file.close()
    text = (tmp_path / "a").read_text()
    assert text == "head\n" + "".join(f"line {number}\n" for number in range(300))
    assert all(offset == 0 or text[offset - 1] == "\n" for offset in offsets), "whole lines only"
    assert offsets == sorted(offsets)
    assert len(said) == 2
    assert "a cannot be written (Read-only file system); the run goes on" in said[0]
    assert "a is written again; 0 records were lost" in said[1]


def test_a_full_disk_holds_whole_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, said = Disk(monkeypatch), list[str]()
    file = AppendFile(tmp_path / "a", chunk_bytes=20, say=said.append)
    disk.room = 33
    for number in range(10, 20):
        file.write(f"line {number}")
    assert (tmp_path / "a").read_text() == "".join(f"line {number}\n" for number in range(10, 14))
    file.close()
    assert len(said) == 2
    assert "6 records are lost at the end of the run (No space left on device)" in said[1]


def test_what_waits_for_a_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offbeat.run.metric_files.MOST_KEPT_BYTES", 1000)
    disk, said = Disk(monkeypatch), list[str]()
    disk.failing = {"open"}
    file = AppendFile(tmp_path / "a", header="head", say=said.append)
    for number in range(1000):
        file.write(f"line {number:04}")
    disk.failing.clear()
    file.close()
    text = (tmp_path / "a").read_text().splitlines()
    assert text == ["head", *(f"line {number:04}" for number in range(900, 1000))]
    assert "900 records were lost" in said[-1]


def test_a_descriptor_that_somebody_closed_is_opened_again(tmp_path: Path) -> None:
    said: list[str] = []
    file = AppendFile(tmp_path / "a", say=said.append)
    file.write("one")
    file.flush()
    assert file._file is not None
    os.close(file._file.fileno())
    for line in ("two", "three"):
        file.write(line)
        file.flush()
    file.close()
    assert (tmp_path / "a").read_text() == "one\ntwo\nthree\n"
    assert len(said) == 2


def test_append_file_writes_in_chunks(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "a", chunk_bytes=50)
    file.write("x" * 20)
    assert (tmp_path / "a").stat().st_size == 0
    file.write("y" * 40)
    assert (tmp_path / "a").stat().st_size == 62
    file.close()
    file.close()


def test_rates_are_measured_between_reports() -> None:
    meter = Meter()
    meter.update("actor-0", 100, 1.0)
    meter.update("actor-1", 300, 2.0)
    assert meter.per_s() == 100 + 150
    assert meter.per_s(least_s=2.5) is None
    meter.restart()
    assert meter.per_s() is None
    meter.update("actor-0", 200, 5.0)
    assert meter.per_s() == 25
    meter.update("actor-0", 60, 9.0)  # a new incarnation
    assert meter.per_s() == (100 + 60) / 8


def test_period_average_survives_json() -> None:
    rng = random.Random(1)
    whole, part = PeriodAverage(), PeriodAverage()
    for i in range(20):
        values = {"loss": rng.gauss(0, 1), "wait_s": rng.random(), "updates": i, "note": "x"}
        whole.add(values)
        part.add(values)
        part = PeriodAverage(json.loads(json.dumps(part.state())))
    assert part.take() == whole.take()
    assert part.records == 0


def test_plain_values() -> None:
    assert [plain(v) for v in (3.0, 1 / 3, float("nan"), "a", None)] == [3, 0.3333333, None, "a", None]
    assert plain([1.0, 2.5]) == [1, 2.5]


def test_tensorboard_events_hold_the_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clock = Clock()
    logger = make(tmp_path, clock, LogConfig(tensorboard=True))
    play(logger, clock, 0, 12)
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"episode/return", "learner/loss", "evaluation/mean", "progress/return_mean"} <= set(tags)
    assert [(e.step, e.value) for e in events.Scalars("evaluation/mean")] == [(0, 0), (3600, 9)]


def test_validations_are_shown_written_and_drawn_and_the_best_survives_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clock, out, config = Clock(), io.StringIO(), LogConfig(tensorboard=True)
    logger = make(tmp_path, clock, config, out=out)
    for update, mean in enumerate((-3.0, -2.0, -2.5), 1):
        logger.record("learner", "learner", learner(update))
        logger.record("validator", "validation", {"mean": mean, "std": 0.5, "frames": 100 * update, "episodes": 2})
    for name in ("train", "length=8"):
        logger.record("evaluator", "final", {"set": name, "test": int(name != "train"), "mean": 1.0, "frames": 300})
    assert (logger.status.valid_mean, logger.status.valid_best) == (-2.5, -2.0)
    offsets = json.loads(json.dumps(logger.offsets()))
    logger.close()
    assert "validation validator frames=300 mean=-2.5 episodes=2" in out.getvalue()
    assert "final evaluator set=train frames=300 mean=1" in out.getvalue()
    assert " valid=-2.50 valid_best=-2.00 " in out.getvalue()
    assert [line["frames"] for line in lines(tmp_path) if line["kind"] == "validation"] == [100, 200, 300]
    assert (rows(tmp_path)[-1]["valid_mean"], rows(tmp_path)[-1]["valid_best"]) == ("-2.5", "-2")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("validation/mean")] == [(100, -3), (200, -2), (300, -2.5)]
    assert {"final/train/mean", "final/length-8/mean", "progress/valid_best"} <= set(events.Tags()["scalars"])
    again = make(tmp_path, clock, resume_offset=offsets)
    again.record("validator", "validation", {"mean": -9.0, "frames": 400})
    assert (again.status.valid_mean, again.status.valid_best) == (-9.0, -2.0)
    again.close()


def test_tensorboard_goes_on_where_a_full_disk_stopped_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    disk, clock, said = Disk(monkeypatch), Clock(), list[str]()
    logger = make(tmp_path, clock, LogConfig(tensorboard=True), say=said.append)
    play(logger, clock, 0, 12)
    disk.room = 100
    play(logger, clock, 12, 24)
    disk.room = 10**9
    play(logger, clock, 24, 36)
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.value for e in events.Scalars("evaluation/mean")] == [0, 9, 18, 27]
    assert len(events.Scalars("episode/return")) == 36
    assert len([text for text in said if "tfevents" in text]) == 2


def test_an_event_file_that_somebody_cut_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    disk, said = Disk(monkeypatch), list[str]()
    writer = EventWriter(tmp_path, say=said.append)
    writer.scalars({"loss": 1.0}, 1, "learner")
    writer.flush()
    (path,) = tmp_path.iterdir()
    disk.failing = {"write"}
    writer.scalars({"loss": 2.0}, 2, "learner")
    writer.flush()
    os.truncate(path, path.stat().st_size - 3)
    disk.failing.clear()
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("learner/loss")] == [(2, 2.0)]


def test_a_broken_tensorboard_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)  # import raises ModuleNotFoundError
    said: list[str] = []
    logger = make(tmp_path, Clock(), LogConfig(tensorboard=True), say=said.append)
    logger.record("actor-0", "episode", {"return": 1.0})
    logger.close()
    assert len(said) == 1
    assert "no TensorBoard events: ModuleNotFoundError" in said[0]


def test_plain_lines_say_at_once_what_is_waited_for_then_one_line_a_period(tmp_path: Path) -> None:
    clock, out = Clock(), io.StringIO()
    logger = make(tmp_path, clock, out=out)
    logger.tick()
    clock.now += 1
    logger.tick()
    assert out.getvalue() == "progress waiting for first batch\n"
    play(logger, clock, 0, 9)
    shown = out.getvalue().splitlines()
    assert shown[1].startswith("evaluation evaluator frames=0 mean=0")
    assert [line.split()[1] for line in shown[2:]] == ["frames=1600", "frames=3600"]
    assert "percent=16.0 " in shown[2]
    logger.close()


def test_progress_line_has_the_same_names_whatever_is_known() -> None:
    full = Status(**dict.fromkeys(asdict(Status()), 1) | {"games": {}})
    names = [[pair.split("=")[0] for pair in progress_line(s, 100).split()] for s in (Status(), full)]
    assert names[0] == names[1]


def test_time_left_is_at_the_speed_so_far() -> None:
    line = progress_line(Status(frames=2500, seconds=100.0, updates=1), 10_000)
    assert "left=0:05:00" in line
    assert clock_text(3 * 3600 + 62) == "3:01:02"


def test_the_display_is_redrawn_at_most_twice_a_second(tmp_path: Path) -> None:
    clock = Clock()
    logger = make(tmp_path, clock)
    logger.record("learner", "learner", learner(1))
    shown: list[float] = []
    logger._display.show = lambda status, period_over=False: shown.append(clock.now)  # type: ignore[method-assign]
    for _ in range(40):
        logger.tick()
        clock.now += 0.1
    assert len(shown) == 8
    logger.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_dashboard_only_on_a_terminal_and_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(tmp_path, 1, live=True, out=Terminal()), PlainLines)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_display(tmp_path, 1, live=True, out=io.StringIO()), PlainLines)
    assert isinstance(make_display(tmp_path, 1, live=False, out=Terminal()), PlainLines)
    live = make_display(tmp_path, 1, live=True, out=Terminal())
    assert isinstance(live, LiveDashboard)
    live.close()


def test_a_display_error_neither_ends_the_run_nor_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    live = LiveDashboard(tmp_path, 100, fallback=PlainLines(100, out))

    def broken(*_: object) -> None:
        raise RuntimeError("no colours left")

    monkeypatch.setattr("offbeat.run.dashboard.panel", broken)
    live.show(Status(updates=1, frames=50))
    assert "no colours left" in capsys.readouterr().err
    live.show(Status(updates=2, frames=60), period_over=True)
    assert "frames=60" in out.getvalue()
    live.close()


def test_scores_are_shown_without_the_rounding_of_their_rewards() -> None:
    exact = {
        50 * float(np.float32(-0.01)): "-0.5", 3: "3", 20_000_000.0: "20000000", 12345678.25: "12345678",
        0.00012345678: "0.000123457", 21.0: "21", float("nan"): "nan", float("inf"): "inf", 1234.5678: "1234.57",
    }  # fmt: skip
    for value, shown in exact.items():
        assert event_line("evaluator", "evaluation", {"mean": value}) == f"evaluation evaluator mean={shown}"
    assert event_line("main", "restart", {"why": "it hung", "again": True}) == "restart main why=it hung again=1"


def test_many_missed_frames_are_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    logger = make(tmp_path, Clock(), say=said.append)
    for missed, steps in ((40, 20), (9, 91), (30, 100), (300, 100)):
        logger.record("realtime_env", "realtime", {"missed": missed, "steps": steps})
    logger.close()
    assert len(said) == 1
    assert said[0].startswith("30 of 130 frames were missed so far: the environment")


@pytest.mark.parametrize("there", ["nothing", "a folder", "a pipe", "a torn header"])
def test_a_run_goes_on_whatever_is_in_the_place_of_its_table(there: str, tmp_path: Path) -> None:
    logger = make(tmp_path, Clock())
    logger.record("learner", "learner", learner(1, loss=2.0))
    saved = logger.offsets()
    logger.close()
    path = tmp_path / "progress.csv"
    saved["progress_bytes"] = 200
    path.unlink()
    if there == "a folder":
        path.mkdir()
    elif there == "a pipe":
        os.mkfifo(path)
    elif there == "a torn header":
        path.write_text("seconds,fra")
    again = make(tmp_path, Clock(), resume_offset=saved)
    again.close()
    assert path.read_text().splitlines()[0] == ",".join(Status().row())

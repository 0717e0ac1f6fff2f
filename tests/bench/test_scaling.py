"""How many inference processes suffice: the search, and the run that it asks."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from offbeat.bench import scaling as module
from offbeat.bench.scaling import Found, Staggered, Wanted, computed, search, smallest
from offbeat.bench.scaling_report import Row, draw, fit, fits, table, write_csv
from offbeat.bench.scaling_wall import left_over, share_of
from offbeat.cli import main
from offbeat.runtime.realtime_books import DECISION
from offbeat.runtime.realtime_config import RealtimeConfig


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    for name in ("LEAST_FRAMES", "LEAST_COUNTED"):
        monkeypatch.setattr(module, name, 300)


EVEN = np.ones(8)
UNEVEN = np.random.default_rng(0).uniform(0.5, 1.5, 500)
CONFIG = RealtimeConfig(fps=60.0)
"""Of the largest time, padded."""


def asked(needed: int, most: int, **options):
    """What is found where ``needed`` suffice, and the numbers that were tried."""
    tried: list[int] = []

    def share(count: int) -> float:
        tried.append(count)
        return 0.005 if count >= needed else 1.0

    return smallest(share, 0.01, most, **options), tried


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 100, 999])
@pytest.mark.parametrize("start", [1, 5, 64])
def test_the_smallest_number_is_found(needed, start) -> None:
    (count, share, tries), tried = asked(needed, 1000, start=start)
    assert (count, share, tries) == (needed, 0.005, len(tried))
    assert len(set(tried)) == len(tried) <= 22


def test_it_doubles_from_one_and_then_bisects() -> None:
    assert asked(11, 1000)[1] == [1, 2, 4, 8, 16, 12, 10, 11]
    assert asked(1000, 2000, start=1010, precision=0.01)[1] == [1010, 1000, 980, 990]


def test_no_number_is_found_where_the_most_do_not_suffice() -> None:
    (count, share, _), tried = asked(101, 100)
    assert count is None
    assert np.isnan(share), "counting ended early"
    assert tried[-1] == 100


def test_a_coarser_search_is_not_too_low_and_within_its_precision() -> None:
    for needed in (700, 1023, 1500):
        (count, _, _), _ = asked(needed, 10_000, precision=0.05)
        assert needed <= count <= needed * 1.06


@pytest.mark.parametrize("frames", [1.0, 3.0, 7.5, 40.0])
def test_times_that_are_all_alike_need_the_ceiling(frames) -> None:
    for estimator in ("max", "quantile"):
        found = search(replace(CONFIG, estimator=estimator), EVEN, frames, Wanted(precision=1e-9))
        assert found.processes == computed(CONFIG, EVEN, frames) == int(np.ceil(frames))
        assert found.inaction == 0.0


def test_one_process_less_leaves_frames_over_in_the_known_share() -> None:
    for processes in (3, 9):  # an action every 10 / N frames
        run = Staggered(replace(CONFIG, inference=processes, pad=False), EVEN, 10.0)
        assert run.inaction(3000) == pytest.approx(1 - processes / 10, abs=0.002)


def test_the_largest_time_counts_not_the_mean_where_slots_follow_it() -> None:
    found = search(CONFIG, UNEVEN, 20.0, Wanted(allowed=1e-4, precision=1e-9), start=28)
    assert found.processes == computed(CONFIG, UNEVEN, 20.0) == 30


def test_actions_that_do_not_wait_for_slots_need_more_than_the_mean() -> None:
    config = replace(CONFIG, estimator="mean", pad=False)
    found = search(config, UNEVEN, 2.0, Wanted(allowed=0.05, precision=0.2), start=10)
    assert found.processes is not None
    assert found.processes > 2 * computed(config, UNEVEN, 2.0)
    padded = search(replace(config, pad=True), UNEVEN, 10.0, Wanted(per_frame=3), start=30)
    assert padded.processes is None


def test_it_stops_counting_when_too_much_is_left_over() -> None:
    run = Staggered(replace(CONFIG, inference=1), EVEN, 10.0)
    assert run.inaction(100_000, most=0.01) == 1.0
    assert run.rows.frames < run.settled + 1200


def test_draws_keep_the_shape_of_the_recording() -> None:
    run = Staggered(replace(CONFIG, inference=4), np.array([2.0, 2.0, 2.0, 10.0]), 4.0)
    run.play(run.settled + 500)
    taken = np.array([decision.times[3] - decision.times[1] for decision in run.realtime.slots.fresh])
    assert run.realtime.stagger().period_s == pytest.approx(10.0 / 60)  # the longest: 4 frames x 10 / 4
    assert all(np.isclose(each * 60, 2.0) or np.isclose(each * 60, 10.0) for each in taken)


def rows_of(slope: float, counts: int = 5) -> list[Row]:
    """Searches that found 3 frames ** slope."""
    times = np.logspace(1, 4, counts)
    return [Row(Found("max", float(t), max(1, round(3 * t**slope)), 0.0, 9), max(1, int(t))) for t in times]


def test_the_line_has_the_slope_and_its_error() -> None:
    line = fit(rows_of(1.0))
    assert line is not None
    assert line.slope == pytest.approx(1.0, abs=1e-3)
    assert line.error < 1e-3
    noisy = [
        Row(replace(r.found, processes=int(r.found.processes * f)), 1) for r, f in zip(rows_of(1.0), (1, 2, 1, 2, 1))
    ]
    again = fit(noisy)
    assert again is not None
    x, y = np.log([r.found.frames for r in noisy]), np.log([r.found.processes for r in noisy])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    assert (again.slope, again.error) == pytest.approx((slope, covariance[0, 0] ** 0.5))
    assert fit([Row(Found("max", 1.0, None, 0.5, 3), 1)]) is None


def test_the_report_leaves_out_what_was_not_found(tmp_path) -> None:
    rows = [*rows_of(1.0), Row(Found("mean", 10.0, None, float("nan"), 5), 10)]
    assert table(rows)[-1].split()[-4:] == ["too", "many", "10", "5"]
    assert len(fits(rows)) == 1
    write_csv(rows, tmp_path / "a" / "rows.csv", "offbeat realtime scaling")
    lines = (tmp_path / "a" / "rows.csv").read_text().splitlines()
    assert lines[0] == "# offbeat realtime scaling"
    read = list(csv.DictReader(lines[1:]))
    assert read[-1]["processes"] == read[-1]["inaction"] == ""
    assert [int(row["processes"]) for row in read[:-1]] == [row.found.processes for row in rows[:-1]]


def test_a_picture_is_drawn(tmp_path) -> None:
    draw(rows_of(1.0), "title").savefig(tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 5000


def test_frames_that_were_missed_are_left_over_too() -> None:
    decisions = np.full((10, len(DECISION)), np.nan)
    decisions[:, DECISION.index("acted")] = np.arange(10.0)
    ticks = np.zeros((20, 3))
    ticks[:, 0] = np.arange(20) / 2
    assert share_of(decisions, ticks, 0.0) == 0.5
    assert share_of(decisions, ticks, 5.0) == 0.5
    ticks[-1, 2] = 20
    assert share_of(decisions, ticks, 0.0) == 0.75
    with pytest.raises(ValueError, match="no frame of 20"):
        share_of(decisions, ticks, 99.0)


@pytest.mark.slow
def test_on_the_wall_clock_one_process_cannot_act_in_every_frame() -> None:
    config = RealtimeConfig(fps=30.0, inference=1)
    assert 0.45 <= left_over(config, EVEN, 2.0, 2.0) <= 1.0  # two frames for each action


def test_the_command_searches_and_writes(tmp_path, capsys) -> None:
    np.save(tmp_path / "times.npy", UNEVEN)
    given = ["--recording", str(tmp_path / "times.npy"), "--frames", "2,4,8", "--estimator", "max,quantile"]
    written = ["--csv", str(tmp_path / "s.csv"), "--figure", str(tmp_path / "s.png")]
    assert main(["realtime", "scaling", *given, *written]) == 0
    out = capsys.readouterr().out
    assert "max: log N =" in out
    assert "3 points" in out
    assert (tmp_path / "s.png").exists()
    found = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()[1:]))
    assert [(row["estimator"], row["processes"]) for row in found[:3]] == [("max", "3"), ("max", "6"), ("max", "12")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs --recording FILE"),
        (["--recording", "nowhere.npy"], "cannot be read"),
        (["--recording", "TIMES", "--frames", "0"], "is not a list of numbers above 0"),
        (["--recording", "TIMES", "--estimator", "median"], "median"),
        (["--recording", "TIMES", "--share", "1"], "must be above 0 and below 1"),
        (["--recording", "TIMES", "--realtime.inference", "3"], "got --realtime.inference"),
        (["--recording", "TIMES", "--wall", "maybe"], "choose one of: true, false"),
        (["--recording", "NAMES"], "expected a list of times above 0"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, capsys, arguments, said) -> None:
    np.save(tmp_path / "TIMES", UNEVEN)
    np.save(tmp_path / "NAMES", np.array(["a"]))
    given = [str(tmp_path / f"{one}.npy") if one in ("TIMES", "NAMES") else one for one in arguments]
    assert main(["realtime", "scaling", *given]) == 2
    assert said in capsys.readouterr().err

"""The books of a realtime run against numbers worked out by hand, and against lists."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from offbeat.runtime.mailbox import Decision
from offbeat.runtime.realtime_books import DECISION, OLDEST, Newest, RealtimeBooks, measured, overheads
from offbeat.runtime.realtime_config import RealtimeConfig
from tests.runtime.parts import Metrics, same_arrays
from tests.runtime.realtime_parts import make_shared

NAN = float("nan")
ROWS = np.array([
    # worker, slot, version, source, frame, seen, read, started, ended, due, published, acted, episode, step
    [0, 1, 5, 10, 12, 0.0, 1.0, 1.25, 2.0, 2.0, 2.5, 2.75, 0, 10],
    [1, 1, 5, 11, 15, 0.0, 1.5, 1.5, 3.5, 3.0, 3.5, NAN, 0, 11],  # lost
    [0, 2, 6, 13, 18, 0.0, 3.0, 3.125, 4.0, 5.0, 5.5, 5.75, 0, 13],
])  # fmt: skip


def test_decisions_are_measured_as_by_hand() -> None:
    assert overheads(ROWS).tolist() == [0.25 + 0.5, 0.0, 0.125 + 0.5]
    found = measured(ROWS)
    assert found["staleness"] == (2 + 5) / 2, "of those that acted"
    assert found["staleness_max"] == 5
    assert found["inference_s"] == pytest.approx((0.75 + 2.0 + 0.875) / 3)
    assert found["inference_p99_s"] == pytest.approx(0.875 + 0.98 * (2.0 - 0.875))
    assert found["overhead_p50_s"] == 0.625
    assert found["overhead_p99_s"] == pytest.approx(0.625 + 0.98 * 0.125)
    assert found["spacing_s"] == (1.0 + 2.0) / 2
    assert found["spacing_cv"] == pytest.approx(0.5 / 1.5)
    shuffled = measured(ROWS[[2, 0, 1]])
    assert shuffled == pytest.approx(found), "the order that they came in does not matter"
    assert measured(ROWS[:0]) == {}
    one = measured(ROWS[1:2])
    assert all(math.isnan(one[name]) for name in ("staleness", "staleness_max", "spacing_s", "spacing_cv"))
    assert one["inference_s"] == 2.0


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048, 2049, 5000])
def test_the_newest_are_kept(count: int) -> None:
    newest, rows = Newest(2, most=2048), [[float(n), float(-n)] for n in range(count)]
    for number, row in enumerate(rows):
        newest.add(row)
        if number in (0, 1023, 1024, 2047, 2048, 3000):
            assert newest.rows().tolist() == rows[max(0, number + 1 - 2048) : number + 1]
    kept = rows[max(0, count - 2048) :]
    assert newest.rows().tolist() == kept
    for before in (0, count // 2, max(0, count - 3), count):
        assert newest.since(before).tolist() == rows[max(before, count - len(kept)) :]


def decided(source: int) -> Decision:
    """From the observation of that frame."""
    return Decision(1, source, 0, source, 0, np.arange(6.0), np.zeros(1, np.int64), {})


def played() -> RealtimeBooks:
    """Four frames, of which two were decided on; one frame was missed."""
    books, first, second, lost = RealtimeBooks(RealtimeConfig(fps=64), 4), decided(7), decided(3), decided(4)
    books.tick(10.0, 0.25, 0, None, [], 7)
    books.tick(11.0, 0.0, 1, first, [first], 9)
    books.tick(12.0, 0.0, 0, second, [lost, second], 9 + OLDEST)
    books.tick(13.0, 0.5, 0, None, [], 10)
    return books


def test_frames_and_decisions_are_kept_and_counted(tmp_path: Path) -> None:
    books = played()
    assert (books.missed, books.decisions) == (1, 2)
    assert np.flatnonzero(books.staleness).tolist() == [2, OLDEST], "what is older counts as the oldest"
    assert books.ticks.rows()[:, :3].tolist() == [[0.25, 0.25, 0], [1.25, 0, 1], [2.25, 0, 0], [3.25, 0.5, 0]]
    kept = books.kept.rows()
    assert kept[:, DECISION.index("source")].tolist() == [7, 4, 3]
    assert kept[:, DECISION.index("frame")].tolist() == [9, 9 + OLDEST, 9 + OLDEST]
    assert kept[:, DECISION.index("seen")].tolist() == [-9.75] * 3, "since the first frame was due"
    np.testing.assert_array_equal(kept[:, DECISION.index("acted")], [1.25, NAN, 2.25])
    assert books.next_source(5000) == 5000 - (6 + OLDEST)
    assert books.next_source(3) == 0
    rows = SimpleNamespace(frames=4, inaction=2)
    slots = SimpleNamespace(lost=1, old_episode=0)
    books.write(rows, SimpleNamespace(folder=tmp_path / "realtime", slots=slots, shared={"gone": [3]}))
    totals = json.loads((tmp_path / "realtime" / "totals.json").read_text())
    assert totals == {
        "frames": 16, "steps": 4, "missed": 1, "inaction": 2, "decisions": 2, "lost": 1, "old_episode": 0, "too_old": 0,
        "processes_gone": 3,
    }  # fmt: skip
    names = {"decisions": kept, "frames": books.ticks.rows(), "staleness": books.staleness}
    same_arrays({name: np.load(tmp_path / "realtime" / f"{name}.npy") for name in names}, names)
    RealtimeBooks(RealtimeConfig(fps=64), 4).write(rows, SimpleNamespace(folder=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def row(reward: float, first: bool, elapsed: int | None) -> SimpleNamespace:
    """The part of a row that is scored."""
    return SimpleNamespace(
        raw_reward=np.array([reward]), first=np.array([first]), elapsed=None if elapsed is None else np.array([elapsed])
    )


def test_episodes_are_scored_and_begin_anew() -> None:
    books, metrics = RealtimeBooks(RealtimeConfig(fps=64), 4), Metrics()
    for one in (row(1.0, True, 2), row(2.5, False, 3), row(4.0, False, 1)):
        books.account(one)  # type: ignore[arg-type]
    books.end_episode(metrics)
    books.unseen(-3.0, 7)
    books.end_episode(metrics)
    books.end_episode(metrics)
    assert metrics.of("episode") == [
        {"return": 7.5, "length": 2.0, "episode_frames": 24.0},
        {"return": -3.0, "length": 0.0, "episode_frames": 28.0},
        {"return": 0.0, "length": 0.0, "episode_frames": 0.0},
    ]


def test_reports_come_once_a_second_with_what_is_new() -> None:
    books, metrics, realtime = played(), Metrics(), make_shared()
    realtime.slots.lost, realtime.shared["gone"][0] = 5, 2
    rows = SimpleNamespace(frames=12, inaction=9)
    for now in (20.0, 20.5, 20.999):
        books.report(now, rows, realtime, metrics)  # type: ignore[arg-type]
    (first,) = metrics.of("realtime")
    wanted = {"frames": 48, "steps": 12, "inaction": 9, "missed": 1, "decisions": 2, "lost": 5, "processes_gone": 2}
    assert {name: first[name] for name in wanted} == wanted
    assert first["staleness_max"] == 6 + OLDEST
    assert first["late_p99_s"] == pytest.approx(0.25 + 0.97 * 0.25)
    new = decided(20)
    books.tick(14.0, 0.125, 0, new, [new], 21)
    books.report(21.0, rows, realtime, metrics)  # type: ignore[arg-type]
    second = metrics.of("realtime")[1]
    assert (second["staleness_max"], second["late_p99_s"], second["decisions"]) == (1, 0.125, 3)


def test_counters_go_on_from_a_saved_state() -> None:
    books, other = played(), RealtimeBooks(RealtimeConfig(fps=64), 4)
    books.account(row(2.0, True, 3))  # type: ignore[arg-type]
    books.too_old = 3
    other.load_state(books.state())
    same_arrays(other.state(), books.state())
    assert (other.missed, other.too_old, other.returned, other.taken) == (1, 3, 2.0, 3)
    assert other.next_source(5000) == books.next_source(5000)
    other.staleness[0] += 1
    assert books.staleness[0] == 0

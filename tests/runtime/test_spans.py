"""Spans: what is kept in which order, the window, full buffers, and what runs without a time line pay: nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.run.train import train
from offbeat.run.verify import compare_checkpoints
from offbeat.runtime.actor import build_actor
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.spans import SPAN, Lane, Spans, TraceConfig
from tests.runtime.parts import Metrics, make_host, small_config, small_world

S = 10**9


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100 * S

    def __call__(self) -> int:
        return self.now


class Port:
    """Calls that take as long as they are told, one within the other."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def work(self, s: float) -> float:
        """Takes ``s`` seconds."""
        self.clock.now += int(s * S)
        return s

    def outer(self, before: float, inner: float, after: float) -> None:
        """Works by itself, then within ``work``, then by itself."""
        self.clock.now += int(before * S)
        self.work(inner)
        self.clock.now += int(after * S)

    def fails(self) -> None:
        """Half a second, then an error."""
        self.clock.now += S // 2
        raise ZeroDivisionError("port")

    def until(self, name: str, s: float) -> None:
        """A wait with a name."""
        self.clock.now += int(s * S)


def recorded(
    folder: Path, *, role: str = "learner", seconds: float = 10, start_s: float = 0, capacity: int = 100
) -> tuple[Spans, Port, dict[str, np.ndarray]]:
    """A recorder of a port, and the board that it looks at; the learner has done one update."""
    board, clock = {"updates": np.ones(1, np.int64), "trace_ns": np.zeros(1, np.int64)}, Clock()
    port = Port(clock)
    spans = Spans(
        role, folder, TraceConfig(seconds, start_s), board, leads=role == "learner", clock=clock, capacity=capacity
    )
    for method in ("work", "outer", "fails"):
        spans.wrap(port, method, method)
    spans.wrap(port, "until", "wait for {}")
    return spans, port, board


def read(folder: Path, name: str = "learner.main") -> tuple[dict[str, Any], list[tuple[str, float, float]]]:
    """What was said of a lane, and its spans: name, start, end in seconds since the clock's beginning."""
    said = json.loads((folder / f"{name}.json").read_text())
    rows = np.load(folder / f"{name}.npy", allow_pickle=False)
    assert rows.dtype == SPAN
    return said, [(said["names"][n], start / S - 100, end / S - 100) for n, start, end in rows.tolist()]


def test_calls_become_spans_in_the_order_of_their_ends(tmp_path: Path) -> None:
    spans, port, _ = recorded(tmp_path)
    port.work(0)  # the window opens
    assert port.work(1.0) == 1.0
    port.outer(1.0, 0.5, 0.5)
    port.until("room", 1.0)
    port.until("inference", 2.0)
    with pytest.raises(ZeroDivisionError):
        port.fails()
    spans.close()
    said, rows = read(tmp_path)
    assert rows == [
        ("work", 0, 0),
        ("work", 0, 1.0),
        ("work", 2.0, 2.5),
        ("outer", 1.0, 3.0),
        ("wait for room", 3.0, 4.0),
        ("wait for inference", 4.0, 6.0),
        ("fails", 6.0, 6.5),
    ]
    assert (said["begin"], said["end"]) == (100 * S, int(106.5 * S)), "the role ended before the window"
    assert (said["role"], said["thread"], said["dropped"]) == ("learner", "main", 0)


def test_the_window_begins_so_long_after_the_first_update_and_ends_by_itself(tmp_path: Path) -> None:
    spans, port, board = recorded(tmp_path, start_s=2, seconds=3)
    board["updates"][0] = 0
    port.work(1.0)
    assert board["trace_ns"][0] == 0
    board["updates"][0] = 1
    port.work(1.0)  # ends at 2: the window is [4, 7]
    assert board["trace_ns"][0] == 104 * S
    port.work(1.5)
    port.work(1.0)
    port.work(1.0)
    port.outer(1.0, 1.0, 1.0)  # [5.5, 8.5], with work [6.5, 7.5] in it
    said, rows = read(tmp_path)
    assert rows == [("work", 3.5, 4.5), ("work", 4.5, 5.5), ("work", 6.5, 7.5), ("outer", 5.5, 8.5)]
    assert (said["begin"], said["end"]) == (104 * S, 107 * S)
    before = sorted((file, file.stat().st_mtime_ns) for file in tmp_path.iterdir())
    port.work(1.0)
    spans.close()
    assert sorted((file, file.stat().st_mtime_ns) for file in tmp_path.iterdir()) == before


def test_other_roles_take_the_learners_window(tmp_path: Path) -> None:
    spans, port, board = recorded(tmp_path, role="actor-3", seconds=2)
    port.work(1.0)
    assert board["trace_ns"][0] == 0, "an actor decides nothing"
    board["trace_ns"][0] = 101 * S
    port.work(1.0)
    spans.close()
    assert read(tmp_path, "actor-3.main")[1] == [("work", 1.0, 2.0)]


def test_a_full_buffer_drops_and_counts_and_says_until_when_it_kept(tmp_path: Path) -> None:
    spans, port, _ = recorded(tmp_path, capacity=3)
    for _ in range(8):
        port.work(1.0)
    spans.close()
    said, rows = read(tmp_path)
    assert rows == [("work", 0, 1.0), ("work", 1.0, 2.0), ("work", 2.0, 3.0)]
    assert said["dropped"] == 5
    assert said["end"] == 103 * S


def test_a_lane_gives_names_numbers_once() -> None:
    lane = Lane("main", 4)
    for name in ("a", "b", "a"):
        lane.add(name, 1, 2)
    assert lane.names == {"a": 0, "b": 1}
    assert lane.spans()["name"].tolist() == [0, 1, 0]


def test_every_thread_has_a_lane_of_its_own(tmp_path: Path) -> None:
    spans, port, _ = recorded(tmp_path)
    port.work(1.0)
    thread = threading.Thread(target=lambda: port.work(2.0), name="assembly")
    thread.start()
    thread.join()
    port.work(0.5)
    spans.close()
    assert read(tmp_path)[1] == [("work", 0, 1.0), ("work", 3.0, 3.5)]
    assert read(tmp_path, "learner.assembly")[1] == [("work", 1.0, 3.0)]


def test_nothing_is_written_where_the_window_never_began(tmp_path: Path) -> None:
    spans, port, board = recorded(tmp_path / "a", start_s=50)
    port.work(1.0)
    spans.close()
    late, port, board = recorded(tmp_path / "b", role="actor-0", seconds=1)
    board["trace_ns"][0] = 90 * S  # a replaced actor, started after the window
    port.work(1.0)
    late.close()
    assert list(tmp_path.rglob("*.npy")) == []


def test_a_disk_that_takes_nothing_ends_no_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace").write_text("no folder")
    spans, port, _ = recorded(tmp_path / "trace")
    port.work(0)
    assert port.work(11.0) == 11.0
    spans.close()
    assert capsys.readouterr().err.count("learner.main.npy cannot be written, the time line lacks it") == 1


def test_the_learner_clears_what_an_earlier_start_of_the_run_left(tmp_path: Path) -> None:
    for name in ("actor-9.main.npy", "actor-9.main.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    recorded(tmp_path, role="actor-0")
    assert len(list(tmp_path.iterdir())) == 3
    recorded(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_without_a_time_line_no_port_is_touched(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    services = LocalServices(world, "actor-0", Metrics(), free=False)
    host = build_actor(services)
    before = {name: dict(vars(getattr(host, name))) for name in ("envs", "work", "policy", "writer")}
    services.record(host)
    for name, attributes in before.items():
        assert vars(getattr(host, name)).keys() == attributes.keys()
    host.close()


@pytest.mark.parametrize("role", ["learner", "evaluator", "inference", "actor-0"])
def test_every_call_that_is_named_exists(role: str, tmp_path: Path) -> None:
    world = small_world(
        tmp_path, small_config(engine="local", trace__seconds=1.0, actor__inference="server", learner__prefetch=1)
    )
    if role != "learner":
        make_host(world, "learner", Metrics(), free=False)  # publishes the first weights, which others wait for
    wrapped: list[str] = []

    class Noted(Spans):
        def wrap(self, owner: Any, method: str, name: str) -> None:
            wrapped.append(method)
            super().wrap(owner, method, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offbeat.runtime.local_services.Spans", Noted)
        services = LocalServices(world, role, Metrics(), free=role != "learner")
        host = world.topology.row(role).builder()(services)
        with services.record(host):
            host.close()
    named = [path.rpartition(".")[2] for path in world.topology.row(role).calls]
    assert wrapped == ([name for name in named if name not in ("until", "place")] if role == "learner" else named)


def test_recording_changes_no_weight(tmp_path: Path) -> None:
    usual, recording = (
        train(small_config(out=str(tmp_path / name), total_frames=200, trace__start_s=0.0, trace__seconds=seconds)).run
        for name, seconds in (("usual", 0.0), ("recording", 30.0))
    )
    result = compare_checkpoints(usual, recording)
    assert result.equal, result.differing
    assert result.arrays > 10
    assert not (usual / "trace").exists()
    assert (recording / "trace" / "learner.main.npy").exists()

"""What faults rest their verdicts on: records, ledgers, times, copies."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.run.chaos.files import DAMAGES
from offbeat.run.chaos.ground import copied, frames, goes_on, intact, ledger, within
from offbeat.run.chaos.roles import kill
from offbeat.run.chaos.verdicts import Broken
from offbeat.storage import checkpoint

ROWS = {
    "produced": 100, "stored": 40, "expired": 50, "lost": 7, "in_hand": 3,
    "fifo0/trained": 60, "fifo0/pending": 25, "fifo0/skipped": 8, "fifo0/lost": 7,
}  # fmt: skip


def written(run: Path, *records: dict[str, Any]) -> Path:
    """A run folder with these records."""
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return run


def test_a_ledger_that_closes(tmp_path: Path) -> None:
    run = written(tmp_path, {"kind": "ledger", **ROWS, "produced": 99}, {"kind": "ledger", **ROWS}, {"kind": "learner"})
    assert ledger(run) == "ledger closes (7 of 100 rows lost)"


@pytest.mark.parametrize("name", ROWS)
def test_a_ledger_that_does_not_close_is_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(Broken, match="a ledger that closes"):
        ledger(written(tmp_path, {"kind": "ledger", **ROWS, name: ROWS[name] + 1}))


def test_a_run_without_a_ledger_is_found(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="a ledger at the end"):
        ledger(written(tmp_path, {"kind": "learner"}))


def test_frames_are_read_past_torn_lines(tmp_path: Path) -> None:
    assert frames(tmp_path) == -1
    written(tmp_path, {"frames": 5}, {"frames": 20}, {"frames": 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"frames": 99')
    assert frames(tmp_path) == 20


class Standing:
    """A command that never trains: ``until`` asks a few times and gives up."""

    def __init__(self, run: Path, counts: list[int]) -> None:
        self._run, self._counts = run, counts

    def until(self, ready: Any, what: str, patience_s: float) -> float:
        """Report the counts one after the other, asking each time."""
        for count in self._counts:
            written(self._run, {"frames": count})
            if ready():
                return 0.0
        raise Broken(what, "nothing of it")

    def note_shared(self) -> None:
        """Nothing is shared."""


@pytest.mark.parametrize(
    ("counts", "trains"),
    [([1, 2, 3], True), ([1, 1, 2, 2, 3], True), ([5, 1, 2, 1, 2], True), ([1, 2, 2, 2], False), ([0, 0, 9, 9], False)],
)
def test_training_goes_on_where_frames_grow_three_times(counts: list[int], trains: bool, tmp_path: Path) -> None:
    child: Any = Standing(tmp_path, counts)
    if trains:
        goes_on(child, tmp_path)
        return
    with pytest.raises(Broken, match="training that goes on"):
        goes_on(child, tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_breaks_the_newest_checkpoint(damage: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for steps in (10, 20):
        arrays = {"learner": {"values": np.arange(100.0)}}
        checkpoint.save(tmp_path, steps, arrays, {"counters": {"updates": 1}}, keep=2)
    assert int(intact(tmp_path).name) == 20
    DAMAGES[damage](intact(tmp_path))
    with pytest.raises(Broken, match="a newest checkpoint that is complete"):
        intact(tmp_path)


def test_a_copy_leaves_out_what_was_put_aside(tmp_path: Path) -> None:
    run = written(tmp_path / "run", {"frames": 1})
    os.mkfifo(run / "progress.csv.broken")
    assert [path.name for path in copied(run, tmp_path / "copy").iterdir()] == ["metrics.jsonl"]


def test_what_takes_too_long_is_broken() -> None:
    assert within(5.0, time.monotonic() - 6, "an end", slack_s=3).startswith("6.0")
    with pytest.raises(Broken, match=r"expected an end within 5 s, got 9\.0 s"):
        within(5.0, time.monotonic() - 9, "an end", slack_s=3)


def test_a_role_that_is_killed_must_be_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []

    class Silent:
        """It says nothing."""

        def running(self) -> bool:
            """It does."""
            return True

        def roles(self) -> dict[str, int]:
            """One."""
            return {"actor-0": 17}

        def until_said(self, text: str) -> float:
            """Never."""
            raise Broken(text, "nothing")

    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    child: Any = Silent()
    with pytest.raises(Broken, match="replaced"):
        kill(child, "actor-0", "replaced")
    assert killed == [17]

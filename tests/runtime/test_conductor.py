"""When the main process evaluates, saves and stops; and that a failed save leaves what there was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.runtime.clock import WALL, Clock, VirtualClock
from offbeat.runtime.conductor import Conductor
from offbeat.storage import checkpoint
from offbeat.storage.checkpoint import write_part
from tests.runtime.parts import small_config, small_world

SKIP = 1


class Logger:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.points: list[tuple[int, int]] = []
        self.flushed = 0

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        """Where the learner is."""
        assert frames == SKIP * agent_steps
        self.points.append((updates, agent_steps))

    def flush(self) -> None:
        """Count."""
        self.flushed += 1

    def offsets(self) -> dict[str, int]:
        """How long the files are."""
        return {"metrics.jsonl": 123}


def make_conductor(
    run: Path, meta: dict[str, Any] | None = None, clock: Clock | None = None, **overrides: Any
) -> tuple[Conductor, list[str]]:
    """A conductor and the lines that it says."""
    said: list[str] = []
    world = small_world(run, small_config(**overrides))
    world.clock = clock or WALL
    return Conductor(world, run, Logger(), said.append, meta or {}), said  # type: ignore[arg-type]


def writes(steps: int, updates: int = 3):  # type: ignore[no-untyped-def]
    """What roles do when they are asked to save."""

    def save(folder: Path) -> dict[str, Any]:
        write_part(folder, "learner", {"weights/w": np.full(4, steps)})
        return {"counters": {"agent_steps": steps, "frames": SKIP * steps, "updates": updates}, "parts": ["learner"]}

    return save


def steps_with_evaluation(conductor: Conductor, upto: int, by: int) -> list[int]:
    """Agent steps at which an evaluation was due."""
    due = []
    for steps in range(0, upto + 1, by):
        conductor.progress(steps // by, steps, SKIP * steps)
        if conductor.evaluation_due():
            due.append(steps)
            assert not conductor.evaluation_due(), "counted once"
    return due


def test_evaluations_follow_the_frames(tmp_path: Path) -> None:
    every = {"evaluation__every_frames": 100}
    conductor, _ = make_conductor(tmp_path, **every)
    assert steps_with_evaluation(conductor, 390, by=30) == [120, 210, 300]
    conductor, _ = make_conductor(tmp_path, **every)
    assert steps_with_evaluation(conductor, 390, by=130) == [130, 260, 390]
    conductor, _ = make_conductor(tmp_path, **every)
    assert steps_with_evaluation(conductor, 350, by=350) == [350], "several that were passed at once are one"
    assert conductor.evaluations == 3
    conductor, _ = make_conductor(tmp_path, {"evaluations": 2}, **every)
    assert steps_with_evaluation(conductor, 390, by=30) == [300], "a resumed run knows what it has done"
    conductor, _ = make_conductor(tmp_path, evaluation__every_frames=0)
    assert steps_with_evaluation(conductor, 390, by=30) == []


@pytest.mark.parametrize(("at_end", "expected"), [("true", [200]), ("false", [200, 400])])
def test_the_evaluation_at_the_end_is_not_played_twice(at_end: str, expected: list[int], tmp_path: Path) -> None:
    conductor, _ = make_conductor(tmp_path, evaluation__every_frames=200, evaluation__at_end=at_end)
    assert steps_with_evaluation(conductor, 400, by=100) == expected


def validated(conductor: Conductor, steps: int, mean: float, complete: bool = True) -> None:
    """A validation at ``steps`` with this mean; the weights that it played are ``steps`` everywhere."""
    conductor.progress(steps, steps, SKIP * steps)
    assert conductor.validation_due()
    conductor.validated({"mean": mean, "complete": complete} if complete else {}, writes(steps, steps))


def kept(run: Path, name: str = "best") -> tuple[float, dict[str, Any]]:
    """What the weights of a checkpoint with a name are, and its meta data."""
    weights, meta = checkpoint.load_weights(run / "checkpoints" / name)
    return float(weights["w"][0]), meta


def fails(*arguments: object, **options: object) -> None:
    """What a full disk does."""
    raise OSError("full")


def test_weights_of_a_higher_validation_are_kept_also_below_zero(tmp_path: Path) -> None:
    conductor, said = make_conductor(tmp_path, validation__every_steps=10)
    found = []
    for steps, mean in ((10, -21.0), (20, -21.0), (30, -22.0), (40, -20.5)):
        validated(conductor, steps, mean)
        value, meta = kept(tmp_path)
        found.append(value)
        assert meta["counters"]["agent_steps"] == meta["frames"] == value
    assert found == [10, 10, 10, 40]
    assert meta["validation_mean"] == conductor.validations.best == -20.5
    assert len(said) == 2 and said[1].startswith("best validation so far: -20.5 at 40 frames; its weights are in ")
    conductor.save(writes(45))
    saved = checkpoint.newest(tmp_path)
    assert saved is not None
    assert saved.meta["validation"] == {"best": -20.5, "passed": 4, "since_s": pytest.approx(0, abs=60)}
    later, _ = make_conductor(tmp_path, saved.meta, validation__every_steps=10)
    assert later.validations.best == -20.5
    validated(later, 50, -20.75)
    assert kept(tmp_path)[0] == 40


def test_a_validation_that_was_broken_off_or_cannot_be_saved_keeps_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conductor, said = make_conductor(tmp_path, validation__every_steps=10)
    validated(conductor, 10, 1.0)
    validated(conductor, 20, 9.0, complete=False)
    assert conductor.validation_due(), "it is due again"
    with monkeypatch.context() as patch:
        patch.setattr("offbeat.storage.checkpoint.save_file", fails)
        conductor.validated({"mean": 5.0, "complete": True}, writes(20))
    assert said[-1].startswith("the best weights could not be saved, and those of before are kept: ")
    assert conductor.validations.best == 1.0 and kept(tmp_path)[0] == 10
    validated(conductor, 30, 2.0)
    assert kept(tmp_path)[0] == 30
    conductor.ask_to_stop("asked")
    conductor.progress(40, 40, SKIP * 40)
    assert not conductor.validation_due()


def test_an_extra_checkpoint_is_made_once_and_kept(tmp_path: Path) -> None:
    options = {"checkpoint__extra_at": 25, "checkpoint__keep": 1, "checkpoint__every_s": 0}
    conductor, said = make_conductor(tmp_path, **options)
    due = []
    for steps in range(0, 60, 10):
        conductor.progress(steps, steps, SKIP * steps)
        if conductor.checkpoint_due():
            due.append(steps)
            conductor.save(writes(steps, steps))
    assert due == [30]
    assert said == [f"extra checkpoint at 30 agent steps, which is kept: {tmp_path / 'checkpoints' / 'extra'}"]
    conductor.save(writes(50, 50))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000000050", "extra"]
    value, meta = kept(tmp_path, "extra")
    assert value == meta["counters"]["agent_steps"] == 30
    resumed, said = make_conductor(tmp_path, {"counters": {"agent_steps": 20}}, **options)
    resumed.progress(31, 31, SKIP * 31)
    assert not resumed.checkpoint_due() and resumed.save(writes(31)) is not None and said == []


def test_an_extra_checkpoint_that_cannot_be_made_does_not_have_the_run_save_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conductor, _ = make_conductor(tmp_path, checkpoint__extra_at=10, checkpoint__every_s=0)
    conductor.progress(10, 10, SKIP * 10)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Draft, "keep_copy", fails)
        assert conductor.checkpoint_due() and conductor.save(writes(10)) is None
        assert not conductor.checkpoint_due()
    assert conductor.save(writes(20)) is not None
    assert kept(tmp_path, "extra")[0] == 20


def test_checkpoints_follow_the_updates(tmp_path: Path) -> None:
    conductor, _ = make_conductor(
        tmp_path, {"counters": {"updates": 5}}, checkpoint__every_updates=4, checkpoint__every_s=0
    )
    due = []
    for updates in range(5, 20):
        conductor.progress(updates, updates * 10, SKIP * updates * 10)
        if conductor.checkpoint_due():
            due.append(updates)
            conductor.save(writes(updates * 10, updates))
    assert due == [9, 13, 17]


@pytest.mark.parametrize(
    ("engine", "deterministic", "due"), [("local", "false", True), ("local", "true", False), ("inline", "false", False)]
)
def test_only_free_runs_are_saved_by_the_clock(engine: str, deterministic: str, due: bool, tmp_path: Path) -> None:
    clock = VirtualClock(50.0)
    conductor, _ = make_conductor(
        tmp_path,
        clock=clock,
        engine=engine,
        deterministic=deterministic,
        checkpoint__every_updates=0,
        checkpoint__every_s=10,
    )
    clock.sleep(9.0)
    assert not conductor.checkpoint_due()
    clock.sleep(1.5)
    assert conductor.checkpoint_due() == due
    conductor.save(writes(1))
    assert not conductor.checkpoint_due(), "the clock starts again"


def test_a_new_run_is_saved_after_a_minute(tmp_path: Path) -> None:
    clock = VirtualClock()
    conductor, _ = make_conductor(
        tmp_path, clock=clock, engine="local", checkpoint__every_updates=0, checkpoint__every_s=600
    )
    clock.sleep(59.0)
    assert not conductor.checkpoint_due()
    clock.sleep(1.0)
    assert conductor.checkpoint_due()
    conductor.save(writes(1))
    clock.sleep(599.0)
    assert not conductor.checkpoint_due()
    clock.sleep(1.0)
    assert conductor.checkpoint_due()
    resumed, _ = make_conductor(
        tmp_path, {"resumes": 0}, clock=clock, engine="local", checkpoint__every_updates=0, checkpoint__every_s=600
    )
    clock.sleep(599.0)
    assert not resumed.checkpoint_due(), "there is one already"


def test_a_saved_checkpoint_says_where_the_run_was(tmp_path: Path) -> None:
    conductor, said = make_conductor(tmp_path, {"resumes": 1}, evaluation__every_frames=100)
    conductor.progress(6, 210, 210 * SKIP)
    assert conductor.evaluation_due()
    folder = conductor.save(writes(220, 7))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.path == folder
    assert found.agent_steps == 220, "what the learner says, not what the main process had heard"
    _, meta = checkpoint.load(found)
    expected = {"evaluations": 2, "resumes": 2, "frames": 220 * SKIP, "version": 7, "metrics": {"metrics.jsonl": 123}}
    assert {name: meta[name] for name in expected} == expected
    assert meta["counters"] == {"agent_steps": 220, "frames": 220 * SKIP, "updates": 7}
    assert conductor.logger.flushed == 1  # type: ignore[attr-defined]
    assert (conductor.updates, conductor.agent_steps, conductor.frames) == (7, 220, 220 * SKIP), "what was saved"
    assert said == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), checkpoint.CheckpointError("torn")])
def test_a_failed_save_leaves_older_ones_and_the_run_goes_on(error: Exception, tmp_path: Path) -> None:
    conductor, said = make_conductor(tmp_path)
    older = conductor.save(writes(10))

    def fails(folder: Path) -> dict[str, Any]:
        write_part(folder, "learner", {"weights/w": np.zeros(4)})
        raise error

    assert conductor.save(fails) is None
    assert len(said) == 1
    assert "checkpoint failed, the run goes on" in said[0]
    assert list((tmp_path / "checkpoints").iterdir()) == [older]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.agent_steps == 10
    assert conductor.save(writes(30)) is not None


def test_a_part_that_was_not_written_is_a_failed_save(tmp_path: Path) -> None:
    conductor, said = make_conductor(tmp_path)
    answer = {"counters": {"agent_steps": 5, "frames": 5, "updates": 1}, "parts": ["learner"]}
    assert conductor.save(lambda folder: answer) is None
    assert "'learner' was not written completely" in said[0]
    assert checkpoint.newest(tmp_path) is None


def test_errors_of_roles_are_not_swallowed_and_leave_no_draft(tmp_path: Path) -> None:
    conductor, _ = make_conductor(tmp_path)

    def dies(folder: Path) -> dict[str, Any]:
        raise ZeroDivisionError("role")

    with pytest.raises(ZeroDivisionError):
        conductor.save(dies)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_stop_keeps_its_first_reason_and_breaks_off_evaluations(tmp_path: Path) -> None:
    conductor, _ = make_conductor(tmp_path)
    assert conductor.stop_reason is None
    conductor.ask_to_stop("SIGINT")
    conductor.ask_to_stop("SIGTERM")
    assert conductor.stop_reason == "SIGINT"
    assert conductor.world.board["leaving"][0] == 1
    assert not conductor.world.stopped(), "the roles still have to save"

"""The free-running schedule of the local engine, with roles that answer at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offbeat.acting.final_sets import FinalConfig
from offbeat.envs.base import EnvConfig
from offbeat.runtime.engines import local
from offbeat.runtime.stuck import NoProgress
from offbeat.runtime.supervisor import RoleFailed
from offbeat.runtime.topology import topology
from offbeat.types import UNROLL
from tests.runtime.parts import small_config


class Roles:
    """A supervisor, a conductor and a world in one; writes down what happens."""

    def __init__(
        self, updates: int = 3, fails: str | None = None, at_end: bool = True, validate: tuple[int, ...] = ()
    ) -> None:
        self.events: list[str] = []
        every = {"validation__every_steps": 1, "validation__episodes": 10} if validate else {}
        self.topology = topology(small_config(engine="local", **every), UNROLL)
        self.roles = {name: self._role(name) for name in self.topology.names()}
        self.board = {
            name: np.zeros(1, np.int64) for name in ("updates", "agent_steps", "frames", "pause", "idle", "skipped")
        }
        evaluation = SimpleNamespace(at_end=at_end, episodes=5)
        env = {"env": EnvConfig(), "final_env": EnvConfig()}
        self.config = SimpleNamespace(deterministic=False, evaluation=evaluation, final=FinalConfig(), **env)
        self.conductor, self.validations = self, SimpleNamespace(playing=False)
        self.validate_at, self.best = validate, list[float]()
        self.world = self
        self.failed: str | None = None
        self.stop_reason: str | None = None
        self.evaluations = 0
        self.stuck_at: int | None = None
        self._updates, self._fails, self.updates = updates, fails, 0

    def _role(self, name: str) -> Any:
        role = SimpleNamespace(role=name, finished=False, busy=False, result=None, living=True, silent_s=lambda: 0.0)
        role.alive, role.row = lambda: role.living, self.topology.row(name)

        def command(what: str, **arguments: Any) -> None:
            self.events.append(f"{name} {what} {arguments.get('number', '')}".strip())
            role.result = {"complete": self.stop_reason is None, "mean": float(self.updates)}

        role.command = command
        return role

    def that(self, column: str, value: Any = True) -> list[Any]:
        return [self.roles[name] for name in self.topology.that(column, value)]

    def start(self) -> None:
        self.events.append("start")

    def pump(self) -> None:
        """One more update."""
        self.board["updates"][0] += 1
        self.roles["learner"].finished = bool(self.board["updates"][0] >= self._updates)
        if self._fails and self.board["updates"][0] == 2:
            self.failed, fails = self._fails, self._fails
            self._fails = None
            raise RoleFailed(f"{fails} failed")

    def ask(self, process: Any, name: str, **arguments: Any) -> dict[str, Any]:
        process.command(name)
        return {"text": "a miracle"}

    def answers(self, processes: list[Any], tick: Any = None, give_up: Any = None) -> list[Any]:
        return [process.result for process in processes]

    def tick(self) -> None:
        """Nobody listens."""

    def shows_life(self, column: str) -> bool:
        return True

    fruitless = ""

    def stuck_freely(self, tries: int, at_work: bool) -> bool:
        return bool(tries == self.stuck_at)

    def save_part(self, process: Any, folder: Path) -> dict[str, Any]:
        process.command("save")
        return {}

    def late(self, seconds: float) -> Any:
        return None

    def ask_to_stop(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason

    def set_aside(self, role: str) -> None:
        self.events.append(f"{role} set aside")

    def end(self, at_once: bool) -> None:
        self.events.append("end at once" if at_once else "end")

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        self.updates = updates

    def evaluation_due(self) -> bool:
        self.evaluations += self.updates == 2
        return self.updates == 2

    def validation_due(self) -> bool:
        due = self.updates in self.validate_at and not self.validations.playing
        self.validate_at = tuple(one for one in self.validate_at if one != self.updates or not due)
        self.validations.playing |= due
        return due

    def validated(self, answer: dict[str, Any], save: Any) -> None:
        self.validations.playing = False
        if answer.get("complete"):
            self.best.append(answer["mean"])
            save(Path("best"))

    def checkpoint_due(self) -> bool:
        return self.updates == 1

    def save(self, save: Any) -> None:
        save(Path("folder"))

    def say(self, text: str) -> None:
        self.events.append(f"said: {text}")


def run(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the engine run them."""
    monkeypatch.setattr(local, "Supervisor", lambda *arguments, **options: roles)
    monkeypatch.setattr(local, "ProgressWatch", lambda world: roles)
    return local.run(roles, roles, None)  # type: ignore[arg-type]


def test_a_validation_is_taken_in_when_it_has_ended_and_the_last_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(validate=(1, 3), at_end=False)
    assert run(roles, monkeypatch)
    validator = [event for event in roles.events if event.startswith("validator")]
    assert validator == ["validator evaluate 0", "validator save"] * 2
    assert roles.best == [1.0, 3.0]
    assert roles.events.index("validator evaluate 0") < roles.events.index("learner save")
    assert roles.events[-3:] == ["validator save", "learner save", "end"], "the run's end knows of the last one"


def test_saves_and_evaluates_on_schedule_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles()
    assert run(roles, monkeypatch)
    events = [event for event in roles.events if not event.startswith("said")]
    assert events == [
        "start",
        "learner save",
        "evaluator evaluate 1",
        "learner save",
        "evaluator evaluate 1000001",
        "end",
    ]
    assert roles.board["pause"][0] == 1, "actors rest during the last evaluation"


def test_updates_during_a_slow_hook_count_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    roles, tries = Roles(9), list[int]()

    def slow() -> None:
        roles.board["updates"][0] += 2

    monkeypatch.setattr(roles, "tick", slow)
    monkeypatch.setattr(roles, "stuck_freely", lambda updates, at_work: bool(tries.append(updates)))
    assert run(roles, monkeypatch)
    assert tries == [3, 6, 9, 12]


def test_without_a_last_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(at_end=False)
    assert run(roles, monkeypatch)
    assert roles.events[-2:] == ["learner save", "end"]


def test_a_stop_saves_and_scores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(updates=100)
    roles.stop_reason = "SIGTERM"
    assert not run(roles, monkeypatch)
    assert roles.events == ["start", "learner save", "end"]


@pytest.mark.parametrize("failed", ["actor-0", "learner", "evaluator"])
def test_a_failure_is_saved_and_raised(failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(fails=failed)
    with pytest.raises(RoleFailed, match=failed):
        run(roles, monkeypatch)
    assert roles.events[-2:] == ["learner save", "end"]
    assert (f"{failed} set aside" in roles.events) == (failed != "learner")


def test_a_dead_learner_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(fails="learner")
    roles.roles["learner"].living = False
    with pytest.raises(RoleFailed, match="learner"):
        run(roles, monkeypatch)
    assert roles.events[-2:] == ["said: learner failed; the newest checkpoint is the last one", "end"]


def test_a_run_that_can_make_no_progress_is_saved_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles(updates=100)
    roles.stuck_at = 3
    with pytest.raises(NoProgress, match="the learner waits for a miracle"):
        run(roles, monkeypatch)
    assert roles.events[-3:] == ["learner missing", "learner save", "end"]

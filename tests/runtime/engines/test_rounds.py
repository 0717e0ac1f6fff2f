"""The fixed schedule: act, learn, evaluate if due, save if due; in that order, with roles that only take notes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.acting.final_sets import FinalConfig
from offbeat.envs.base import EnvConfig
from offbeat.runtime.engines.rounds import RoundCut, run_rounds
from offbeat.runtime.stuck import NoProgress


class Notes:
    """Roles and a conductor that write down what they are asked; each round trains one update of ten steps."""

    def __init__(
        self, rounds: int, *, evaluate: tuple[int, ...] = (), save: tuple[int, ...] = (), stop: int = 0,
        at_end: bool = True, fail: int = 0, validate: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.log: list[str] = []
        self.rounds, self.evaluate_at, self.save_at, self.stop_at, self.fail_at = rounds, evaluate, save, stop, fail
        self.round, self.validate_at = 0, list(validate)
        self.stuck_at = self.cut_at = -1
        self.updates = 0
        self.evaluations = 4
        self.stop_reason: str | None = None
        evaluation = SimpleNamespace(at_end=at_end, episodes=5)
        self.world = SimpleNamespace(
            config=SimpleNamespace(evaluation=evaluation, final=FinalConfig(), env=EnvConfig(), final_env=EnvConfig())
        )
        self.roles = SimpleNamespace(
            act=self.act, learn=self.learn, evaluate=self.evaluate, save=self.part, pump=self.pump,
            validate=self.validate, save_validated=lambda folder: self.log.append("best"),
            stuck=lambda updates: self.round == self.stuck_at, missing=lambda: "a miracle",
        )  # fmt: skip

    def pretrains(self) -> bool:
        """There is no demonstration."""
        return False

    def finished(self) -> bool:
        """Whether the run was over before it began."""
        return self.round >= self.rounds

    def act(self) -> None:
        """A new round."""
        self.round += 1
        self.log.append(f"act{self.round}")
        if self.round == self.cut_at:
            raise RoundCut("actor-0 has not come to the end of its round")

    def learn(self) -> dict[str, Any]:
        """One more update."""
        self.updates += 1
        self.log.append("learn")
        if self.round == self.stop_at:
            self.stop_reason = "asked"
        counters = {
            "updates": self.updates,
            "skipped": 0,
            "agent_steps": 10 * self.updates,
            "frames": 40 * self.updates,
        }
        return {"finished": self.round >= self.rounds} | counters

    def pump(self) -> None:
        """A role may have failed."""
        self.log.append("pump")
        if self.round == self.fail_at:
            raise ZeroDivisionError("a role failed")

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """With the number that seeds it; broken off where a stop was asked."""
        self.log.append(f"evaluate#{number}@{self.updates}")
        return {"complete": True} if self.stop_reason is None else {}

    def validate(self) -> dict[str, Any]:
        """The better the later."""
        self.log.append(f"validate@{self.updates}")
        return {"complete": True, "mean": self.updates}

    def validation_due(self) -> bool:
        """As planned, each once."""
        due = self.round in self.validate_at
        self.validate_at = [one for one in self.validate_at if one != self.round]
        return due

    def validated(self, answer: dict[str, Any], save: Any) -> None:
        """As the real one: asks for the weights where they are the best."""
        assert answer["complete"]
        save(Path())

    def tick(self) -> None:
        """Write, show and tell what is due."""
        self.log.append("tick")

    def part(self, folder: Path) -> dict[str, Any]:
        """What conductors call."""
        self.log.append("save")
        return {}

    def say(self, text: str) -> None:
        """What the user is told."""
        self.log.append(f"said: {text}")

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        """Where the learner is."""
        assert (agent_steps, frames) == (10 * updates, 40 * updates)
        self.log.append(f"progress{updates}")

    def evaluation_due(self) -> bool:
        """As planned."""
        self.evaluations += self.round in self.evaluate_at
        return self.round in self.evaluate_at

    def checkpoint_due(self) -> bool:
        """As planned."""
        return self.round in self.save_at

    def save(self, save: Any) -> None:
        """As the real one: asks the roles."""
        save(Path())

    def run(self) -> tuple[bool, list[str]]:
        """Whether it finished, and everything that happened without the ticks."""
        finished = run_rounds(self.roles, self)  # type: ignore[arg-type]
        assert self.log.count("tick") >= self.round
        return finished, [note for note in self.log if note not in ("tick", "pump") and not note.startswith("said")]


def test_a_round_acts_learns_evaluates_and_saves() -> None:
    finished, log = Notes(3, evaluate=(2,), save=(1, 2)).run()
    assert finished
    assert log == [
        "act1", "learn", "progress1", "save",
        "act2", "learn", "progress2", "evaluate#5@2", "save",
        "act3", "learn", "progress3", "save", "evaluate#1000005@3",
    ]  # fmt: skip


def test_a_validation_comes_before_the_save_of_its_round_also_of_the_last() -> None:
    _, log = Notes(2, validate=(1, 2), save=(1,), at_end=False).run()
    assert log == [
        "act1", "learn", "progress1", "validate@1", "best", "save", "act2", "learn", "progress2", "validate@2", "best",
        "save",
    ]  # fmt: skip


def test_a_validation_that_was_broken_off_comes_first_when_the_run_goes_on() -> None:
    _, log = Notes(1, validate=(0,), at_end=False).run()
    assert log == ["validate@0", "best", "act1", "learn", "progress1", "save"]
    over = Notes(0, validate=(0,), at_end=False, fail=9)
    assert over.run() == (True, []), "a run that is over is not changed"


def test_the_last_round_saves_once_and_evaluates_at_the_end_if_asked_to() -> None:
    _, log = Notes(1, evaluate=(1,), save=(1,)).run()
    assert log == ["act1", "learn", "progress1", "save", "evaluate#1000005@1"]
    _, log = Notes(1, at_end=False).run()
    assert log == ["act1", "learn", "progress1", "save"]


def test_a_stop_saves_and_ends_after_the_round() -> None:
    finished, log = Notes(9, stop=2, save=(2,)).run()
    assert not finished
    assert log == ["act1", "learn", "progress1", "act2", "learn", "progress2", "save"]


@pytest.mark.parametrize("at_end", [True, False])
def test_a_stop_in_the_last_round_leaves_nothing_but_the_score_undone(at_end: bool) -> None:
    finished, log = Notes(2, stop=2, at_end=at_end).run()
    assert finished is not at_end
    assert log.count("save") == 1


def test_hooks_are_told_after_each_round_evaluation_and_the_end_of_training() -> None:
    notes = Notes(2, evaluate=(1,))
    notes.run()
    around = [notes.log[at - 1] for at, note in enumerate(notes.log) if note == "tick"]
    assert around == ["progress1", "evaluate#5@1", "progress2", "save"]


@pytest.mark.parametrize("fail", [1, 2])
def test_a_failed_role_ends_the_run_before_anything_is_saved(fail: int) -> None:
    notes = Notes(5, fail=fail, save=(1, 2))
    with pytest.raises(ZeroDivisionError):
        notes.run()
    assert notes.log.count("save") == fail - 1


def test_a_finished_run_is_scored_and_not_changed() -> None:
    notes = Notes(rounds=0, fail=-1)
    assert run_rounds(notes.roles, notes)
    assert not any(entry.startswith(("act", "learn", "save", "part")) for entry in notes.log)
    assert any(entry.startswith("evaluate") for entry in notes.log)


def test_a_round_that_is_cut_saves_what_there_is() -> None:
    notes = Notes(9)
    notes.cut_at = 2
    assert not run_rounds(notes.roles, notes)
    said = "said: actor-0 has not come to the end of its round; saving what there is"
    assert notes.log[-3:] == ["act2", said, "save"]


def test_rounds_that_lead_nowhere_end_with_an_explanation() -> None:
    notes = Notes(9)
    notes.stuck_at = 3
    with pytest.raises(NoProgress, match=r"can make no progress .* waits for a miracle"):
        run_rounds(notes.roles, notes)
    assert notes.log[-1] == "save"

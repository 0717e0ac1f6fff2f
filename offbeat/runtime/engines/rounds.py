"""The fixed schedule of deterministic runs, whatever hosts the roles: act, learn, evaluate and validate if due, save if
due.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines.endings import score_final_weights
from offbeat.runtime.stuck import NoProgress


class RoundCut(Exception):
    """The run is to end, and this round will not come to its own end; the text says why."""


class Roles(Protocol):
    """The roles of a run, all at rest between two calls."""

    def act(self) -> None:
        """Every actor appends one block to each of its streams, acting with the weights published before."""

    def learn(self) -> dict[str, Any]:
        """The learner trains on every batch that is ready; {"finished", "pretraining", "skipped", and the counters}."""

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """Have the evaluator score the current weights by its exam ``part``; its answer, {} if it was broken off."""

    def validate(self) -> dict[str, Any]:
        """The same of the validator."""

    def save_validated(self, folder: Path) -> dict[str, Any]:
        """Have the validator write the weights that it has played."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role writes its part of a checkpoint."""

    def stuck(self, tries: int) -> bool:
        """Whether rounds lead nowhere after ``tries`` updates, skipped ones included; asked once after each round."""

    def missing(self) -> str:
        """What the learner waits for, in one line."""

    def pump(self) -> None:
        """Take in what roles have reported; raise if one has failed."""


def run_rounds(roles: Roles, conductor: Conductor) -> bool:
    """Rounds until the learner is finished or the conductor stops; saves at the end. True if finished, and
    scored if it is to be.

    A run that was finished before is only scored: one more round would change the state that was saved.
    """
    finished = conductor.finished()
    held = conductor.pretrains()  # nobody acts before the learner has learnt from a demonstration
    if not finished:
        _validate(roles, conductor)  # one that was broken off, with the weights that it was to be of
    while not finished:
        try:
            if not held:
                roles.act()
            status = roles.learn()
            held = bool(status.get("pretraining"))
        except RoundCut as cut:
            conductor.say(f"{cut}; saving what there is")
            conductor.save(roles.save)
            return False
        roles.pump()
        conductor.progress(status["updates"], status["agent_steps"], status["frames"])
        conductor.tick()
        finished = bool(status["finished"])
        if conductor.evaluation_due() and not finished:
            roles.evaluate(conductor.evaluations)
            conductor.tick()
        _validate(roles, conductor)
        if finished:
            conductor.save(roles.save)
            conductor.tick()
        elif conductor.stop_reason is not None:  # looked at after a round: roles that never worked have nothing to save
            conductor.save(roles.save)
            return False
        elif roles.stuck(status["updates"] + status["skipped"]):
            missing = roles.missing()
            conductor.save(roles.save)
            raise NoProgress(missing)
        elif conductor.checkpoint_due():
            conductor.save(roles.save)
    finished = score_final_weights(roles.evaluate, conductor)
    roles.pump()
    return finished


def _validate(roles: Roles, conductor: Conductor) -> None:
    """A validation, if it is due."""
    if conductor.validation_due():
        conductor.validated(roles.validate(), roles.save_validated)
        conductor.tick()

"""The fixed schedule of deterministic runs, whatever hosts the roles: act, learn, evaluate if due, save if due."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.stuck import NoProgress


class RoundCut(Exception):
    """The run is to end, and this round will not come to its own end; the text says why."""


class Roles(Protocol):
    """The roles of a run, all at rest between two calls."""

    def act(self) -> None:
        """Every actor appends one block to each of its streams, acting with the weights published before."""

    def learn(self) -> dict[str, Any]:
        """The learner trains on every batch that is ready; {"finished", "skipped", and the counters}."""

    def evaluate(self, number: int) -> bool:
        """One evaluation of the current weights; False if it was broken off."""

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
    while not finished:
        try:
            roles.act()
            status = roles.learn()
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
    scores = conductor.world.config.evaluation
    if scores.at_end:
        conductor.say(f"training is done; playing {scores.episodes} episodes with the final weights")
        finished = roles.evaluate(conductor.evaluations + 1_000_000)
    roles.pump()
    return finished

"""The local engine: processes on one machine, shared memory, nothing listens.

Free-running by default: every role at its own pace, the supervisor decides on saves and evaluations. In the
lock-step mode (``deterministic``) the roles advance by the rounds of the inline engine and give the same weights bit
for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines.rounds import run_rounds
from offbeat.runtime.supervisor import RoleFailed, Supervisor
from offbeat.runtime.world import World


def run(world: World, conductor: Conductor, checkpoint: Path | None) -> bool:
    """Run to the end or to a stop; True if all frames were trained on.

    When a role fails the run is saved if the learner still can, and ``RoleFailed`` is raised.
    """
    lockstep = world.config.deterministic
    supervisor = Supervisor(world, conductor, lockstep=lockstep, checkpoint=checkpoint)
    try:
        supervisor.start()
        if lockstep:
            return run_rounds(LockstepRoles(supervisor), conductor)
        return run_free(supervisor, conductor)
    except RoleFailed:
        _save_after_failure(supervisor, conductor)
        raise
    finally:
        supervisor.end()


def run_free(supervisor: Supervisor, conductor: Conductor) -> bool:
    """Let the roles run; save and evaluate on schedule; at the end save, then score the final weights."""
    world, learner, evaluator = supervisor.world, supervisor.roles["learner"], supervisor.roles["evaluator"]
    board = world.board
    while not learner.finished and conductor.stop_reason is None:
        supervisor.pump()
        conductor.progress(int(board["updates"][0]), int(board["agent_steps"][0]))
        conductor.logger.tick()
        if not evaluator.busy and conductor.evaluation_due() and not learner.finished:
            evaluator.command("evaluate", number=conductor.evaluations, point=conductor.point())
        if conductor.checkpoint_due():
            conductor.save(lambda folder: supervisor.ask(learner, "save", folder=str(folder)))
    conductor.progress(int(board["updates"][0]), int(board["agent_steps"][0]))
    conductor.save(lambda folder: supervisor.ask(learner, "save", folder=str(folder)))
    if conductor.stop_reason is not None:
        return False
    if world.config.evaluation.at_end:
        _score_final_weights(supervisor, conductor)
    return conductor.stop_reason is None


def _score_final_weights(supervisor: Supervisor, conductor: Conductor) -> None:
    """The last evaluation, after everybody else has stopped working."""
    world, evaluator = supervisor.world, supervisor.roles["evaluator"]
    world.board["pause"][0] = 1  # actors have nothing left to do and would only take its cores
    conductor.say(f"training is done; playing {world.config.evaluation.episodes} episodes with the final weights")
    if evaluator.busy:
        supervisor.answers([evaluator], conductor.logger.tick)
    evaluator.command("evaluate", number=conductor.evaluations + 1_000_000, point=conductor.point())
    while evaluator.result is None and conductor.stop_reason is None:
        supervisor.pump()
        conductor.logger.tick()


def _save_after_failure(supervisor: Supervisor, conductor: Conductor) -> None:
    """One last checkpoint although a role has failed, if the learner can still be asked."""
    learner, failed = supervisor.roles["learner"], supervisor.failed or ""
    if not learner.alive():
        conductor.say(f"{failed} failed; the newest checkpoint is the last one")
        return
    exact = "; a run resumed from it will not be bit-identical" if supervisor.world.config.deterministic else ""
    conductor.say(f"{failed} failed; saving before the run ends{exact}")
    if failed != "learner":
        supervisor.set_aside(failed)
    try:
        supervisor.answers([actor for actor in supervisor.actors if actor.busy])  # in the middle of a round
        conductor.save(lambda folder: supervisor.ask(learner, "save", folder=str(folder)))
    except RoleFailed as error:
        conductor.say(f"saving failed too: {error}")


class LockstepRoles:
    """The roles as processes that advance only when told to."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._learner, self._evaluator = supervisor.roles["learner"], supervisor.roles["evaluator"]
        supervisor.ask(self._learner, "hello")  # the first weights are published before anybody acts

    def act(self) -> None:
        """One block of every stream; the actors work at the same time."""
        for actor in self._supervisor.actors:
            actor.command("advance")
        self._supervisor.answers(self._supervisor.actors)

    def learn(self) -> dict[str, Any]:
        """Every batch that is ready."""
        return self._supervisor.ask(self._learner, "advance")

    def evaluate(self, number: int, point: dict[str, float]) -> None:
        """One evaluation."""
        self._supervisor.ask(self._evaluator, "evaluate", number=number, point=point)

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role's part of a checkpoint."""
        answer = self._supervisor.ask(self._learner, "save", folder=str(folder))
        for actor in self._supervisor.actors:
            actor.command("save", folder=str(folder))
        self._supervisor.answers(self._supervisor.actors)
        return answer | {"parts": [*answer["parts"], *(actor.role for actor in self._supervisor.actors)]}

    def pump(self) -> None:
        """Take in what roles have reported."""
        self._supervisor.pump(0.0)

"""The local engine: processes on one machine, shared memory, nothing listens.

Free-running by default: every role at its own pace, the supervisor decides on saves and evaluations. In the
lock-step mode (``deterministic``) the roles advance by the rounds of the inline engine and give the same weights bit
for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines.rounds import RoundCut, run_rounds
from offbeat.runtime.local_services import offer
from offbeat.runtime.process import MakeOffer, RoleProcess
from offbeat.runtime.stuck import NoProgress, ProgressWatch
from offbeat.runtime.supervisor import RoleFailed, Supervisor, Unanswered
from offbeat.runtime.world import World

ROUND_S = 5.0
"""A round that was under way when the run was asked to stop is waited for so long. Unit: seconds."""
SCORE_S = 1.0
"""The same for an evaluation, which looks for a stop at each step. Unit: seconds."""


def run(world: World, conductor: Conductor, checkpoint: Path | None, offer: MakeOffer = offer) -> bool:
    """Run to the end or to a stop; True if all frames were trained on. ``offer``: what each role's process is sent.

    When a role fails the run is saved if the learner still can, and ``RoleFailed`` is raised.
    """
    lockstep = world.config.deterministic
    supervisor = Supervisor(world, conductor, lockstep=lockstep, checkpoint=checkpoint, offer=offer)
    try:
        supervisor.start()
        if lockstep:
            return run_rounds(LockstepRoles(supervisor), conductor)
        return run_free(supervisor, conductor)
    except NoProgress:  # saved already
        raise
    except Unanswered as error:  # by a role that was still starting when the run was asked to stop
        conductor.unsaved = str(error)
        return False
    except Exception as error:
        _save_after_failure(supervisor, conductor, supervisor.failed or f"the main process ({error})")
        raise
    finally:
        supervisor.end()


def run_free(supervisor: Supervisor, conductor: Conductor) -> bool:
    """Let the roles run; save and evaluate on schedule; at the end save, then score the final weights."""
    world, learner, evaluator = supervisor.world, supervisor.roles["learner"], supervisor.roles["evaluator"]
    watch = ProgressWatch(world)
    while not learner.finished and conductor.stop_reason is None:
        supervisor.pump()
        _note_progress(conductor)
        conductor.tick()
        if not evaluator.busy and conductor.evaluation_due() and not learner.finished:
            evaluator.command("evaluate", number=conductor.evaluations)
        if conductor.checkpoint_due():
            conductor.save(lambda folder: supervisor.save_part(learner, folder))
        tries = int(world.board["updates"][0]) + int(world.board["skipped"][0])  # now: a hook may have taken long
        if watch.stuck_freely(tries, supervisor.shows_life("owns_streams")):
            missing = watch.fruitless or supervisor.ask(learner, "missing")["text"]
            conductor.save(lambda folder: supervisor.save_part(learner, folder))
            raise NoProgress(missing)
    _note_progress(conductor)
    conductor.save(lambda folder: supervisor.save_part(learner, folder))
    if conductor.stop_reason is not None:
        return False
    conductor.tick()
    if world.config.evaluation.at_end:
        return _score_final_weights(supervisor, conductor)
    return True


def _note_progress(conductor: Conductor) -> None:
    """Where the learner is, by the notice board."""
    board = conductor.world.board
    conductor.progress(*(int(board[name][0]) for name in ("updates", "agent_steps", "frames")))


def _score_final_weights(supervisor: Supervisor, conductor: Conductor) -> bool:
    """The last evaluation, after everybody else has stopped working; False if it was broken off."""
    world, evaluator = supervisor.world, supervisor.roles["evaluator"]
    world.board["pause"][0] = 1  # actors have nothing left to do and would only take its cores
    conductor.say(f"training is done; playing {world.config.evaluation.episodes} episodes with the final weights")
    try:
        if evaluator.busy:
            supervisor.answers([evaluator], conductor.tick, supervisor.late(SCORE_S))
        evaluator.command("evaluate", number=conductor.evaluations + 1_000_000)
        return bool(supervisor.answers([evaluator], conductor.tick, supervisor.late(SCORE_S))[0]["complete"])
    except Unanswered:
        conductor.say("the last evaluation was broken off")
        return False


def _save_after_failure(supervisor: Supervisor, conductor: Conductor, failed: str) -> None:
    """One last checkpoint although a role has failed, if the learner can still be asked."""
    learner = supervisor.roles.get("learner")
    if learner is None or not learner.alive():
        conductor.say(f"{failed} failed; the newest checkpoint is the last one")
        return
    exact = "; a run resumed from it will not be bit-identical" if supervisor.world.config.deterministic else ""
    conductor.say(f"{failed} failed; saving before the run ends{exact}")
    supervisor.failed = failed
    if failed != "learner" and failed in supervisor.roles:
        supervisor.set_aside(failed)
    conductor.ask_to_stop(f"{failed} failed")
    try:
        _end_round(supervisor)
        conductor.save(lambda folder: supervisor.save_part(learner, folder))
    except RoleFailed as error:
        conductor.say(f"saving failed too: {error}")


def _end_round(supervisor: Supervisor) -> list[str]:
    """Wait for actors in the middle of a round, but not for long; the names of those that were given up and ended."""
    busy = [role for role in supervisor.roles.values() if role.row.turn in ("act", "after") and role.busy]
    late: list[RoleProcess] = []
    try:
        supervisor.answers(busy, give_up=supervisor.late(ROUND_S))
    except Unanswered as error:
        late = error.roles
    for actor in late:  # also those that would answer later: they must not append while the streams are saved
        if not actor.aside:
            supervisor.set_aside(actor.role)
    return [actor.role for actor in late]


class LockstepRoles:
    """The roles as processes that advance only when told to."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._learner, self._evaluator = supervisor.roles["learner"], supervisor.roles["evaluator"]
        self._watch = ProgressWatch(supervisor.world)
        supervisor.ask(self._learner, "hello")  # the first weights are published before anybody acts

    def act(self) -> None:
        """One block of every stream; the actors work at the same time."""
        actors = self._supervisor.that("turn", "act")
        for actor in actors:
            actor.command("advance")
        self._wait_for(actors, ROUND_S)

    def learn(self) -> dict[str, Any]:
        """Every batch that is ready."""
        self._learner.command("advance")
        self._wait_for([self._learner])
        learnt = self._learner.result or {}
        after = self._supervisor.that("turn", "after")
        for role in after:
            role.command("advance")
        self._wait_for(after, ROUND_S)
        return learnt

    def _wait_for(self, roles: list[RoleProcess], seconds: float | None = None) -> None:
        """Until all have answered; ``RoundCut`` once a stop was asked and some do not, ``seconds`` after it."""
        give_up = None if seconds is None else self._supervisor.late(seconds)
        try:
            self._supervisor.answers(roles, give_up=give_up)
        except Unanswered as error:
            raise RoundCut(f"{error} in the round that was under way") from error

    def evaluate(self, number: int) -> bool:
        """One evaluation; broken off by a stop."""
        self._evaluator.command("evaluate", number=number)
        try:
            answers = self._supervisor.answers([self._evaluator], give_up=self._supervisor.late(SCORE_S))
            return bool(answers[0]["complete"])
        except Unanswered:
            self._supervisor.conductor.say("the evaluation was broken off")
            return False

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role's part of a checkpoint. Actors that do not answer although the run is to end are left out."""
        supervisor = self._supervisor
        missing = _end_round(supervisor)
        answer = supervisor.save_part(self._learner, folder)
        for role in self._others():
            role.command("save", folder=str(folder))
        while waiting := [role for role in self._others() if role.result is None]:
            try:
                supervisor.answers(waiting)
            except Unanswered as error:
                for actor in error.roles:
                    missing.append(actor.role)
                    if not actor.aside:
                        supervisor.set_aside(actor.role)
        self._leave_out(missing, folder)
        return answer | {"parts": [*answer["parts"], *(role.role for role in self._others())]}

    def _others(self) -> list[RoleProcess]:
        """The roles that save a part of their own beside the learner's."""
        return [role for role in self._supervisor.that("saved") if not role.row.keeper]

    def _leave_out(self, missing: list[str], folder: Path) -> None:
        if not missing:
            return
        for role in missing:
            for path in folder.glob(f"{role}.*"):  # what it had written before it fell silent
                path.unlink()
        self._supervisor.conductor.say(
            f"the checkpoint has no part of {', '.join(missing)}, which did not answer: a run resumed from it starts "
            "new episodes there and will not be bit-identical"
        )

    def missing(self) -> str:
        """What the learner waits for."""
        text: str = self._watch.fruitless or self._supervisor.ask(self._learner, "missing")["text"]
        return text

    def stuck(self, tries: int) -> bool:
        """Whether rounds lead nowhere."""
        return self._watch.stuck_in_rounds(tries)

    def pump(self) -> None:
        """Take in what roles have reported."""
        self._supervisor.pump(0.0)

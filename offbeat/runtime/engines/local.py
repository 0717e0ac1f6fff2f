"""The local engine: processes on one machine, shared memory, nothing listens.

Free-running by default: every role at its own pace, the supervisor decides on saves and evaluations. In the
lock-step mode (``deterministic``) the roles advance by the rounds of the inline engine and give the same weights bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.runtime.conductor import Conductor, EndNow
from offbeat.runtime.engines.endings import score_final_weights
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
    at_once = False
    try:
        supervisor.start()
        if lockstep:
            return run_rounds(LockstepRoles(supervisor), conductor)
        return run_free(supervisor, conductor)
    except NoProgress:  # saved already
        raise
    except EndNow:
        at_once = True
        raise
    except Unanswered as error:  # by a role that was still starting when the run was asked to stop
        conductor.unsaved = str(error)
        return False
    except Exception as error:
        _save_after_failure(supervisor, conductor, supervisor.failed or f"the main process ({error})")
        raise
    finally:
        supervisor.end(at_once)


def run_free(supervisor: Supervisor, conductor: Conductor) -> bool:
    """Let the roles run; save, evaluate and validate on schedule; at the end save, then score the final weights."""
    while True:
        _train_freely(supervisor, conductor)
        _note_progress(conductor)
        learner = supervisor.roles["learner"]
        if learner.finished:
            _end_validation(supervisor, conductor)
        conductor.save(partial(_save, supervisor))
        if conductor.stop_reason is not None:
            return False
        if supervisor.roles.get("learner") is learner:
            break  # else it died while it saved, and another one has to do that
    supervisor.learnt = True
    conductor.tick()
    supervisor.world.board["pause"][0] = 1  # actors have nothing left to do and would only take the evaluator's cores
    return score_final_weights(partial(_play, supervisor, "evaluator", tick=conductor.tick), conductor)


def _train_freely(supervisor: Supervisor, conductor: Conductor) -> None:
    """Until the learner has finished, or the run is to stop."""
    world, evaluator, watch = supervisor.world, supervisor.roles["evaluator"], ProgressWatch(supervisor.world)
    while not supervisor.roles["learner"].finished and conductor.stop_reason is None:
        supervisor.pump()
        _note_progress(conductor)
        conductor.tick()
        if not evaluator.busy and conductor.evaluation_due() and not supervisor.roles["learner"].finished:
            evaluator.command("evaluate", number=conductor.evaluations)
        _validate(supervisor, conductor)
        if conductor.checkpoint_due():
            conductor.save(partial(_save, supervisor))
        tries = int(world.board["updates"][0]) + int(world.board["skipped"][0])  # now: a hook may have taken long
        if watch.stuck_freely(tries, supervisor.shows_life("owns_streams")):
            missing = watch.fruitless or supervisor.ask(supervisor.roles["learner"], "missing")["text"]
            conductor.save(partial(_save, supervisor))
            raise NoProgress(missing)


def _save(supervisor: Supervisor, folder: Path) -> dict[str, Any]:
    """The learner's part of a checkpoint, of whichever process it is now."""
    return supervisor.save_part(supervisor.roles["learner"], folder)


def _validate(supervisor: Supervisor, conductor: Conductor) -> None:
    """Take in the validation that has ended, and start the next if it is due."""
    validator = supervisor.roles.get("validator")
    if validator is None or validator.busy:
        return
    if conductor.validations.playing:
        _take_in(validator, supervisor, conductor)
    if conductor.validation_due():
        validator.command("evaluate", number=0)


def _take_in(validator: RoleProcess, supervisor: Supervisor, conductor: Conductor) -> None:
    """What a validation that has ended has found."""
    answer = validator.result or {}
    conductor.validated(answer, lambda folder: supervisor.save_part(validator, folder))


def _end_validation(supervisor: Supervisor, conductor: Conductor) -> None:
    """Play the last validation that was due to its end, so that the run's end knows of it."""
    _validate(supervisor, conductor)
    validator = supervisor.roles.get("validator")
    if validator is None or not conductor.validations.playing:
        return
    try:
        supervisor.answers([validator], conductor.tick, supervisor.late(SCORE_S))
    except Unanswered:
        conductor.say("the last validation was broken off")
        return
    _take_in(validator, supervisor, conductor)


def _note_progress(conductor: Conductor) -> None:
    """Where the learner is, by the notice board."""
    board = conductor.world.board
    conductor.progress(*(int(board[name][0]) for name in ("updates", "agent_steps", "frames")))


def _play(
    supervisor: Supervisor, role: str, number: int, part: int = 0, tick: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Have a role play one of its exams, after what it is still at; its answer, {} if it was broken off."""
    process, late = supervisor.roles[role], supervisor.late(SCORE_S)
    try:
        if process.busy:
            supervisor.answers([process], tick, late)
        process.command("evaluate", number=number, part=part)
        return supervisor.answers([process], tick, late)[0]
    except Unanswered:
        supervisor.conductor.say(f"what the {role} played was broken off")
        return {}


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
        self._learner = supervisor.roles["learner"]
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

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """One evaluation; broken off by a stop."""
        return _play(self._supervisor, "evaluator", number, part)

    def validate(self) -> dict[str, Any]:
        """One validation; broken off by a stop."""
        return _play(self._supervisor, "validator", 0)

    def save_validated(self, folder: Path) -> dict[str, Any]:
        """The weights that were validated."""
        return self._supervisor.save_part(self._supervisor.roles["validator"], folder)

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

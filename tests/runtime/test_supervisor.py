"""The supervisor among processes that die, hang, fail and answer when a test says so."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.runtime import supervisor as module
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.conductor import Conductor
from offbeat.runtime.local_services import offer
from offbeat.runtime.process import MakeOffer, RoleProcess
from offbeat.runtime.rebuilding import Rebuilding
from offbeat.runtime.supervisor import INCARNATIONS, PAUSED_S, SILENT_S, START_S, RoleFailed, Supervisor
from offbeat.runtime.topology import topology
from offbeat.storage.checkpoint import CheckpointError
from offbeat.types import UNROLL
from tests.conformance.runs import counting_config
from tests.runtime.parts import same_face


class FakeProcess:
    """Stands where a ``RoleProcess`` would."""

    def __init__(
        self,
        world: Any,
        role: str,
        *,
        lockstep: bool,
        incarnation: int = 0,
        checkpoint: Path | None = None,
        offer: MakeOffer,
    ) -> None:
        self.role, self.incarnation, self.checkpoint = role, incarnation, checkpoint
        self.row = world.topology.row(role)
        self.clock = world.clock
        self.pipe, self.other = multiprocessing.Pipe()
        self.process = SimpleNamespace(sentinel=self.other)
        self.heart = SimpleNamespace(last=lambda: self.beat)
        self.beat, self.silent = 1.0, 0.0
        self.living, self.ends = True, True
        self.busy = self.finished = False
        self.error: str | None = None
        self.result: dict[str, Any] | None = None
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.commands: list[str] = []
        self.complaints: list[str] = []
        self.killed = self.excused = self.freed = 0
        self.longest_silence_s = 0.0
        self.lost_at: float | None = None
        self.stopped = self.aside = False
        self.signalled = True

    def was_killed(self) -> bool:
        return self.signalled

    def started(self) -> bool:
        return self.beat > 0

    def is_stopped(self) -> bool:
        return self.stopped

    def note_silence(self) -> None:
        """Not measured here."""

    def free(self) -> None:
        self.freed += 1

    def alive(self) -> bool:
        return self.living

    def death(self) -> str:
        return "was killed by SIGKILL"

    def silent_s(self) -> float:
        return self.silent

    def stack(self, wait_s: float = 1.0) -> str:
        return "File environment.py, line 7, in step"

    def excuse(self) -> None:
        self.excused += 1

    def kill(self) -> None:
        self.living = False
        self.killed += 1

    def command(self, name: str, **arguments: Any) -> None:
        self.commands.append(name)
        self.result = None
        if name == "stop" and self.ends:
            self.living = False

    def join(self, timeout_s: float) -> bool:
        if self.living:
            self.clock.sleep(timeout_s)
        return not self.living

    def read(self) -> Any:
        while self.records:
            yield self.records.pop(0)


class Notes:
    """A conductor that writes everything down."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.records: list[tuple[str, str, dict[str, Any]]] = []
        self.resumes = 2
        self.stop_reason: str | None = None
        self.stopping = 0.0
        self.logger = SimpleNamespace(record=lambda role, kind, values: self.records.append((role, kind, values)))

    def say(self, text: str) -> None:
        self.said.append(text)

    def stopping_s(self) -> float:
        return self.stopping


def make(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lockstep: bool = False,
    learner: dict[str, Any] | None = None,
    **actor: Any,
) -> Any:
    """A started supervisor of two actors, and its notes."""
    monkeypatch.setattr(module, "RoleProcess", FakeProcess)
    config = counting_config(tmp_path)
    config = replace(config, actor=replace(config.actor, **actor), learner=replace(config.learner, **(learner or {})))
    graph = topology(config, UNROLL)
    world = SimpleNamespace(config=config, topology=graph, stop=lambda: None, ring=lambda: None, clock=VirtualClock())
    notes = Notes()
    supervisor = Supervisor(world, notes, lockstep=lockstep, checkpoint=tmp_path, offer=offer)  # type: ignore[arg-type]
    supervisor.start()
    return supervisor, notes


def test_the_stand_ins_have_the_faces_of_what_they_stand_for() -> None:
    own = "clock other beat silent living ends records commands killed excused freed stopped checkpoint signalled"
    same_face(FakeProcess, RoleProcess, besides=set(own.split()))
    same_face(Notes, Conductor, besides={"said", "records", "stopping"})


def test_every_role_is_started_with_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for lockstep in (False, True):
        supervisor, _ = make(monkeypatch, tmp_path, lockstep)
        assert list(supervisor.roles) == ["learner", "evaluator", "actor-0", "actor-1"]
        assert {process.incarnation for process in supervisor.roles.values()} == {2 * INCARNATIONS}
        loads = {role for role, process in supervisor.roles.items() if process.checkpoint}
        assert loads == ({"learner", "actor-0", "actor-1"} if lockstep else {"learner"})


def test_records_are_passed_on_also_those_of_the_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path)
    for role in ("learner", "actor-1"):
        supervisor.roles[role].records.append(("episode", {"return": 1.0}))
    supervisor.roles["actor-1"].living = False
    supervisor.pump(0)
    assert notes.records[:2] == [(role, "episode", {"return": 1.0}) for role in ("learner", "actor-1")]


def test_a_dead_actor_is_replaced_until_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, max_restarts=2)
    for number in (1, 2):
        dead = supervisor.roles["actor-1"]
        dead.living = False
        supervisor.pump(0)
        assert supervisor.roles["actor-1"] is not dead
        assert supervisor.roles["actor-1"].incarnation == 2 * INCARNATIONS + number
        assert notes.said[-1] == f"actor-1 was killed by SIGKILL; replaced ({number} of at most 2 times)"
        assert notes.records[-1] == ("supervisor", "restart", {"actor": 1, "restarts": number})
    supervisor.roles["actor-0"].living = False
    with pytest.raises(RoleFailed, match=r"actor-0 .* not replaced again because actor.max_restarts=2 is used up"):
        supervisor.pump(0)
    assert supervisor.failed == "actor-0"


def test_learners_beside_the_first_are_replaced_until_their_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    learner = {"mode": "async", "count": 3, "max_restarts": 1}
    supervisor, notes = make(monkeypatch, tmp_path, learner=learner)
    dead = supervisor.roles["learner-2"]
    dead.living = False
    supervisor.pump(0)
    assert supervisor.roles["learner-2"] is not dead and supervisor.roles["learner-2"].checkpoint is None
    assert notes.records[-1] == ("supervisor", "restart", {"learner": 2, "restarts": 1})
    assert notes.said[-1] == "learner-2 was killed by SIGKILL; replaced (1 of at most 1 times)"
    supervisor.roles["learner-1"].living = False
    with pytest.raises(RoleFailed, match=r"learner-1 .* not replaced again because learner.max_restarts=1 is used up"):
        supervisor.pump(0)


def test_a_learner_that_nothing_is_kept_of_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path, learner={"mode": "async", "count": 2, "mirror_every": 0})
    supervisor.roles["learner"].living = False
    with pytest.raises(RoleFailed, match="learner was killed by SIGKILL"):
        supervisor.pump(0)


class FakeRebuilding:
    """Says no when a test wants it to, and how much is lost."""

    def __init__(self, world: Any) -> None:
        self.reason, self.begun = "", 0

    def refused(self) -> str:
        return self.reason

    def begin(self) -> int:
        self.begun += 1
        return 30 + self.begun


@pytest.fixture
def rebuilding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in shared memory is no business of these tests."""
    same_face(FakeRebuilding, Rebuilding, besides={"reason", "begun"})
    monkeypatch.setattr(module, "Rebuilding", FakeRebuilding)


@pytest.mark.usefixtures("rebuilding")
def test_the_learner_is_rebuilt_until_the_limit_and_loads_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, learner={"max_restarts": 2})
    for number in (1, 2):
        dead = supervisor.roles["learner"]
        dead.living = False
        supervisor.pump(0)
        new = supervisor.roles["learner"]
        assert new is not dead and dead.aside and dead.freed and new.checkpoint is None
        assert new.incarnation == 2 * INCARNATIONS + number
        said = f"learner was killed by SIGKILL; rebuilt, 3{number} updates are lost ({number} of at most 2 times)"
        assert notes.said[-1] == said
        lost = {"learner": 0, "lost_updates": 30 + number, "restarts": number}
        assert notes.records[-1] == ("supervisor", "restart", lost)
    supervisor.roles["learner"].living = False
    with pytest.raises(RoleFailed, match=r"learner was .*not replaced again because learner.max_restarts=2 is used up"):
        supervisor.pump(0)


@pytest.mark.usefixtures("rebuilding")
@pytest.mark.parametrize("why", ["exit code", "hangs", "refused", "stops", "lock-step"])
def test_a_learner_is_not_rebuilt_for_other_reasons(why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, lockstep=why == "lock-step")
    learner, says = supervisor.roles["learner"], "learner was killed by SIGKILL"
    match why:
        case "exit code":
            learner.signalled = False
        case "refused":
            supervisor._rebuilding.reason, says = "it had no luck", "learner was killed by SIGKILL; it had no luck"
        case "stops":
            notes.stop_reason = "SIGINT"
    if why == "hangs":
        learner.silent, says = 1e6, "learner showed no life for"
    else:
        learner.living = False
    with pytest.raises(RoleFailed, match=says):
        supervisor.pump(0)
    assert supervisor.roles["learner"] is learner and not supervisor._rebuilding.begun


@pytest.mark.usefixtures("rebuilding")
@pytest.mark.parametrize("dies", ["learner", "learner-1"])
def test_learners_that_step_together_are_all_rebuilt(
    dies: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, learner={"count": 2})
    before = dict(supervisor.roles)
    supervisor.roles[dies].living = False
    supervisor.pump(0)
    changed = {role for role, process in supervisor.roles.items() if process is not before[role]}
    assert changed == {"learner", "learner-1"} and supervisor._rebuilding.begun == 1
    assert all(before[role].killed and before[role].freed for role in changed)
    how = f"{dies} was killed by SIGKILL; rebuilt with those that step with it"
    assert notes.said == [f"{how}, 31 updates are lost (1 of at most 5 times)"]
    supervisor.pump(0)


@pytest.mark.usefixtures("rebuilding")
def test_who_waits_for_the_answer_of_one_that_was_rebuilt_hears_that_it_died(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor, _ = make(monkeypatch, tmp_path)
    learner = supervisor.roles["learner"]
    learner.living = False
    with pytest.raises(CheckpointError, match="the part of learner is missing: it died"):
        supervisor.save_part(learner, tmp_path)
    assert supervisor.roles["learner"] is not learner


@pytest.mark.usefixtures("rebuilding")
def test_a_learner_that_dies_when_all_is_saved_is_missed_by_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor, notes = make(monkeypatch, tmp_path)
    supervisor.learnt = True
    supervisor.roles["learner"].living = False
    supervisor.pump(0)
    assert "learner" not in supervisor.roles and "not replaced, since all is learnt and saved" in notes.said[-1]


@pytest.mark.parametrize("role", ["evaluator", "actor-0"])
def test_nobody_else_is_replaced(role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path, lockstep=role == "actor-0")
    supervisor.roles[role].living = False
    with pytest.raises(RoleFailed, match=f"{role} was killed by SIGKILL"):
        supervisor.pump(0)


@pytest.mark.parametrize("living", [True, False])
def test_an_error_ends_the_run_once(living: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path)
    supervisor.roles["learner"].error, supervisor.roles["learner"].living = "Traceback: no luck", living
    with pytest.raises(RoleFailed, match="learner failed:\nTraceback: no luck"):
        supervisor.pump(0)
    if living:
        supervisor.pump(0)  # it may still be asked to save


def test_further_failures_while_a_run_is_saved_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two environments that break at the same step, for instance."""
    for lockstep in (False, True):
        supervisor, notes = make(monkeypatch, tmp_path, lockstep)
        first, second = supervisor.that("owns_streams")
        first.error = second.error = "Traceback: no luck"
        with pytest.raises(RoleFailed, match="actor-0 failed:\nTraceback: no luck"):
            supervisor.pump(0)
        supervisor.set_aside("actor-0")
        supervisor.roles["evaluator"].living = False
        learner = supervisor.roles["learner"]
        learner.command("save")
        with pytest.raises(module.Unanswered, match="no answer from actor-1"):
            supervisor.answers([learner, second])
        assert list(supervisor.roles) == ["learner"]
        assert notes.said == ["evaluator was killed by SIGKILL", "actor-1 failed:\nTraceback: no luck"]
        learner.error = "Traceback: neither"
        with pytest.raises(RoleFailed, match="learner failed"):
            supervisor.pump(0)


def test_an_actor_that_hangs_is_killed_with_its_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, hang_timeout_s=3.0)
    hung = supervisor.roles["actor-0"]
    hung.silent = 2.9
    supervisor.pump(0)
    assert not hung.killed
    hung.silent = 3.1
    supervisor.pump(0)
    assert hung.killed
    assert "showed no life for 3 s" in notes.said[-1]
    assert "environment.py, line 7" in notes.said[-1]
    assert supervisor.roles["actor-0"].alive()


@pytest.mark.parametrize("role", ["learner", "inference", "evaluator"])
def test_others_that_hang_end_the_run_with_their_stack(
    role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    supervisor, _ = make(monkeypatch, tmp_path, inference="server")
    hung = supervisor.roles[role]
    hung.silent = 1000.0
    if role == "evaluator":
        supervisor.pump(0)  # it waits for an order
        hung.busy = True
    with pytest.raises(RoleFailed, match=f"(?s){role} showed no life for 1000 s and was killed.*line 7"):
        supervisor.pump(0)
    assert hung.killed


def test_a_learner_that_has_finished_may_be_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path)
    learner = supervisor.roles["learner"]
    learner.silent, learner.finished = 1000.0, True
    supervisor.pump(0)
    learner.busy = True
    with pytest.raises(RoleFailed, match="learner showed no life"):
        supervisor.pump(0)


def test_nobody_is_seen_alive_by_an_excuse_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a slow hook it takes a while until silence means something again."""
    supervisor, _ = make(monkeypatch, tmp_path)
    supervisor.pump(0)
    assert supervisor.shows_life("owns_streams")
    supervisor.roles["actor-1"].silent = 1000.0
    assert not supervisor.shows_life("owns_streams")
    supervisor.roles["actor-1"].silent = 0.0
    supervisor.world.clock.sleep(PAUSED_S + 1)
    supervisor.pump(0)
    assert supervisor.roles["actor-1"].excused == 1
    assert not supervisor.shows_life("owns_streams")
    supervisor.world.clock.sleep(SILENT_S)
    assert supervisor.shows_life("owns_streams")


def test_complaints_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path)
    supervisor.roles["actor-1"].complaints.append("closing it failed: no luck")
    supervisor.pump(0)
    assert notes.said == ["actor-1: closing it failed: no luck"]


def test_once_a_stop_is_asked_the_silent_are_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path)
    learner = supervisor.roles["learner"]
    learner.silent = module.SILENT_S + 1
    assert not supervisor.given_up(learner), "the run goes on"
    notes.stop_reason = "SIGINT"
    assert supervisor.given_up(learner)
    learner.longest_silence_s = module.SILENT_S
    assert not supervisor.given_up(learner), "it was silent for so long before"
    learner.beat = 0.0
    assert not supervisor.given_up(learner), "it is still starting"
    learner.stopped = True
    assert supervisor.given_up(learner)
    with pytest.raises(CheckpointError, match="the part of learner is missing"):
        supervisor.save_part(learner, tmp_path)
    learner.stopped, learner.silent = False, 0.0
    assert supervisor.given_up(learner), "no sign of life since"
    learner.beat = 2.0
    assert not supervisor.given_up(learner)


def test_late_answers_are_not_waited_for_after_a_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path, lockstep=True)
    notes.stop_reason, notes.stopping = "SIGINT", 3.0
    supervisor.that("owns_streams")[0].result = {}
    with pytest.raises(module.Unanswered, match="no answer from actor-1"):
        supervisor.answers(supervisor.that("owns_streams"), give_up=supervisor.late(2.0))
    supervisor.that("owns_streams")[1].beat = 2.0  # it lives
    ticks = []

    def answer() -> None:
        ticks.append(True)
        supervisor.that("owns_streams")[1].result = {"n": 1}

    assert supervisor.answers(supervisor.that("owns_streams"), answer, supervisor.late(4.0)) == [{}, {"n": 1}]
    assert ticks == [True]


def test_an_actor_that_dies_while_the_run_ends_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, notes = make(monkeypatch, tmp_path)
    notes.stop_reason = "SIGINT"
    supervisor.roles["actor-1"].living = False
    supervisor.pump(0)
    assert "actor-1" not in supervisor.roles
    assert "not replaced, since the run ends" in notes.said[-1]


def test_an_actor_that_starts_has_more_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path, hang_timeout_s=1.0)
    new = supervisor.roles["actor-0"]
    new.beat, new.silent = 0.0, START_S - 1
    supervisor.pump(0)
    assert not new.killed
    new.silent = START_S + 1
    supervisor.pump(0)
    assert new.killed


def test_in_lockstep_only_actors_with_a_task_can_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path, lockstep=True, hang_timeout_s=3.0)
    hung = supervisor.roles["actor-0"]
    hung.silent = 100.0
    supervisor.pump(0)
    hung.busy = True
    with pytest.raises(RoleFailed, match="actor-0 showed no life"):
        supervisor.pump(0)


def test_after_a_pause_of_its_own_it_blames_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path)
    supervisor.pump(0)
    assert not any(process.excused for process in supervisor.roles.values())
    supervisor.world.clock.sleep(2 * module.PAUSED_S)
    supervisor.pump(0)
    assert all(process.excused == 1 for process in supervisor.roles.values())


def test_answers_are_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor, _ = make(monkeypatch, tmp_path)
    for process in supervisor.that("owns_streams"):
        process.command("advance")
    ticks = []

    def tick() -> None:
        supervisor.that("owns_streams")[len(ticks)].result = {"n": len(ticks)}
        ticks.append(True)

    assert supervisor.answers(supervisor.that("owns_streams"), tick) == [{"n": 0}, {"n": 1}]
    supervisor.that("owns_streams")[0].result = {"error": "the disk is full"}
    with pytest.raises(CheckpointError, match="the disk is full"):
        supervisor.answers(supervisor.that("owns_streams"))


@pytest.mark.parametrize(("at_once", "limit"), [(False, "END_S"), (True, "AT_ONCE_S")])
def test_the_end_waits_and_then_kills(
    at_once: bool, limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "END_S", 0.1)
    monkeypatch.setattr(module, "AT_ONCE_S", 0.1)
    monkeypatch.setattr(module, limit, 0.6)  # the other one is not waited for
    supervisor, notes = make(monkeypatch, tmp_path)
    stubborn, stopped = supervisor.roles["actor-1"], supervisor.roles["actor-0"]
    stubborn.ends = stopped.ends = False
    stopped.stopped = True
    supervisor.end(at_once)
    assert all(process.freed for process in supervisor.roles.values())
    assert all(process.commands[-1] == "stop" for process in supervisor.roles.values())
    assert notes.said == ["actor-0 is stopped and was killed", "actor-1 did not end within 1 s and was killed"]
    assert not any(process.alive() for process in supervisor.roles.values())

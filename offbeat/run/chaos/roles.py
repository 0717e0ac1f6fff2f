"""Roles that are killed or stopped, in runs that are at work."""

from __future__ import annotations

import os
import signal
import time

from offbeat.run.chaos.child import Child, descriptors
from offbeat.run.chaos.ground import (
    HANG_S,
    Fault,
    Ground,
    ended,
    goes_on,
    intact,
    last_records,
    ledger,
    role,
    saved,
    within,
)
from offbeat.run.chaos.verdicts import Unfit, expect

SOON_S = 10.0
"""A dead role is noticed at once, and Ctrl-C is answered within this although a role hangs. Unit: seconds."""


def kill(child: Child, name: str, told: str) -> str:
    """SIGKILL for a role; the seconds until the run has ``told`` of it."""
    os.kill(role(child, name), signal.SIGKILL)
    began = time.monotonic()
    child.until_said(told)
    return within(SOON_S, began, told)


def another(child: Child, name: str, before: int) -> None:
    """Wait until a role is another process than ``before``."""
    child.until(lambda: child.roles().get(name, before) != before, f"another process of {name}")


def actor_killed(ground: Ground) -> str:
    """SIGKILL for actor-0."""
    child = ground.live()
    before, began_as = descriptors(child.process.pid), role(child, "actor-0")
    took = kill(child, "actor-0", "actor-0 was killed by SIGKILL; replaced")
    another(child, "actor-0", began_as)
    goes_on(child, ground.run)
    after = descriptors(child.process.pid)
    expect(after <= before, f"{before} descriptors at most, as before", after)
    return f"noticed in {took}, replaced, trains on; {ledger(ground.stopped())}"


def actor_stopped(ground: Ground) -> str:
    """SIGSTOP for actor-0, which looks like one that hangs."""
    child = ground.live()
    process = role(child, "actor-0")
    os.kill(process, signal.SIGSTOP)
    began = time.monotonic()
    child.until_said("actor-0 showed no life for")
    took = within(HANG_S, began, "noticed")
    another(child, "actor-0", process)
    goes_on(child, ground.run)
    return f"noticed in {took} (actor.hang_timeout_s = {HANG_S:g}), replaced, trains on; {ledger(ground.stopped())}"


def killed_in_lockstep(ground: Ground) -> str:
    """SIGKILL for actor-0 of a deterministic run."""
    child = ground.train("lock-step", "--deterministic", "true", "--checkpoint.every-updates", "20")
    run = ground.folder / "lock-step" / "run"
    child.until(lambda: saved(run), "a checkpoint")
    child.note_shared()
    before = intact(run).name
    kill(child, "actor-0", "actor-0 was killed by SIGKILL")
    ended(child, run, 1, "actor-0 failed; saving before the run ends")
    expect(intact(run).name >= before, f"a checkpoint of {before} or later", intact(run).name)
    return f"saved at {int(intact(run).name):,} steps, exit code 1"


def _ends_the_run(ground: Ground, child: Child, name: str) -> str:
    """The shared run ends with exit code 1 as a role of it is killed."""
    took = kill(child, name, f"{name} was killed by SIGKILL")
    ended(child, ground.run, 1)
    goes_on(ground.live(), ground.run)
    return f"{name}: noticed in {took}, exit code 1, resumed"


def learner_killed(ground: Ground) -> str:
    """SIGKILL for the learner."""
    most = ground.config.learner.mirror_every
    if not most:
        raise Unfit("keeps nothing to rebuild a learner from (learner.mirror_every = 0)")
    child, evidence = ground.live(), ""
    for name in ("learner-1", "learner") if "learner-1" in child.roles() else ("learner",):
        before = role(child, name)
        took = kill(child, name, f"{name} was killed by SIGKILL; re")
        another(child, name, before)
        goes_on(child, ground.run)
        evidence = f"noticed in {took}, rebuilt, trains on"
    lost = [one["lost_updates"] for one in last_records(ground.run) if one.get("lost_updates") is not None]
    expect(lost, "a record that counts lost updates", "none")
    expect(lost[-1] <= most, f"{most} lost updates at most", lost[-1])
    run = ground.stopped()
    return f"{evidence}, {lost[-1]:.0f} updates lost; {ledger(run)}"


def learner_keeps_dying(ground: Ground) -> str:
    """SIGKILL for the learner, and for the one that takes its place."""
    child = ground.train("learner-dies", "--learner.max-restarts", "1", "--learner.mirror-every", "100")
    run = ground.folder / "learner-dies" / "run"
    child.until(lambda: saved(run), "a checkpoint")
    before = role(child, "learner")
    kill(child, "learner", "learner was killed by SIGKILL; rebuilt")
    another(child, "learner", before)
    goes_on(child, run)
    kill(child, "learner", "learner.max_restarts=1 is used up")
    ended(child, run, 1)
    return f"rebuilt once, exit code 1 the second time; {int(intact(run).name):,} steps are saved"


def learner_killed_for_good(ground: Ground) -> str:
    """SIGKILL for the learner of a run that keeps nothing to rebuild it from."""
    child = ground.train("no-mirror", "--learner.mirror-every", "0")
    run = ground.folder / "no-mirror" / "run"
    child.until(lambda: len(saved(run)) > 1, "two checkpoints")
    before = saved(run)[-1]
    took = kill(child, "learner", "learner was killed by SIGKILL")
    ended(child, run, 1)
    expect(before in saved(run), f"the checkpoint {before}", ", ".join(saved(run)))
    again = ground.resume(run)
    goes_on(again, run)
    again.process.terminate()
    ended(again, run, 0, "stopped (SIGTERM) and saved")
    return f"noticed in {took}, exit code 1, resumed from the last checkpoint"


def evaluator_killed(ground: Ground) -> str:
    """SIGKILL for the evaluator."""
    return _ends_the_run(ground, ground.live(), "evaluator") + " from what it saved"


def server_killed(ground: Ground) -> str:
    """SIGKILL for the inference server of a run that has one."""
    child = ground.train("server", "--actor.inference", "server")
    run = ground.folder / "server" / "run"
    goes_on(child, run)
    (name, *_) = [name for name in child.roles() if name.startswith("inference")] or [""]
    took = kill(child, name, f"{name} was killed by SIGKILL")
    ended(child, run, 1)
    return f"noticed in {took}, saved at {int(intact(run).name):,} steps, exit code 1"


def learner_stopped(ground: Ground) -> str:
    """SIGSTOP for the learner."""
    child = ground.live()
    os.kill(role(child, "learner"), signal.SIGSTOP)
    began = time.monotonic()
    child.until_said("learner showed no life for")
    took = within(HANG_S, began, "noticed")
    ended(child, ground.run, 1)
    return f"noticed in {took} (learner.hang_timeout_s = {HANG_S:g}), killed, exit code 1"


def ctrl_c_while_stopped(ground: Ground) -> str:
    """Ctrl-C while the learner stands still."""
    child = ground.live()
    os.kill(role(child, "learner"), signal.SIGSTOP)
    began = time.monotonic()
    child.tell(signal.SIGINT)
    child.until_said("the part of learner is missing")
    took = within(SOON_S, began, "an answer")
    ended(child, ground.run, 2)
    goes_on(ground.live(), ground.run)
    return f"after {took} it is said whose part is missing; exit code 2, resumed from the checkpoint before"


def _several(ground: Ground, name: str, *options: str) -> Child:
    """A run of two learners at work; ``Unfit`` where this preset cannot have them."""
    child = ground.train(name, "--learner.count", "2", *options)
    while child.running() and "learner-1" not in child.roles():
        time.sleep(0.1)
    if child.process.poll() == 2:
        raise Unfit(f"cannot have two learners: {child.last_line.removeprefix('offbeat: error: ')}")
    goes_on(child, ground.folder / name / "run")
    return child


def one_of_several_killed(ground: Ground) -> str:
    """SIGKILL for the second of two learners that step together."""
    child = _several(ground, "two-learners", "--learner.mode", "sync")
    run = ground.folder / "two-learners" / "run"
    before = {name: role(child, name) for name in ("learner", "learner-1")}
    took = kill(child, "learner-1", "learner-1 was killed by SIGKILL; rebuilt with those that step with it")
    for name, process in before.items():
        another(child, name, process)
    goes_on(child, run)
    child.process.terminate()
    ended(child, run, 0, "stopped (SIGTERM) and saved")
    return f"noticed in {took}, both rebuilt, trains on; {ledger(run)}"


def one_of_asynchronous_killed(ground: Ground) -> str:
    """SIGKILL for the second of two learners that step by themselves, then for the first."""
    child = _several(ground, "async-learners", "--learner.mode", "async")
    run, second = ground.folder / "async-learners" / "run", role(child, "learner-1")
    took = kill(child, "learner-1", "learner-1 was killed by SIGKILL; replaced")
    another(child, "learner-1", second)
    goes_on(child, run)
    before = role(child, "learner")
    kill(child, "learner", "learner was killed by SIGKILL; rebuilt")
    another(child, "learner", before)
    goes_on(child, run)
    child.process.terminate()
    ended(child, run, 0, "stopped (SIGTERM) and saved")
    return f"noticed in {took}, replaced, then the first one rebuilt, trains on; {ledger(run)}"


FAULTS = (
    Fault(
        "actor-killed",
        "an actor is killed",
        "noticed at once, reported, replaced; rows that it had not appended count as lost",
        ("an actor is killed (SIGKILL, out of memory)",),
        actor_killed,
        ("freedom", "actors"),
    ),
    Fault(
        "actor-stopped",
        "an actor is stopped (SIGSTOP)",
        "after actor.hang_timeout_s it is reported, killed and replaced; its streams go on",
        ("an environment hangs",),
        actor_stopped,
        ("freedom", "actors"),
    ),
    Fault(
        "evaluator-killed",
        "the evaluator is killed",
        "saves, ends with exit code 1",
        ("the evaluator or the inference server is killed",),
        evaluator_killed,
        ("processes",),
    ),
    Fault(
        "learner-killed",
        "the learner is killed",
        "noticed at once, rebuilt with at most learner.mirror_every updates less; the ledger closes",
        ("the learner is killed by a signal (SIGKILL, a crash in C code, want of memory)",),
        learner_killed,
        ("freedom",),
    ),
    Fault(
        "learner-dies-twice",
        "the learner keeps dying",
        "after learner.max_restarts replacements the run ends with exit code 1",
        ("learners keep dying",),
        learner_keeps_dying,
        ("freedom",),
    ),
    Fault(
        "learner-lost",
        "the learner is killed and nothing is kept of it",
        "the run ends with exit code 1; the newest checkpoint is the last one saved",
        ("the learner is killed in a run that cannot rebuild it: `learner.mirror_every = 0`, `deterministic`",),
        learner_killed_for_good,
        ("processes",),
    ),
    Fault(
        "learner-stopped",
        "the learner is stopped (SIGSTOP)",
        "after learner.hang_timeout_s it is reported and killed; exit code 1",
        ("any other role hangs or is stopped (SIGSTOP)",),
        learner_stopped,
        ("freedom",),
    ),
    Fault(
        "ctrl-c-stopped",
        "Ctrl-C while the learner is stopped",
        "within 10 seconds the roles whose part is missing are named; nothing new is saved, exit code 2",
        ("Ctrl-C or SIGTERM while a role hangs, is stopped, or takes very long for a round",),
        ctrl_c_while_stopped,
        ("processes",),
    ),
    Fault(
        "server-killed",
        "the inference server is killed",
        "saves, ends with exit code 1",
        ("the evaluator or the inference server is killed",),
        server_killed,
        ("freedom", "actors"),
    ),
    Fault(
        "lock-step-killed",
        "an actor is killed in lock-step",
        "the round is waited for, then saved; exit code 1",
        ("a role is killed in lock-step while others work",),
        killed_in_lockstep,
        ("processes", "actors"),
    ),
    Fault(
        "two-learners",
        "one of two learners that step together is killed",
        "both are rebuilt, and training goes on",
        ("one of several learners that step together is killed",),
        one_of_several_killed,
        ("freedom", "actors"),
    ),
    Fault(
        "async-learners",
        "one of two asynchronous learners is killed, then the other",
        "each is replaced, the other goes on meanwhile",
        (
            "one of several asynchronous learners is killed, also in the middle of its turn",
            "the first of several asynchronous learners is killed by a signal",
        ),
        one_of_asynchronous_killed,
        ("freedom", "actors"),
    ),
)

"""The supervisor: starts the processes of a run, takes in what they report, replaces dead and hung actors, ends the
run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.process import MakeOffer, RoleProcess
from offbeat.runtime.rebuilding import Rebuilding
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import CheckpointError

PUMP_S = 0.25
"""Longest sleep between two looks at the processes. Unit: seconds."""
INCARNATIONS = 1000
"""Incarnations of an actor count up from this many times the number of resumes, so that seeds never repeat."""
PAUSED_S = 2.0
"""A supervisor that has not looked for so long was stopped itself, and blames nobody for silence. Unit: seconds."""
START_S = 120.0
"""Roles may take so long to start, however short their ``hang_timeout_s`` is. Unit: seconds."""
SILENT_S = 7.0
"""Once the run is to end, a role that is silent for so long is waited for no longer, unless it was often silent for
half as long before. Unit: seconds."""
STOPPED_S = 1.0
"""The same for a process that somebody has stopped (SIGSTOP). Unit: seconds."""
END_S = 10.0
"""Processes that have not ended so long after they were asked to are killed. Unit: seconds."""
AT_ONCE_S = 1.0
"""The same once the run was told a second time to end. Unit: seconds."""

GiveUp = Callable[[RoleProcess], bool]
"""Whether a role's answer is waited for no longer."""


class RoleFailed(RuntimeError):
    """A role ended with an exception; the text is its traceback."""


class Unanswered(RuntimeError):
    """Some roles were given up: they did not answer in time although the run is to end."""

    def __init__(self, roles: list[RoleProcess]) -> None:
        self.roles = roles
        super().__init__(f"no answer from {', '.join(process.role for process in roles)}")


class Supervisor:
    """The processes of one run.

    Args:
        world: shared by all roles.
        conductor: schedules, log.
        lockstep: roles advance only when told to.
        checkpoint: run folder to load the newest checkpoint from, or None.
        offer: what each role's process is sent.
    """

    def __init__(
        self, world: World, conductor: Conductor, *, lockstep: bool, checkpoint: Path | None, offer: MakeOffer
    ) -> None:
        self._offer = offer
        self._told: set[str] = set()
        self.world, self.conductor, self._lockstep, self._checkpoint = world, conductor, lockstep, checkpoint
        self.restarts = Counter[str]()
        """Replacements so far, by kind of role."""
        self._clock = world.clock
        self._looked = self._clock.now()
        self._excused: float | None = None
        """When silence was last excused; None: never."""
        self.failed: str | None = None
        self.roles: dict[str, RoleProcess] = {}
        self.learnt = False
        """Whether all that was learnt is saved for good, so that no learner is needed any more."""
        self._rebuilding = Rebuilding(world)

    def start(self) -> None:
        """Start every role."""
        self.conductor.groups = lambda: [role.process.pid for role in list(self.roles.values()) if role.process.pid]
        for role in self.world.topology.names():
            self._start(role, self.conductor.resumes * INCARNATIONS)

    def _start(self, role: str, incarnation: int, again: bool = False) -> None:
        """Start a role; ``again``: in place of another process, whose checkpoint is long past."""
        row = self.world.topology.row(role)
        goes_on = not again and (row.keeper or row.part or (row.saved and self._lockstep))
        checkpoint = self._checkpoint if goes_on else None
        self.roles[role] = RoleProcess(
            self.world,
            role,
            lockstep=self._lockstep,
            incarnation=incarnation,
            checkpoint=checkpoint,
            offer=self._offer,
        )

    def that(self, column: str, value: Any = True) -> list[RoleProcess]:
        """The processes of roles that have this value in a column of the table."""
        return [process for process in self.roles.values() if getattr(process.row, column) == value]

    def pump(self, timeout_s: float = PUMP_S) -> None:
        """Take in what has been reported and look after the processes; sleeps until something happens.

        Raises ``RoleFailed`` for a role that failed and cannot be replaced.
        """
        waiting: list[Any] = [process.pipe for process in self.roles.values() if process.alive()]
        waiting += [process.process.sentinel for process in self.roles.values() if process.alive()]
        if waiting:
            connection.wait(waiting, timeout_s)
        self._read()
        if self._clock.now() - self._looked > PAUSED_S:  # by Ctrl-Z, which stops all together, or a slow hook
            self._excused = self._clock.now()
            for process in self.roles.values():
                process.excuse()
        for process in list(self.roles.values()):
            if not process.aside:  # it may have been replaced just now, with another
                self._look_after(process)
        self._looked = self._clock.now()

    def shows_life(self, column: str) -> bool:
        """Whether every role that the table marks in this column gives signs of life, as far as anybody has looked."""
        if self._excused is not None and self._clock.now() - self._excused < SILENT_S:
            return False
        return all(process.silent_s() < SILENT_S for process in self.that(column))

    def _read(self) -> None:
        for role, process in self.roles.items():
            for kind, values in process.read():
                self.conductor.logger.record(role, kind, values)
            while process.complaints:
                self.conductor.say(f"{role}: {process.complaints.pop(0)}")

    def _look_after(self, process: RoleProcess) -> None:
        alive = process.alive()
        if process.finished and process.row.turn != "learn" and self.conductor.stop_reason is None:
            self._tell_once(f"{process.role}: its loop has ended by itself; the run goes on without it")
        process.note_silence()
        if not alive:
            self._read()  # its last words
        if process.error is not None:
            text, process.error = process.error, None
            self._fail(process.role, f"{process.role} failed:\n{text}")
        elif not alive:
            self._replace(process, process.death(), died=process.was_killed())
        elif self._hangs(process):
            age, stack, option = process.silent_s(), process.stack(), process.row.hang_option
            more, told = f" ({option} allows more)" if option else "", stack or "(no answer)"
            process.kill()
            self._replace(
                process,
                f"showed no life for {age:.0f} s and was killed{more}; its stacks were:\n{told}",
            )

    def _tell_once(self, text: str) -> None:
        if text not in self._told and not self.world.stopped():
            self._told.add(text)
            self.conductor.say(text)

    def _hangs(self, process: RoleProcess) -> bool:
        """Whether a role that should be at work gives no sign of life."""
        free = not self._lockstep and process.row.turn != "asked" and not process.finished
        return (process.busy or free) and process.silent_s() > self._limit_s(process)

    def _limit_s(self, process: RoleProcess) -> float:
        """How long a role may be silent."""
        limit = process.row.hang_timeout_s
        return limit if process.started() else max(limit, START_S)

    def _fail(self, role: str, text: str) -> None:
        """End the run; or just tell, where it ends already and is being saved."""
        if self.failed is not None and not self.world.topology.row(role).keeper:
            self.conductor.say(text)
            self.set_aside(role)
            return
        self.failed = role
        raise RoleFailed(text)

    def _replace(self, process: RoleProcess, how: str, died: bool = False) -> None:
        """Replace a role, with all that can only go on ``together``, or end the run. ``died``: a signal killed it."""
        role, row = process.role, process.row
        keeps = row.keeper or row.together
        if not row.replaced or self._lockstep or self.failed is not None or (keeps and not died):
            self._fail(role, f"{role} {how}")
            return
        if self.learnt and row.turn == "learn":
            self.conductor.say(f"{role} {how}; not replaced, since all is learnt and saved")
            self.set_aside(role)
            return
        if self.conductor.stop_reason is not None:
            if keeps:
                self._fail(role, f"{role} {how}")
                return
            self.conductor.say(f"{role} {how}; not replaced, since the run ends")
            self.set_aside(role)
            return
        if keeps and (reason := self._rebuilding.refused()):
            self._fail(role, f"{role} {how}; {reason}")
            return
        self.restarts[row.kind] += 1
        count, limit = self.restarts[row.kind], row.replaced
        if count > limit:
            self._fail(role, f"{role} {how}; it was not replaced again because {row.limit}={limit} is used up")
        self._start_again(process, how, f"({count} of at most {limit} times)")

    def _start_again(self, process: RoleProcess, how: str, times: str) -> None:
        row, which = process.row, {process.row.kind: self.world.topology.index(process.role)}
        gone = self.that("together") if row.together else [process]
        for each in gone:
            each.aside = True
            each.kill()
        text = "replaced"
        if row.keeper or row.together:
            lost = self._rebuilding.begin()
            which |= {"lost_updates": lost}
            text = f"rebuilt{' with those that step with it' if row.together else ''}, {lost:,} updates are lost"
        self.conductor.say(f"{process.role} {how}; {text} {times}")
        self.conductor.logger.record("supervisor", "restart", which | {"restarts": self.restarts.total()})
        for each in gone:
            each.free()
            self._start(each.role, each.incarnation + 1, again=True)

    def set_aside(self, role: str) -> None:
        """End a role and look after it no more."""
        process = self.roles.pop(role)
        process.aside = True
        process.kill()
        process.free()

    def given_up(self, process: RoleProcess) -> bool:
        """Whether the run is to end and this role is silent for longer than it ever was while it worked."""
        if self.conductor.stop_reason is None and self.failed is None:
            return False
        if process.lost_at == process.heart.last():
            return True
        if process.is_stopped():
            limit = STOPPED_S
        elif not process.started():
            limit = START_S
        else:
            limit = min(max(SILENT_S, 2 * process.longest_silence_s), self._limit_s(process))
        return process.silent_s() > limit

    def late(self, seconds: float) -> GiveUp:
        """Gives up roles that have not answered so long after the run was asked to stop, alive or not."""
        return lambda process: self.conductor.stopping_s() > seconds or self.given_up(process)

    def ask(
        self, process: RoleProcess, name: str, *, give_up: GiveUp | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Give one command and wait for its answer, looking after everybody meanwhile."""
        process.command(name, **arguments)
        return self.answers([process], give_up=give_up)[0]

    def save_part(self, process: RoleProcess, folder: Path) -> dict[str, Any]:
        """Have a role write its part of a checkpoint. CheckpointError if it cannot, or does not answer."""
        try:
            return self.ask(process, "save", folder=str(folder))
        except Unanswered:
            why = "it died" if process.aside else f"it has shown no life for {process.silent_s():.0f} s"
            raise CheckpointError(f"the part of {process.role} is missing: {why}") from None

    def answers(
        self,
        processes: list[RoleProcess],
        tick: Callable[[], None] | None = None,
        give_up: GiveUp | None = None,
    ) -> list[dict[str, Any]]:
        """Wait for the answers to the last command of each of these processes.

        ``give_up``: whom not to wait for any longer; default: roles that are silent while the run is to end. Raises
        ``Unanswered`` naming those, and CheckpointError if one could not save.
        """
        give_up = give_up or self.given_up
        while any(process.result is None for process in processes):
            self.pump()
            waiting = [process for process in processes if process.result is None]
            lost = [process for process in waiting if process.aside or give_up(process)]
            if lost:
                for process in (process for process in lost if not process.aside):
                    process.lost_at = process.heart.last()
                raise Unanswered(lost)
            if tick is not None:
                tick()
        results = [process.result or {} for process in processes]
        for result in results:
            if "error" in result:
                raise CheckpointError(result["error"])
        return results

    def end(self, at_once: bool = False) -> None:
        """Ask every process to end, wait, ``at_once`` for a moment only, and kill what has not ended.

        Those that were given up before are not waited for.
        """
        patience_s = AT_ONCE_S if at_once else END_S
        self.world.stop()
        for process in self.roles.values():
            silent = process.lost_at is not None and process.lost_at == process.heart.last()
            if silent or (process.row.turn == "asked" and not process.started()):
                process.kill()  # it hangs; or it has not played yet, so there is nothing to close
            elif process.alive():
                process.command("stop")
        deadline = self._clock.now() + patience_s
        for process in self.roles.values():
            while process.alive() and self._clock.now() < deadline and not process.is_stopped():
                self._read()  # a child that is still reporting must not wait for us
                self.world.ring()
                process.join(0.05)
        self._read()
        for process in self.roles.values():
            if process.alive():
                how = "is stopped" if process.is_stopped() else f"did not end within {patience_s:.0f} s"
                self.conductor.say(f"{process.role} {how} and was killed")
            if process.error is not None and process.role != self.failed:
                self.conductor.say(f"{process.role} failed while the run ended:\n{process.error}")
            process.kill()
            process.free()

"""The supervisor: starts the processes of a run, takes in what they report, replaces dead and hung actors, ends the
run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from offbeat.checkpoint import CheckpointError
from offbeat.runtime.conductor import Conductor
from offbeat.runtime.process import RoleProcess
from offbeat.runtime.world import World, roles_of

PUMP_S = 0.25
"""Longest sleep between two looks at the processes. Unit: seconds."""
INCARNATIONS = 1000
"""Incarnations of an actor count up from this many times the number of resumes, so that seeds never repeat."""
PAUSED_S = 2.0
"""A supervisor that has not looked for so long was stopped itself, and blames nobody for silence. Unit: seconds."""
START_S = 120.0
"""Actors may take so long to start, however short ``actor.hang_timeout_s`` is. Unit: seconds."""
END_S = 10.0
"""Processes that have not ended so long after they were asked to are killed. Unit: seconds."""


class RoleFailed(RuntimeError):
    """A role ended with an exception; the text is its traceback."""


class Supervisor:
    """The processes of one run.

    Args:
        world: shared by all roles.
        conductor: schedules, log.
        lockstep: roles advance only when told to.
        checkpoint: run folder to load the newest checkpoint from, or None.
    """

    def __init__(self, world: World, conductor: Conductor, *, lockstep: bool, checkpoint: Path | None) -> None:
        self.world, self.conductor, self._lockstep, self._checkpoint = world, conductor, lockstep, checkpoint
        self.restarts = 0
        self._looked = time.monotonic()
        self.failed: str | None = None
        self.roles: dict[str, RoleProcess] = {}

    def start(self) -> None:
        """Start every role."""
        for role in roles_of(self.world.config):
            self._start(role, self.conductor.resumes * INCARNATIONS)

    def _start(self, role: str, incarnation: int) -> None:
        needs_state = role == "learner" or self._lockstep
        checkpoint = self._checkpoint if needs_state else None
        self.roles[role] = RoleProcess(
            self.world, role, lockstep=self._lockstep, incarnation=incarnation, checkpoint=checkpoint
        )

    @property
    def actors(self) -> list[RoleProcess]:
        """The actors' processes."""
        return [process for role, process in self.roles.items() if role.startswith("actor")]

    def pump(self, timeout_s: float = PUMP_S) -> None:
        """Take in what has been reported and look after the processes; sleeps until something happens.

        Raises ``RoleFailed`` for a role that failed and cannot be replaced.
        """
        waiting: list[Any] = [process.pipe for process in self.roles.values() if process.alive()]
        waiting += [process.process.sentinel for process in self.roles.values() if process.alive()]
        if waiting:
            connection.wait(waiting, timeout_s)
        self._read()
        if time.monotonic() - self._looked > PAUSED_S:  # all processes were stopped together, with Ctrl-Z for instance
            for process in self.roles.values():
                process.excuse()
        for process in list(self.roles.values()):
            self._look_after(process)
        self._looked = time.monotonic()

    def _read(self) -> None:
        for role, process in self.roles.items():
            for kind, values in process.read():
                self.conductor.logger.record(role, kind, values)

    def _look_after(self, process: RoleProcess) -> None:
        alive = process.alive()
        if not alive:
            self._read()  # its last words
        if process.error is not None:
            text, process.error = process.error, None
            self._fail(process.role, f"{process.role} failed:\n{text}")
        if not alive:
            self._replace(process, process.death())
        elif process.role.startswith("actor") and self._hangs(process):
            age, stack = process.silent_s(), process.stack()
            process.kill()
            self._replace(
                process, f"showed no life for {age:.0f} s and was killed; its stacks were:\n{stack or '(no answer)'}"
            )

    def _hangs(self, process: RoleProcess) -> bool:
        """Whether an actor that should be at work gives no sign of life."""
        limit = self.world.config.actor.hang_timeout_s
        if not process.heart.last():
            limit = max(limit, START_S)
        return process.silent_s() > limit and (process.busy or not self._lockstep)

    def _fail(self, role: str, text: str) -> None:
        self.failed = role
        raise RoleFailed(text)

    def _replace(self, process: RoleProcess, how: str) -> None:
        role, limit = process.role, self.world.config.actor.max_restarts
        if not role.startswith("actor") or self._lockstep:
            self._fail(role, f"{role} {how}")
        self.restarts += 1
        if self.restarts > limit:
            self._fail(role, f"{role} {how}; it was not replaced again because actor.max_restarts={limit} is used up")
        self.conductor.say(f"{role} {how}; replaced ({self.restarts} of at most {limit} times)")
        self.conductor.logger.record(
            "supervisor", "restart", {"actor": int(role.split("-")[1]), "restarts": self.restarts}
        )
        process.kill()
        self._start(role, process.incarnation + 1)

    def set_aside(self, role: str) -> None:
        """End a role that has failed and look after it no more."""
        self.roles.pop(role).kill()

    def ask(self, process: RoleProcess, name: str, **arguments: Any) -> dict[str, Any]:
        """Give one command and wait for its answer, looking after everybody meanwhile."""
        process.command(name, **arguments)
        return self.answers([process])[0]

    def answers(self, processes: list[RoleProcess], tick: Callable[[], None] | None = None) -> list[dict[str, Any]]:
        """Wait for the answers to the last command of each of these processes. CheckpointError if it could not save."""
        while any(process.result is None for process in processes):
            self.pump()
            if tick is not None:
                tick()
        results = [process.result or {} for process in processes]
        for result in results:
            if "error" in result:
                raise CheckpointError(result["error"])
        return results

    def end(self) -> None:
        """Ask every process to end, wait, kill what does not."""
        self.world.stop()
        for process in self.roles.values():
            if process.alive():
                process.command("stop")
        deadline = time.monotonic() + END_S
        for process in self.roles.values():
            while process.alive() and time.monotonic() < deadline:
                self._read()  # a child that is still reporting must not wait for us
                self.world.ring()
                process.join(0.05)
        self._read()
        for process in self.roles.values():
            if process.alive():
                self.conductor.say(f"{process.role} did not end within {END_S:.0f} s and was killed")
            process.kill()

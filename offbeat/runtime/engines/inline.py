"""The inline engine: every role in one thread, in a fixed round. The oracle that the other engines are tested
against.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.runtime.clock import Clock
from offbeat.runtime.conductor import Conductor, EndNow, Overdue
from offbeat.runtime.engines.rounds import RoundCut, run_rounds
from offbeat.runtime.host import Host, built, closing_failed
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.stuck import NoProgress, ProgressWatch
from offbeat.runtime.supervisor import RoleFailed
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import CheckpointError, write_part


class InlineRoles:
    """All roles of a run as plain objects, called one after the other."""

    def __init__(self, world: World, conductor: Conductor, checkpoint: Path | None) -> None:
        self._conductor, self._world, self._checkpoint = conductor, world, checkpoint
        self.clock: Clock = world.clock
        """What roles are given."""
        self.hosts: dict[str, Host] = {}
        self._recording = ExitStack()
        self.active = ""
        """The role that is at work, or was when an exception came."""
        self.built = False
        self._cut: set[str] = set()
        self._watch = ProgressWatch(world)

    def build(self) -> None:
        """Build every role."""
        world, incarnation = self._world, self._conductor.resumes
        for role in world.topology.names():
            build = world.topology.row(role).builder()
            sink = _Sink(self._conductor, role)
            services = LocalServices(
                world, role, sink, free=False, incarnation=incarnation, checkpoint=self._checkpoint
            )
            services.clock = self.clock
            with self._at_work(role):
                self.hosts[role] = built(build, services)
            self._recording.enter_context(services.record(self.hosts[role]))
        table = world.topology
        self._turns = {
            turn: [(role, self.hosts[role]) for role in table.that("turn", turn)] for turn in ("act", "after")
        }
        self.learner = self.hosts["learner"]
        self.built = True

    @contextmanager
    def _at_work(self, role: str) -> Iterator[None]:
        """While this role works, the round may be cut if the run is to end and does not."""
        self.active, self._conductor.may_cut = role, True
        try:
            yield
        except Overdue:
            self._cut.add(role)
            raise RoundCut(f"{role} has not come to the end of its round") from None
        finally:
            self._conductor.may_cut = False

    def act(self) -> None:
        """One block of every stream."""
        self._advance("act")

    def learn(self) -> dict[str, Any]:
        """Every batch that is ready."""
        with self._at_work("learner"):
            learnt = self.learner.advance()
        self._advance("after")
        return learnt

    def _advance(self, turn: str) -> None:
        for role, host in self._turns[turn]:
            with self._at_work(role):
                host.advance()

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """One evaluation; broken off by a stop."""
        return self._play("evaluator", number, part)

    def validate(self) -> dict[str, Any]:
        """One validation; broken off by a stop."""
        return self._play("validator", 0, 0)

    def _play(self, role: str, number: int, part: int) -> dict[str, Any]:
        try:
            with self._at_work(role):
                return self.hosts[role].evaluate(number, part)
        except RoundCut:
            self._conductor.say(f"what the {role} played was broken off")
            return {}

    def save_validated(self, folder: Path) -> dict[str, Any]:
        """The weights that were validated."""
        return self.hosts["validator"].save(partial(write_part, folder))

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role's part of a checkpoint. Those of actors that were cut in their round are left out."""
        if "learner" in self._cut:
            raise CheckpointError("the part of learner is missing: it was in the middle of an update")
        write = partial(write_part, folder)
        answer = self.learner.save(write)
        others = [role for role in self._world.topology.that("saved") if self.hosts[role] is not self.learner]
        whole = [role for role in others if role not in self._cut]
        for role in whole:
            self.hosts[role].save(write)
        if missing := [role for role in others if role in self._cut]:
            self._conductor.say(
                f"the checkpoint has no part of {', '.join(missing)}: a run resumed from it starts new episodes there "
                "and will not be bit-identical"
            )
        return answer | {"parts": [*answer["parts"], *whole]}

    def missing(self) -> str:
        """What the learner waits for."""
        return self._watch.fruitless or self.learner.missing()

    def stuck(self, tries: int) -> bool:
        """Whether rounds lead nowhere."""
        return self._watch.stuck_in_rounds(tries)

    def pump(self) -> None:
        """Nothing waits anywhere."""

    def close(self) -> None:
        """Close every role; what goes wrong then is said."""
        self._recording.close()
        for role, host in self.hosts.items():
            try:
                host.close()
            except EndNow:
                raise
            except BaseException as error:
                self._conductor.say(f"{role}: {closing_failed(error)}")


class _Sink:
    def __init__(self, conductor: Conductor, role: str) -> None:
        self._conductor, self._role = conductor, role

    def write(self, kind: str, values: dict[str, float]) -> None:
        """Straight into the log."""
        self._conductor.logger.record(self._role, kind, values)


def run(
    world: World, conductor: Conductor, checkpoint: Path | None, make_roles: type[InlineRoles] = InlineRoles
) -> bool:
    """Run to the end or to a stop; True if all frames were trained on. Saves what was learnt if a role fails.

    What an environment or an agent raises is raised here; ``RoleFailed`` in its place where its class would be taken
    for something else, such as the end of the program.
    """
    roles = make_roles(world, conductor, checkpoint)
    try:
        roles.build()
        return run_rounds(roles, conductor)
    except (NoProgress, EndNow):
        raise
    except RoundCut as cut:  # while roles were built
        conductor.say(f"{cut}; nothing was saved")
        return False
    except BaseException as error:
        _save_after_failure(roles, conductor)
        if isinstance(error, Exception):
            raise
        raise RoleFailed(f"{roles.active} raised {type(error).__name__}:\n{traceback.format_exc()}") from error
    finally:
        roles.close()


def _save_after_failure(roles: InlineRoles, conductor: Conductor) -> None:
    """One last checkpoint although a role has failed, unless the run had not begun."""
    if not roles.built:
        return
    conductor.say(f"{roles.active} failed; saving before the run ends; a run resumed from it will not be bit-identical")
    try:
        conductor.save(lambda folder: roles.learner.save(partial(write_part, folder)))
    except Exception as error:
        conductor.say(f"saving failed too: {error}")

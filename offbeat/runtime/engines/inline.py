"""The inline engine: every role in one thread, in a fixed round. The oracle that the other engines are tested
against.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines.rounds import run_rounds
from offbeat.runtime.hosts import ActorHost, EvaluatorHost, LearnerHost
from offbeat.runtime.making import make_host
from offbeat.runtime.spans import Spans, record
from offbeat.runtime.world import World, roles_of


class InlineRoles:
    """All roles of a run as plain objects, called one after the other."""

    def __init__(self, world: World, conductor: Conductor, checkpoint: Path | None) -> None:
        self._conductor = conductor
        self.hosts: dict[str, Any] = {}
        self.spans: list[Spans] = []
        for role in roles_of(world.config):
            if role != "inference":  # one thread has nobody to serve: every actor acts by itself
                sink = _Sink(conductor, role)
                incarnation = conductor.resumes
                self.hosts[role] = make_host(
                    world, role, sink, free=False, incarnation=incarnation, checkpoint=checkpoint
                )
                if (spans := record(world, role, self.hosts[role])) is not None:
                    self.spans.append(spans)
        self.actors: list[ActorHost] = [host for role, host in self.hosts.items() if role.startswith("actor")]
        self.learner: LearnerHost = self.hosts["learner"]
        self.evaluator: EvaluatorHost = self.hosts["evaluator"]

    def act(self) -> None:
        """One block of every stream."""
        for actor in self.actors:
            actor.advance()

    def learn(self) -> dict[str, Any]:
        """Every batch that is ready."""
        return self.learner.advance()

    def evaluate(self, number: int, point: dict[str, float]) -> None:
        """One evaluation."""
        self.evaluator.evaluate(number, point)

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role's part of a checkpoint."""
        answer = self.learner.save(folder)
        for actor in self.actors:
            actor.save(folder)
        return answer | {"parts": [*answer["parts"], *(actor.name for actor in self.actors)]}

    def pump(self) -> None:
        """Nothing waits anywhere."""

    def close(self) -> None:
        """Close every role."""
        for spans in self.spans:
            spans.close()
        for host in self.hosts.values():
            host.close()


class _Sink:
    def __init__(self, conductor: Conductor, role: str) -> None:
        self._conductor, self._role = conductor, role

    def write(self, kind: str, values: dict[str, float]) -> None:
        """Straight into the log."""
        self._conductor.logger.record(self._role, kind, values)


def run(world: World, conductor: Conductor, checkpoint: Path | None) -> bool:
    """Run to the end or to a stop; True if all frames were trained on. Saves what was learnt if a role fails."""
    roles = InlineRoles(world, conductor, checkpoint)
    try:
        return run_rounds(roles, conductor)
    except Exception:
        conductor.say("a role failed; saving before the run ends; a run resumed from it will not be bit-identical")
        conductor.save(roles.learner.save)
        raise
    finally:
        roles.close()

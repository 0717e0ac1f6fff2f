"""The serialising engine itself: nothing but bytes crosses, and what a desk cannot do is raised at the role's end."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime.actor import build_actor
from offbeat.runtime.brief import brief_of
from offbeat.runtime.codec import decode
from offbeat.runtime.learner import build_learner
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, SharedArrays
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import CheckpointError
from tests.conformance.serial_engine import AtDesk, Desk, SerialEngine, SerialServices, Wire
from tests.runtime.parts import Metrics, same_arrays, small_config, small_world
from tests.runtime.test_roles import Run


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Any]:
    """A role's services at this end, and the real ones at the other: of a learner and an actor in rounds."""
    world = small_world(tmp_path, small_config(engine="local"))
    made, desks = [], []
    for role in ("learner", "actor-0"):
        desk = Desk(AtDesk(world, role, Metrics(), free=False))
        desk.start()
        desks.append(desk)
        pipe = Connection(os.dup(desk.there.fileno()))  # the desk closes its own
        made.append(SerialServices(brief_of(world, role, free=False, incarnation=0), pipe, Metrics()))
    yield *made, desks, world
    for services, desk in zip(made, desks, strict=True):
        services._wire._pipe.close()
        desk.there.close()
        desk.join(10)
        assert not desk.is_alive()
    world.close()


def test_roles_built_from_bytes_learn_what_those_over_shared_memory_learn(ends: Any, tmp_path: Path) -> None:
    *services, _, world = ends
    learner, actor = build_learner(services[0]), build_actor(services[1])
    (tmp_path / "other").mkdir()
    other = Run.start(tmp_path / "other", small_config(engine="local"))
    for _ in range(3):
        assert not actor.advance()["finished"]
        assert learner.advance() == other.round()
    assert torch.equal(learner.work.optimiser.flat, other.learner.work.optimiser.flat)
    written: dict[str, Any] = {}
    answer = learner.save(written.__setitem__)
    assert answer["parts"] == ["learner", "streams"]
    same_arrays(written["streams"], other.learner.batches.state()[0] or {})
    np.testing.assert_array_equal(world.store.head, other.world.store.head)


def test_nothing_of_the_engine_is_at_the_roles_end(ends: Any) -> None:
    """Whatever a role can reach by attributes from its services holds no shared memory."""
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        assert not isinstance(value, SharedArrays | Bell | World | LocalServices), value
        if id(value) in seen or depth > 6 or isinstance(value, type):
            return
        seen.add(id(value))
        inner = vars(value) if hasattr(value, "__dict__") else {}
        for item in [*inner.values(), *(value.values() if isinstance(value, dict) else ())]:
            look(item, depth + 1)

    for services in ends[:2]:
        look(services, 0)
        for port in (services.stop(), services.weights(), services.publisher()):
            look(port, 0)
    assert len(seen) > 50


def test_what_fails_at_the_desk_is_raised_at_the_roles_end(ends: Any, tmp_path: Path) -> None:
    learner, *_ = ends
    with pytest.raises(RuntimeError, match="no weights have been published"):
        learner.weights().pull(torch.zeros(3))
    with pytest.raises(CheckpointError, match="part name 'a/b' is not allowed"):
        learner.write_part(str(tmp_path), "a/b", {})
    with pytest.raises(ValueError, match=r"codec: .* cannot cross"):
        learner.write_part(str(tmp_path), "part", {"a": object()})
    assert learner.streams().tolist() == [0, 1, 2, 3], "the desk goes on"


def test_the_end_of_the_engine_ends_a_role() -> None:
    here, there = Pipe()
    here.close()
    with pytest.raises(Stopped, match="the engine is gone"):
        Wire(there).call("services.stopped")


def test_a_call_that_waits_is_broken_off_where_the_role_is_dead(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(engine="local"))
    engine = SerialEngine()
    offers = [engine.offer(world, "actor-0", free=True, incarnation=0, checkpoint=None)]
    first = engine.desks[0]
    services = SerialServices(offers[0].args[0], Connection(os.dup(first.there.fileno())), Metrics())  # type: ignore[attr-defined]
    broken: list[BaseException] = []

    def wait() -> None:
        try:
            services.weights()  # there are none, so this waits
        except Stopped as stopped:
            broken.append(stopped)
            services._wire._pipe.close()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while not first.services.heart.last():  # type: ignore[attr-defined]
        waiting.join(0.01)
    engine.offer(world, "actor-0", free=True, incarnation=1, checkpoint=None)
    assert not first.is_alive()
    waiting.join(10)
    assert broken
    engine.desks[1].there.close()
    engine.desks[1].join(10)
    world.close()


def test_a_message_of_pickles_is_no_message() -> None:
    with pytest.raises(ValueError, match="codec: "):
        decode(pickle.dumps(("services.stopped", [], {})))

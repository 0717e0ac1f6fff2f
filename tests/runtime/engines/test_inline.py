"""The inline engine: a run in one thread, saved at its end, and saved when a role fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines import inline
from offbeat.runtime.learner import Learner
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import newest
from tests.runtime.parts import small_config, small_world
from tests.runtime.test_conductor import Logger


class Recorder(Logger):
    """Also takes records."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[tuple[str, str]] = []

    def record(self, role: str, kind: str, values: dict[str, float]) -> None:
        """Who said what."""
        self.kinds.append((role, kind))

    def tick(self) -> None:
        """Nothing to refresh."""


def start(folder: Path) -> tuple[World, Conductor, Recorder, list[str]]:
    """A run of 50 steps: three rounds of four environments and five rows, two of which end an episode."""
    world, logger, said = small_world(folder, small_config(total_frames=50)), Recorder(), list[str]()
    return world, Conductor(world, folder, logger, said.append, {}), logger, said  # type: ignore[arg-type]


def test_a_run_ends_saved_and_scored(tmp_path: Path) -> None:
    world, conductor, logger, _ = start(tmp_path)
    assert inline.run(world, conductor, None)
    assert world.store.head.tolist() == [15] * 4
    assert (conductor.updates, conductor.agent_steps, conductor.frames) == (6, 52, 52)
    assert logger.points == [(2, 20), (4, 36), (6, 52)]
    assert logger.kinds.count(("evaluator", "evaluation")) == 1
    assert ("actor-0", "episode") in logger.kinds
    found = newest(tmp_path)
    assert found is not None
    assert found.agent_steps == 52
    assert {"learner.safetensors", "streams.safetensors", "actor-0.safetensors"} <= set(found.manifest["files"])
    world.store.check_ledger()


def test_a_failed_role_leaves_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, conductor, _, said = start(tmp_path)
    advance = Learner.advance

    def fails_later(host: Learner) -> dict[str, object]:
        if host.work.updates >= 4:
            raise ZeroDivisionError("a role failed")
        return advance(host)

    monkeypatch.setattr(Learner, "advance", fails_later)
    with pytest.raises(ZeroDivisionError):
        inline.run(world, conductor, None)
    found = newest(tmp_path)
    assert found is not None
    assert found.agent_steps == 36
    assert "saving before the run ends" in said[0]

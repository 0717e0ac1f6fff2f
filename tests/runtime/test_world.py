"""What roles share: who is there, whose streams are whose, how a run is stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from offbeat.agents.make import make_agent
from offbeat.networks.flat import flat_size
from offbeat.runtime.ports import Point, Stopped
from offbeat.runtime.world import learners_nbytes
from tests.runtime.parts import small_config, small_world


def test_every_stream_has_one_actor(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(actor__workers=3, actor__envs_per_worker=2))
    owned = [world.streams_of(worker).tolist() for worker in range(3)]
    assert owned == [[0, 1], [2, 3], [4, 5]]
    assert world.layout.num_streams == 6


def test_the_layout_is_what_agent_and_configuration_need(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(learner__unroll_length=7))
    layout = world.layout
    assert layout.block == layout.state_grid == 7
    assert {name: spec.shape for name, spec in layout.core_state.items()} == {"h": (1, 4), "c": (1, 4)}
    assert "behaviour_logits" in layout.extras
    assert layout.num_cursors == 1
    assert world.memory.nbytes >= layout.nbytes()
    plain = small_world(tmp_path, small_config(agent__core="none")).layout
    assert (plain.core_state, plain.state_grid) == ({}, 0)


def test_writers_know_how_far_they_may_go_before_the_learner_is_there(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert world.store.room(world.streams_of(0)).tolist() == [10] * 4, "two unrolls of five rows"


def test_stores_of_one_world_share_memory(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.store.add_produced(np.array([1, 3]))
    assert world.memory["produced"].tolist() == [0, 1, 0, 1]
    assert world.store is world.store
    assert world.__getstate__()["_store"] is None, "every process makes its own"


def test_learners_that_share_a_master_are_counted_and_woken(tmp_path: Path) -> None:
    alone, kept = small_config(engine="local", learner__mirror_every=0), small_config(engine="local")
    assert learners_nbytes(kept, 1000) - learners_nbytes(alone, 1000) == 4000 * 2 * 4, "what it would be rebuilt from"
    several = small_config(engine="local", learner__mode="async", learner__count=3)
    assert small_world(tmp_path, alone).master is None
    assert learners_nbytes(several, 1000) - learners_nbytes(alone, 1000) == 4000 * (2 * 2 + 2 * 4)
    world = small_world(tmp_path, small_config(engine="local", learner__mode="async"))
    assert world.master is not None
    assert world.master.memory["vectors"].shape[:2] == (2, 2), "weights and one statistic, twice"
    world.stop()
    assert all(bell.wait(0) for bell in world.master.bells)
    world.close()


def test_the_newest_point_is_what_anybody_can_have_seen(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(engine="local"))
    weights = flat_size(make_agent(world.config.agent_name, world.config.agent, world.spec, "cpu").network)
    assert world.learnt() == Point(0, 0, 0)
    world.board["updates"][0], world.board["frames"][0] = 4, 90
    world.params.store.publish(torch.zeros(weights), 5, 30, 60)
    assert world.learnt() == Point(5, 30, 90)
    world.close()


def test_a_stop_wakes_everybody(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert not world.stopped()
    assert world.wait("actor-0").until("nothing", lambda: False, 0.01) is False
    world.stop()
    assert world.stopped()
    for role in world.topology.names():
        assert world.bells[role].wait(0), role
        with pytest.raises(Stopped, match="rows"):
            world.wait(role).until("rows", lambda: False)


def test_pausing_is_seen_through_the_board(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert not world.paused()
    world.board["pause"][0] = 1
    assert world.paused()
    assert not world.stopped()


def test_every_role_has_a_heart_of_its_own(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(actor__workers=2))
    world.heart("actor-1").beat()
    assert world.heart("actor-1").last() > 0
    others = [role for role in world.topology.names() if role != "actor-1"]
    assert [world.heart(role).last() for role in others] == [0.0] * 3
    world.heart("actor-1").clear()
    assert world.heart("actor-1").last() == 0


def test_only_runs_with_a_server_have_an_inbox(tmp_path: Path) -> None:
    assert small_world(tmp_path).inbox is None
    inbox = small_world(tmp_path, small_config(engine="local", actor__inference="server", actor__workers=2)).inbox
    assert inbox is not None
    assert inbox["action"].shape == (2, 4)
    assert inbox["asked"].shape == (2,)

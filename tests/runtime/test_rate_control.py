"""Agents of unrolls without a fifo: rounds come to an end and train on what came, also after a save and a load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.replay.mixture import ReplayConfig
from tests.runtime.parts import Metrics, item_config, make_host, small_config, small_world
from tests.runtime.test_roles import Run


def replayed(**overrides: Any) -> RunConfig:
    """One uniform sampler over 400 rows; a round is 20 rows, a batch 10."""
    sampler = {"kind": "uniform", "share": 1.0} | overrides.pop("sampler", {})
    return small_config(replay__samplers=[sampler], replay__capacity=400, total_frames=2_000, **overrides)


def updates_of_a_round(learner: Any) -> int:
    """Updates until the learner has no batch; it must come to that."""
    for count, event in enumerate(learner.steps()):
        if event == "idle":
            return count
        assert count < 100, "it trains for ever"
    raise AssertionError("finished")


@pytest.mark.parametrize("mode", [{"engine": "inline"}, {"engine": "local", "deterministic": True}])
def test_a_round_ends_and_trains_on_what_it_appended(mode: dict[str, Any], tmp_path: Path) -> None:
    world = small_world(tmp_path, replayed(**mode))
    learner, actor = (make_host(world, role, Metrics(), free=False) for role in ("learner", "actor-0"))
    for round_ in range(1, 6):
        actor.advance()
        assert updates_of_a_round(learner) == 2
        assert learner.work.updates == 2 * round_


def test_samples_per_insert_counts_for_unrolls_too(tmp_path: Path) -> None:
    config = replayed(replay__samples_per_insert=2.5, sampler={"min_rows": 40})
    world = small_world(tmp_path, config)
    learner, actor = (make_host(world, role, Metrics(), free=False) for role in ("learner", "actor-0"))
    updates = []
    for _ in range(5):
        actor.advance()
        updates.append(updates_of_a_round(learner))
    assert updates == [0, 0, 5, 5, 5]


def test_sizes_that_can_never_give_a_batch_are_a_users_error_before_memory_is_taken(tmp_path: Path) -> None:
    for config, text in (
        (replayed(sampler={"window": 20}), "a window of 20 rows is 5 rows per stream"),
        (replayed(replay__samples_per_insert=1.0, replay__tolerance=10), "tolerance=10 of the rate control"),
        (small_config(replay__capacity=20), "replay.capacity=20 gives 5 rows"),
        (
            small_config(learner__batch_size=8),
            "8 unrolls from the fifo, .* 4 environments; raise actor.envs_per_worker .* lower learner.batch_size",
        ),
        (item_config("apex", replay__samplers=[{"kind": "fifo"}]), "agent 'apex' trains on transitions; allowed"),
        (
            small_config(replay__samplers=[{"kind": "prioritised"}], replay__capacity=400),
            "agent 'impala' trains on unrolls",
        ),
        (small_config(replay__samples_per_insert=2.0), "samples_per_insert=2 has no effect beside a fifo"),
        (small_config(replay__tolerance=90), "tolerance=90 has no effect beside a fifo"),
        (item_config("apex", engine="inline", replay__samples_per_insert=0), "needs replay.samples_per_insert above 0"),
        (
            item_config("r2d2", deterministic=True, replay__samples_per_insert=0),
            "needs replay.samples_per_insert above 0",
        ),
    ):
        with pytest.raises(UserError, match=text):
            small_world(tmp_path, config)


def test_writers_know_their_limit_before_the_learner_is_there(tmp_path: Path) -> None:
    config = replayed(engine="local", replay__samples_per_insert=1.0)
    world = small_world(tmp_path, config)
    assert world.store.room(world.streams_of(0)).tolist() == [15] * 4, "two batches and two rounds: 60 rows"
    free = small_world(tmp_path, replayed(engine="local"))
    assert free.store.room(free.streams_of(0)).min() > 10**9
    assert free.config.replay == ReplayConfig(400, config.replay.samplers)


@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_a_loaded_run_goes_on_bit_for_bit(ratio: float, tmp_path: Path) -> None:
    config = replayed(replay__samples_per_insert=ratio, sampler={"min_rows": 20})
    run = Run.start(tmp_path, config)
    for _ in range(4):
        run.round()
    run.save(tmp_path)
    for _ in range(5):
        run.round()
    again = Run.start(tmp_path, config, checkpoint=tmp_path)
    for _ in range(5):
        again.round()
    one, other = run.everything(), again.everything()
    assert one["mixture/limiter/sampled"][0] > 20
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(other[name]), err_msg=name)

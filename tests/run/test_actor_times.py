"""How many environments an actor steps at once where a run leaves that open: from costs alone, within what fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.config.run_config import RunConfig
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.run import actor_times
from offbeat.run.actor_times import MOST_BATCHES, TRIED, actor_loop, block_times, choose_envs, fewest
from offbeat.types import EnvSpec
from tests.runtime.parts import item_config, small_config


def parts_of(config: RunConfig) -> tuple[EnvSpec, Callable[[str], Agent]]:
    """The spec of the run's environments, and what makes its agent."""
    spec = env_spec(config.env)
    return spec, lambda device: make_agent(config.agent_name, config.agent, spec, device)


def open_config(**changes: Any) -> RunConfig:
    """A run that leaves the number open."""
    config = small_config(**({"learner__batch_size": 4} | changes))
    return replace(config, actor=replace(config.actor, envs_per_worker=0))


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], list[int]]:
    """Steps cost what is said, and nothing is played; gives a list of the numbers that were tried."""

    def set_costs(known: dict[int, float]) -> list[int]:
        tried: list[int] = []

        class Loop:
            def __init__(self, config: RunConfig, spec: EnvSpec, agent: Agent, count: int, *_: Any) -> None:
                tried.append(count)
                self.seconds = known[count] * count * config.learner.unroll_length

            def __enter__(self) -> Loop:
                return self

            def __exit__(self, *_: object) -> None:
                """Nothing was made."""

        monkeypatch.setattr(actor_times, "actor_loop", Loop)
        monkeypatch.setattr(actor_times, "block_times", lambda loop, seconds: [loop.seconds])
        return tried

    return set_costs


def chosen(config: RunConfig) -> tuple[int, str]:
    """The number and the line."""
    found, line = choose_envs(config, *parts_of(config))
    assert replace(found, actor=replace(found.actor, envs_per_worker=0)) == config, "nothing else is changed"
    return found.actor.envs_per_worker, line


def test_the_fewest_near_the_least_are_chosen() -> None:
    assert fewest({8: 10.0, 16: 6.0, 32: 4.5, 64: 4.0, 128: 3.95}) == 32
    assert fewest({8: 10.0}) == 8
    assert fewest({8: 4.0, 16: 4.7}) == 8


def test_a_cheap_step_is_taken_by_many_at_once(costs: Any) -> None:
    tried = costs({count: 1e-6 + 80e-6 / count for count in TRIED})
    number, line = chosen(open_config(learner__batch_size=8))
    assert tried == list(TRIED) and number == 256
    assert line.startswith("actor.envs_per_worker = 256: a step takes 1.31 µs of a core") and "8: 11" in line


def test_where_more_gain_nothing_no_more_are_tried(costs: Any) -> None:
    tried = costs({8: 300e-6, 16: 299e-6})
    assert chosen(open_config())[0] == 8 and tried == [8, 16]


def test_streams_stay_within_what_batches_can_use_soon(costs: Any) -> None:
    tried = costs({count: 1 / count for count in TRIED})
    config = open_config(learner__batch_size=2)
    assert chosen(config)[0] == max(tried) == MOST_BATCHES * 2
    two = replace(config, actor=replace(config.actor, workers=2))
    tried.clear()
    assert chosen(two)[0] == max(tried) == MOST_BATCHES


def test_batches_of_unrolls_need_as_many_streams(costs: Any) -> None:
    tried = costs(dict.fromkeys(TRIED, 0.0001))
    assert chosen(open_config(learner__batch_size=24))[0] == 32 and tried == [32, 64]
    with pytest.raises(UserError, match=r"none of 8, 16, .* fits: .*batch_size"):
        chosen(open_config(learner__batch_size=300))


def test_a_number_that_is_named_stands() -> None:
    config = small_config()
    assert choose_envs(config, *parts_of(config)) == (config, "")


@pytest.mark.parametrize("config", [small_config(), item_config("r2d2")])
def test_the_loop_that_is_timed_is_an_actors(config: RunConfig) -> None:
    spec, make = parts_of(config)
    seen: dict[str, Any] = {}
    torch.manual_seed(0)
    with actor_loop(config, spec, make("cpu"), 3, watch=seen.update) as loop:
        times = block_times(loop, 0.0)
        assert len(times) == actor_times.LEAST and all(seconds > 0 for seconds in times)
    blocks = actor_times.WARM_UPS + actor_times.LEAST
    assert seen["writer"]._store.head.tolist() == [blocks * config.learner.unroll_length] * 3
    assert set(seen) == {"work", "policy", "envs", "writer"}


def test_a_real_measurement_chooses_one_of_them() -> None:
    config = open_config(learner__batch_size=4)
    number, line = chosen(config)
    assert number in TRIED and f"= {number}:" in line

"""Every role of a run has a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.runtime.hosts import ActorHost, EvaluatorHost, InferenceHost, LearnerHost
from offbeat.runtime.making import make_host
from offbeat.runtime.world import roles_of
from tests.runtime.parts import Metrics, small_config, small_world


def test_every_role_gets_its_host(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(actor__workers=2, actor__inference="server"))
    hosts = {role: make_host(world, role, Metrics(), free=False) for role in roles_of(world.config)}
    kinds = {"learner": LearnerHost, "evaluator": EvaluatorHost, "inference": InferenceHost}
    assert {role: type(host) for role, host in hosts.items()} == kinds | {"actor-0": ActorHost, "actor-1": ActorHost}
    assert hosts["actor-1"].name == "actor-1"
    assert hosts["actor-1"].work.staging.streams.tolist() == [4, 5, 6, 7]
    for host in hosts.values():
        host.close()


def test_an_evaluator_scores_the_published_weights(tmp_path: Path) -> None:
    world, metrics = small_world(tmp_path), Metrics()
    make_host(world, "learner", metrics, free=False)
    evaluator = make_host(world, "evaluator", metrics, free=False)
    answers = [evaluator.evaluate(number) for number in (1, 1)]
    assert answers[0] == answers[1]
    assert answers[0]["complete"]
    assert len(metrics.of("evaluation")) == 2
    evaluator.close()


def test_unknown_roles_have_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="janitor"):
        make_host(small_world(tmp_path), "janitor", Metrics(), free=False)

"""Actors that use the published weights in place act as those with copies do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from offbeat.agents import impala
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.networks.flat import flatten_parameters
from offbeat.run.train import resume, train
from offbeat.runtime.policy import LocalPolicy
from offbeat.storage.checkpoint import load_weights
from tests.runtime.parts import private_params

OPTIONS = {"total_frames": 4000, "log.tensorboard": False, "evaluation.every_frames": 0, "evaluation.at_end": False,
           "actor.workers": 2, "checkpoint.every_updates": 10, "checkpoint.every_s": 0}  # fmt: skip


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param({"engine": "inline"}, id="inline"),
        pytest.param({"deterministic": True}, id="lockstep", marks=pytest.mark.slow),
    ],
)
def test_the_same_weights_are_learned_bit_for_bit(engine: dict[str, object], tmp_path: Path) -> None:
    learned = []
    for weights in ("copy", "shared"):
        options = OPTIONS | engine | {"actor.weights": weights, "out": str(tmp_path / weights)}
        result = train(apply_overrides(load_preset("impala-catch"), list(options.items())))
        result = resume(result.run, 6000)
        learned.append(load_weights(result.run)[0])
    one, other = learned
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("preset", ["impala-catch", "r2d2-tmaze"])
def test_a_free_run_ends_with_its_newest_weights(preset: str, tmp_path: Path) -> None:
    options = OPTIONS | {"actor.weights": "shared", "learner.publish_every": 1, "out": str(tmp_path / "run")}
    result = train(apply_overrides(load_preset(preset), list(options.items())))
    assert result.finished


def test_a_policy_acts_on_the_published_vector_itself_until_it_lets_go() -> None:
    from offbeat.config.run_config import agent_config
    from tests.agents.unrolls import make_spec

    def make() -> impala.Agent:
        return impala.Agent(agent_config("impala")(), make_spec())

    published = flatten_parameters(make().network)
    store = private_params(len(published)).reader(0)
    store.publish(published, 0)
    agent = make()
    policy = LocalPolicy(agent, store, 2, seed=0, shared=True)
    assert policy.refresh() == 0
    pointers = {parameter.untyped_storage().data_ptr() for parameter in agent.network.parameters()}
    assert pointers == {policy.flat.data_ptr()}
    assert torch.equal(policy.flat, published)
    policy.release()
    for version in range(1, 4):
        assert store.publish(published + version, version)
    assert policy.refresh() == 3
    assert torch.equal(policy.flat, published + 3)
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in agent.network.parameters())

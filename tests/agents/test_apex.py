"""Ape-X: DQN's loss with the paper's defaults, on priorities that its actors give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from offbeat.agents import apex, dqn
from offbeat.config.run_config import load_preset
from tests.agents.items import make_transition, unlike
from tests.agents.unrolls import make_spec


def test_the_defaults_are_the_papers() -> None:
    config = apex.Config()
    assert (config.n_step, config.discount, config.target_period) == (3, 0.99, 2500)
    assert (config.exploration, config.ladder_base, config.ladder_alpha) == ("ladder", 0.4, 7.0)
    assert (config.double, config.dueling, config.head_size, config.loss) == (True, True, 512, "square")


def test_the_network_is_the_papers() -> None:
    """Three convolutions, then two streams with a layer of 512 each; nothing is shared after the convolutions."""
    agent = apex.Agent(apex.Config(), make_spec("image"))
    layers = [layer for layer in agent.network.modules() if isinstance(layer, nn.Linear)]
    assert sorted((layer.in_features, layer.out_features) for layer in layers) == [
        (512, 1), (512, 3), (3136, 512), (3136, 512),
    ]  # fmt: skip


def test_the_loss_is_dqns() -> None:
    spec = make_spec()
    options = {"hidden_size": (8,), "head_size": 6, "n_step": 3, "loss": "square"}
    agents = []
    for module in (apex, dqn):
        torch.manual_seed(0)
        agents.append(module.Agent(module.Config(**options), spec))
        unlike(agents[-1])
    batch = make_transition(agents[0])
    ours, known = (agent.loss(batch, 0.0) for agent in agents)
    assert torch.equal(ours.loss, known.loss)
    assert torch.equal(ours.feedback["priority"], known.feedback["priority"])


def test_environments_keep_their_epsilon() -> None:
    agent = apex.Agent(apex.Config(hidden_size=(8,)), make_spec())
    early, late = (agent.exploration(np.arange(8), 8, steps) for steps in (0, 10**9))
    assert np.array_equal(early, late)
    known = [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]
    assert early.tolist() == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("name", ["apex-catch", "apex-paper", "apex-rela", "apex-minatar", "apex-dev"])
def test_presets_take_the_priorities_of_actors(name: str) -> None:
    config = load_preset(name)
    (sampler,) = config.replay.samplers
    assert (config.agent_name, sampler.kind, sampler.initial_priority) == ("apex", "prioritised", "actor")

"""Rainbow's loss against a slow loop, its priorities, and its noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.agents.rainbow import Agent, Config
from offbeat.networks.noisy import NoisyLinear
from offbeat.types import LEGAL
from tests.agents.items import Injected, any_inputs, gradients, injected_target, make_transition, masked_spec, unlike
from tests.agents.unrolls import make_spec

ATOMS = 7


def make_agent(masked: bool = False, **options: Any) -> Agent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": (8,), "head_size": 6, "noisy_sigma": 0.0, "atoms": ATOMS}
    small |= {"value_min": -2.0, "value_max": 3.0}
    agent = Agent(Config(**(small | options)), masked_spec() if masked else make_spec())
    unlike(agent)
    return agent


def project(support: list[float], probs: list[float], reward: float, discount: float) -> list[float]:
    """The distribution of reward + discount * z, atom by atom (Bellemare et al. 2017, algorithm 1)."""
    gap, out = support[1] - support[0], [0.0] * len(support)
    for z, p in zip(support, probs, strict=True):
        b = (min(max(reward + discount * z, support[0]), support[-1]) - support[0]) / gap
        low = min(math.floor(b), len(support) - 2)
        out[low] += p * (low + 1 - b)
        out[low + 1] += p * (b - low)
    return out


def slow_loss(agent: Agent, batch: Any) -> tuple[Tensor, list[float]]:
    """One transition after the other, and their Kullback-Leibler divergences."""
    config = agent.config
    gap = (config.value_max - config.value_min) / (config.atoms - 1)
    support = [config.value_min + gap * j for j in range(config.atoms)]
    total, divergences = torch.zeros(()), []
    for i in range(len(batch.action)):

        def probs(network: Any, inputs: Any, i: int = i) -> Tensor:
            observation = {key: value[:, i : i + 1] for key, value in inputs.observation.items()}
            return network(observation, inputs.first[:, i : i + 1], {}).value[0, 0].softmax(-1)

        allowed = list(range(3))
        if LEGAL in batch.next_inputs.observation:
            allowed = [a for a in range(3) if batch.next_inputs.observation[LEGAL][0, i, a]]
        valued = probs(agent.target, batch.next_inputs)
        chooser = probs(agent.network, batch.next_inputs) if config.double else valued
        best = max(allowed, key=lambda a: sum(z * p for z, p in zip(support, chooser[a].tolist(), strict=True)))
        target = project(support, valued[best].tolist(), batch.reward[i].item(), batch.discount[i].item())
        own = probs(agent.network, batch.inputs)[batch.action[i]]
        cross = -sum(m * own[j].log() for j, m in enumerate(target))
        divergences.append(sum(m * (math.log(m) - math.log(own[j].item())) for j, m in enumerate(target) if m > 0))
        total = total + cross * (1.0 if batch.weight is None else batch.weight[i])
    return total / len(batch.action), divergences


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"double": False}, {"dueling": False}])
def test_the_loss_is_the_slow_loops(options: dict[str, Any], weighted: bool, masked: bool) -> None:
    agent = make_agent(masked, **options)
    batch = make_transition(agent, 9)
    batch = replace(batch, weight=batch.weight if weighted else None)
    output = agent.loss(batch, 0.0)
    slow, divergences = slow_loss(agent, batch)
    torch.testing.assert_close(output.loss, slow)
    assert not output.feedback["priority"].requires_grad
    torch.testing.assert_close(output.feedback["priority"], torch.tensor(divergences), rtol=1e-4, atol=1e-5)
    known = gradients(agent, slow)
    for name, gradient in gradients(agent, agent.loss(batch, 0.0).loss).items():
        torch.testing.assert_close(gradient, known[name], rtol=1e-4, atol=1e-6)
    assert all(metric.isfinite() and not metric.requires_grad for metric in output.metrics.values())


def test_a_terminal_reward_on_an_atom_is_all_the_mass() -> None:
    """Reward 1 lies on the support; the cross-entropy is then that atom's log-probability, the entropy 0."""
    agent = make_agent(value_min=-3.0, value_max=3.0)
    batch = make_transition(agent, 1)
    batch = replace(batch, reward=torch.ones(1), discount=torch.zeros(1), weight=None)
    logits = torch.randn(1, 1, 3, ATOMS)
    agent.network, agent._target = Injected(logits), injected_target(torch.randn(1, 1, 3, ATOMS))
    output = agent.loss(batch, 0.0)
    expected = -logits[0, 0, batch.action[0]].log_softmax(-1)[4]
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.feedback["priority"][0], expected)


def test_a_perfect_prediction_has_no_priority() -> None:
    agent = make_agent()
    batch = replace(make_transition(agent, 1), reward=torch.zeros(1), discount=torch.ones(1), weight=None)
    logits = torch.randn(1, 1, 1, ATOMS).expand(1, 1, 3, ATOMS)
    agent.network, agent._target = Injected(logits), injected_target(logits)
    output = agent.loss(batch, 0.0)
    torch.testing.assert_close(output.feedback["priority"], torch.zeros(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.loss, output.metrics["target_entropy"])


def test_truncation_bootstraps_and_termination_does_not() -> None:
    agent = make_agent()
    batch = make_transition(agent, 9)
    before = agent.loss(batch, 0.0).feedback["priority"]
    unlike(agent, 7)
    after = agent.loss(batch, 0.0).feedback["priority"]
    assert before is not None and after is not None
    terminated = torch.arange(9) % 3 == 1
    torch.testing.assert_close(before[terminated], after[terminated])
    assert ((before - after)[~terminated].abs() > 1e-4).all()


def test_acting_draws_noise_from_the_generator_and_greedy_acting_none() -> None:
    agent = make_agent(noisy_sigma=0.5)
    inputs = any_inputs(agent.spec, 1, 5)
    before = torch.get_rng_state()
    draws = [agent.act(inputs, {}, torch.Generator().manual_seed(seed)).extras["q_max"] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    greedy = [agent.act(inputs, {}, torch.Generator().manual_seed(seed), greedy=True) for seed in (1, 2)]
    assert torch.equal(greedy[0].extras["q_max"], greedy[1].extras["q_max"])
    assert torch.equal(before, torch.get_rng_state())
    noisy = [layer for layer in agent.network.modules() if isinstance(layer, NoisyLinear)]
    assert len(noisy) == 4 and all(layer.generator is None and not layer.quiet for layer in noisy), "left as before"


def test_training_draws_noise_that_the_seed_decides_and_learns_how_much() -> None:
    agent = make_agent(noisy_sigma=0.5)
    batch = make_transition(agent)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(agent.loss(batch, 0.0).loss)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    found = gradients(agent, losses[2])
    assert all(found[name].abs().sum() > 0 for name in found)
    assert sum(name.endswith("sigma") for name in found) == 8


def test_values_are_means_of_the_distributions() -> None:
    agent = make_agent()
    logits = torch.randn(2, 4, 3, ATOMS)
    support = torch.linspace(-2, 3, ATOMS)
    torch.testing.assert_close(agent.values(logits), (logits.softmax(-1) * support).sum(-1))


def test_the_papers_defaults() -> None:
    config = Config()
    assert (config.atoms, config.value_min, config.value_max) == (51, -10.0, 10.0)
    assert (config.n_step, config.discount, config.noisy_sigma, config.target_period) == (3, 0.99, 0.5, 2000)
    assert config.epsilon_start == config.epsilon_end == 0.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"atoms": 1}, "atoms=1 is out of range; allowed: 2 or above"),
        ({"value_min": 3.0, "value_max": 3.0}, r"value_min=3.0 must be below value_max=3.0"),
        ({"noisy_sigma": -0.1}, "noisy_sigma=-0.1 is out of range; allowed: 0 or above"),
        ({"n_step": 0}, "n_step=0 is out of range"),
    ],
)
def test_config_says_what_is_out_of_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Config(**options)

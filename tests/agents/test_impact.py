"""IMPACT: worked losses and gradients, the loss written out, target network, adaptive KL, what is saved; it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from offbeat.agents.base import learner_states
from offbeat.agents.impact import AdaptiveCost, Agent, Config
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.types import ActionSpec, Unroll
from tests.agents.items import gradients, unlike
from tests.agents.unrolls import BOX, DISCRETE, change, make_spec, make_unroll, with_episode_ends
from tests.agents.worked import Injected, inject, with_last, worked_batch
from tests.algorithms import worked as w
from tests.algorithms.worked import near, table

ALONE: dict[str, Any] = {"baseline_cost": 0.0, "entropy_cost": 0.0}
SEVERAL = ActionSpec("multi_discrete", nvec=(2, 3), shape=(2,))


def make_agent(action: ActionSpec = DISCRETE, observation: str = "vector", **options: Any) -> Agent:
    torch.manual_seed(0)
    return Agent(Config(hidden_size=(8,), **options), make_spec(observation, action))


def give(
    agent: Agent, policy: Tensor, target: Tensor, value: Tensor = w.VALUE, last: Tensor = w.BOOTSTRAP_VALUE
) -> Injected:
    """Have ``agent`` see these policies, as its own and as the target's, whose values are of no use."""
    network = inject(agent, policy, value, last)
    agent._target._online = network  # type: ignore[assignment]
    agent._target._copy = Injected(with_last(target), with_last(torch.full_like(value, 1e6)))  # type: ignore[assignment]
    return network


def any_batch(agent: Agent) -> Unroll:
    """Rows with episode ends, acted with other weights; the target network has others again."""
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    unlike(agent)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in agent.network.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    return batch


def test_worked_loss_and_gradient() -> None:
    """Section 3's five rows as one-step episodes of value 0, so that the advantage is min(1, pi_t / mu) r."""
    agent = make_agent(ActionSpec("discrete", 2), rho=2.0, clip=0.4, **ALONE)
    pi, target, mu = (
        table(x) for x in ([0.6, 0.2, 0.3, 0.3, 0.1], [0.4, 0.4, 0.2, 0.1, 0.3], [0.5, 0.1, 0.6, 0.3, 0.3])
    )
    weight = table([0.8, 1, 1 / 3, 1 / 3, 1])
    logits = [torch.stack([x, 1 - x], -1).log()[:, None] for x in (pi, target, mu)]
    batch = worked_batch(make_agent())
    zero = torch.zeros(5, 1, dtype=torch.float64)
    batch = change(
        batch,
        valid=torch.ones(6, 1, dtype=torch.bool),
        action=torch.zeros(5, 1, dtype=torch.int64),
        reward=(table([1, -0.5, 2, -1, 1.5]) / weight)[:, None],
        discount=zero,
        extras={"behaviour_logits": logits[2]},
    )
    network = give(agent, logits[0], logits[1], zero, zero[0])
    output = agent.loss(batch, 0.0)
    near(output.loss, -0.32, 1e-9)
    output.loss.backward()
    assert network.policy.grad is not None
    by_log_prob = table([0, 0, 0.4, -0.4, 0.1])
    near(-network.policy.grad[:5, 0, 0], by_log_prob * (1 - pi), 1e-9)  # d log pi / d logit = 1 - pi
    assert output.metrics["clipped_share"] == pytest.approx(4 / 5)
    assert output.metrics["weight_clipped_share"] == pytest.approx(2 / 5)
    apart = (pi / mu).log()
    assert output.metrics["log_ratio_mean"] == pytest.approx(float(apart.mean()))
    assert output.metrics["log_ratio_variance"] == pytest.approx(float(apart.var(correction=0)))


def written_out(agent: Agent, batch: Unroll, k: float) -> float:
    """The loss of a discrete agent, row by row as algorithm 1 has it; ``k``: the weight of KL(pi_t || pi)."""
    config = agent.config
    with torch.no_grad():
        own = agent._forward(batch.inputs, batch.core_state)
        pi, value = own.policy.softmax(-1), own.value.tolist()
        target = agent._forward(batch.inputs, batch.core_state, network=agent.target).policy.softmax(-1)
    mu, rows = batch.extras["behaviour_logits"].softmax(-1), batch.valid.tolist()
    total, count = 0.0, 0
    for b in range(batch.action.shape[1]):
        vs = value[-1][b]
        for t in reversed(range(batch.action.shape[0])):
            if not rows[t][b]:
                vs = value[t][b]
                continue
            a = int(batch.action[t, b])
            p, q, m = float(pi[t, b, a]), float(target[t, b, a]), float(mu[t, b, a])
            r, g, v, after = float(batch.reward[t, b]), float(batch.discount[t, b]), value[t][b], value[t + 1][b]
            weight = min(1.0, q / m)
            advantage = weight * (r + g * vs - v)
            correction = weight * (r + g * after - v) + g * config.lambda_ * weight * (vs - after)
            vs = v + correction
            big = min(m / q, config.rho) * p / m
            surrogate = min(big * advantage, min(max(big, 1 - config.clip), 1 + config.clip) * advantage)
            entropy = -sum(x * math.log(x) for x in pi[t, b].tolist())
            kl = sum(x * math.log(x / y) for x, y in zip(target[t, b].tolist(), pi[t, b].tolist(), strict=True))
            total += -surrogate + config.baseline_cost * 0.5 * (v - vs) ** 2 - config.entropy_cost * entropy + k * kl
            count += 1
    return total / count


@pytest.mark.parametrize("core", ["none", "lstm"])
@pytest.mark.parametrize(
    "options", [{}, {"kl_cost": 0.7, "lambda_": 0.8, "rho": 1.1, "clip": 0.05, "baseline_cost": 1.3}]
)
def test_the_loss_is_the_printed_one(options: dict[str, Any], core: Any) -> None:
    agent = make_agent(**options, core=core, core_size=6)
    batch = any_batch(agent)
    assert float(agent.loss(batch, 0.0).loss) == pytest.approx(
        written_out(agent, batch, options.get("kl_cost", 0)), abs=1e-5
    )


def test_each_clip_acts() -> None:
    """The worked batch, with rho and clip at which something is clipped and at which nothing is."""
    losses = {}
    for rho, clip in ((1e9, 1e9), (0.5, 1e9), (1e9, 0.01), (0.5, 0.01)):
        agent = make_agent(rho=rho, clip=clip, **ALONE)
        batch = worked_batch(agent)
        give(agent, w.LOGITS, 0.5 * w.LOGITS)
        losses[rho, clip] = float(agent.loss(batch, 0.0).loss)
    assert len(set(losses.values())) == 4


def test_targets_come_from_the_target_policy_and_the_learners_values() -> None:
    """The target's own values, 10^6 here, play no part; neither target nor behaviour gets a gradient."""
    agent = make_agent(kl_cost=1.0)
    batch = worked_batch(agent)
    network = give(agent, w.LOGITS, w.BEHAVIOUR_LOGITS)
    output = agent.loss(batch, 0.0)
    assert abs(float(output.loss)) < 10
    output.loss.backward()
    assert network.policy.grad is not None and network.value.grad is not None
    assert agent._target._copy is not None
    assert all(weight.grad is None for weight in agent._target._copy.parameters())
    assert not network.value.grad[-1].any(), "the bootstrap value is a target"
    near(output.metrics["kl"].double(), w.FORWARD.mean(), 1e-7)


@pytest.mark.parametrize("action", [DISCRETE, BOX, SEVERAL])
@pytest.mark.parametrize("options", [{}, {"core": "lstm", "core_size": 6, "last_action": True, "last_reward": True}])
def test_acts_and_learns_with_every_kind_of_action(action: ActionSpec, options: dict[str, Any]) -> None:
    agent = make_agent(action, kl_cost=1.0, **options)
    inputs, valid = with_episode_ends(agent.spec)
    if action is SEVERAL:
        inputs.last_action = torch.ones(8, 3, 2, dtype=torch.int64)
    batch = make_unroll(agent, inputs, valid)
    output = agent.loss(batch, 0.0)
    assert float(output.metrics["ratio_mean"]) == pytest.approx(1.0, abs=1e-4)
    assert float(output.metrics["kl"]) == pytest.approx(0.0, abs=1e-5)
    found = gradients(agent, output.loss)  # type: ignore[arg-type]
    assert found.keys() == dict(agent.network.named_parameters()).keys()
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    assert all(
        not metric.requires_grad and metric.shape == () and metric.isfinite() for metric in output.metrics.values()
    )


def test_the_divergence_of_gaussians_is_in_closed_form() -> None:
    agent = make_agent(BOX)
    batch = any_batch(agent)
    (mean, log_std), (old, old_log_std) = (
        agent._forward(batch.inputs, batch.core_state, network=net).policy[:-1].chunk(2, -1)
        for net in (agent.network, agent.target)
    )
    expected = kl_divergence(Normal(old, old_log_std.exp()), Normal(mean, log_std.exp())).sum(-1)[batch.valid[:-1]]
    torch.testing.assert_close(agent.loss(batch, 0.0).metrics["kl"], expected.mean().detach())


def test_what_stands_in_rows_that_are_no_transitions_does_not_matter() -> None:
    agent = make_agent(BOX, kl_cost=1.0)
    batch = any_batch(agent)
    noise = ~batch.valid[:-1]
    assert noise.any()
    with torch.no_grad():
        agent.target.policy.log_std.sub_(1.0)  # type: ignore[union-attr,operator]  # far off, pi is the likelier one
    extras = {"behaviour_log_prob": batch.extras["behaviour_log_prob"].masked_fill(noise, -1e30)}
    wild = change(batch, extras=extras, action=torch.where(noise[..., None], 1e6, batch.action))
    assert agent._evaluate(agent.unrolled(wild).policy[:-1], wild.action)[0].min() < -1e10
    losses = []
    for one in (batch, wild, change(wild, action=torch.where(noise[..., None], -1e6, batch.action))):
        agent.network.zero_grad()
        losses.append(agent.loss(one, 0.0).loss)
        losses[-1].backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in agent.network.parameters())
    assert losses[0] == losses[1] == losses[2]


def test_the_loss_is_a_mean_over_transitions_and_shards_add_up() -> None:
    agent = make_agent()
    batch = any_batch(agent)
    output = agent.loss(batch, 0.0)
    assert output.count == batch.valid[:-1].sum()
    torch.testing.assert_close(output.loss, output.total / float(batch.valid[:-1].sum()))


def test_the_target_is_renewed_every_period() -> None:
    agent = make_agent(target_period=2)
    batch = any_batch(agent)
    assert float(agent.loss(batch, 0.0).metrics["kl"]) > 1e-3
    state = learner_states(agent)["target"]
    state.trained(batch, 1)
    assert float(agent.loss(batch, 0.0).metrics["kl"]) > 1e-3
    state.trained(batch, 2)
    assert float(agent.loss(batch, 0.0).metrics["kl"]) == pytest.approx(0.0, abs=1e-7)


def test_the_weight_of_the_divergence_is_adapted_at_renewals() -> None:
    cost = AdaptiveCost(1.0, 0.04, 3, torch.device("cpu"))
    cost.trained(None, 3)
    assert cost.cost == 1.0, "nothing was seen yet"
    for updates, seen, expected in ((4, 9.0, 1.0), (6, 0.081, 1.5), (7, 0.0, 1.5), (9, 0.079, 1.5), (12, 0.019, 0.75)):
        cost.seen = torch.tensor(seen)
        cost.trained(None, updates)
        assert float(cost.cost) == expected, updates


def test_only_where_there_is_a_term_is_a_weight_kept() -> None:
    assert set(learner_states(make_agent())) == {"target"}
    assert set(learner_states(make_agent(kl_cost=1.0))) == {"target", "kl"}
    assert "kl_cost" not in make_agent().loss(any_batch(make_agent()), 0.0).metrics


def test_states_are_saved_and_loaded_and_go_on_as_before() -> None:
    config = LearnerConfig(optimizer="adam", learning_rate=0.1, schedule="constant", clip_norm=0.0)
    options: dict[str, Any] = {"kl_cost": 1.0, "kl_target": 1e-3, "target_period": 3}
    agent = make_agent(**options)
    batch = any_batch(agent)

    def steps(agent: Agent, work: LearnerWork, first: int, last: int) -> None:
        for updates in range(first, last):
            assert work.train_step(agent, batch) is not None
            for state in work.states.values():
                state.trained(batch, updates)

    work = LearnerWork(agent, config, total_frames=100)
    steps(agent, work, 1, 5)
    weights = {name: value.clone() for name, value in agent.network.state_dict().items()}
    optimiser = {name: value.clone() for name, value in work.optimiser.state().items()}
    saved = {name: {key: value.clone() for key, value in state.state().items()} for name, state in work.states.items()}
    assert saved["kl"]["cost"] == 1.5
    steps(agent, work, 5, 9)

    other = make_agent(**options)
    again = LearnerWork(other, config, total_frames=100)
    again.optimiser.load_weights(weights)
    again.optimiser.load_state(optimiser)
    for name, state in again.states.items():
        state.load_state(saved[name])
    steps(other, again, 5, 9)
    assert torch.equal(again.optimiser.flat, work.optimiser.flat)
    assert agent._kl is not None and other._kl is not None
    assert agent._kl.cost == other._kl.cost > 1.5
    assert all(map(torch.equal, agent.target.state_dict().values(), other.target.state_dict().values()))


@pytest.mark.slow
def test_compiles_into_one_graph() -> None:
    agent = make_agent(kl_cost=1.0)
    batch = any_batch(agent)
    expected = agent.loss(batch, 0.0).loss
    compiled = torch.compile(agent.loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch, 0.0).loss, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rho": 0.0}, "rho=0.0 is out of range; allowed: above 0"),
        ({"kl_target": 0.0}, "kl_target=0.0 is out of range; allowed: above 0"),
        ({"clip": -0.1}, "clip=-0.1 is out of range; allowed: 0 or above"),
        ({"kl_cost": -1.0}, "kl_cost=-1.0 is out of range; allowed: 0 or above"),
        ({"lambda_": 1.1}, "lambda_=1.1 is out of range; allowed: 0 to 1"),
        ({"target_period": 0}, "target_period=0 is out of range; allowed: 1 or above"),
        ({"target_rate": 0.0}, "target_rate=0.0 is out of range; allowed: above 0, up to 1"),
        ({"discount": 1.1}, "discount=1.1 is out of range; allowed: 0 to 1"),
    ],
)
def test_config_says_what_is_out_of_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Config(**options)

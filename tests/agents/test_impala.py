"""IMPALA: acting and training see the same network, the loss is the published one, episode ends are handled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from offbeat.agents.impala import Agent, Config, NetworkOutput
from offbeat.types import Inputs
from tests.agents.unrolls import BOX, DISCRETE, change, make_inputs, make_spec, make_unroll, row, with_episode_ends

VARIANTS = [
    ("vector", DISCRETE, {}),
    ("vector", BOX, {}),
    ("vector", DISCRETE, {"core": "lstm", "core_size": 8, "core_layers": 2, "last_action": True, "last_reward": True}),
    ("vector", BOX, {"core": "lstm", "core_size": 8, "last_action": True}),
    ("grid", DISCRETE, {"last_reward": True}),
    ("grid", DISCRETE, {"torso": "mlp", "core": "lstm", "core_size": 8}),
    ("image", DISCRETE, {"torso": "nature", "feature_size": 32}),
    ("image", DISCRETE, {"torso": "resnet", "core": "lstm", "core_size": 8, "last_action": True, "last_reward": True}),
    ("dictionary", DISCRETE, {"torso": "nature", "core": "lstm", "core_size": 8}),
    ("dictionary", BOX, {"torso": "resnet"}),
]


def make_agent(observation="vector", action=DISCRETE, **options) -> Agent:
    torch.manual_seed(0)
    return Agent(Config(**options), make_spec(observation, action))


@pytest.mark.parametrize(("observation", "action", "options"), VARIANTS)
def test_acting_row_by_row_gives_what_training_sees(observation, action, options):
    agent = make_agent(observation, action, **options)
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    for name, spec in agent.row_extras().items():
        assert batch.extras[name].shape == (7, 3, *spec.shape)
    policy = agent._forward(batch.inputs, batch.core_state).policy[:-1]
    if action is DISCRETE:
        torch.testing.assert_close(batch.extras["behaviour_logits"], policy, rtol=1e-4, atol=1e-5)
    assert batch.action.shape == (7, 3, *action.shape)
    output = agent.loss(batch, 0.0)
    torch.testing.assert_close(output.metrics["ratio_mean"], torch.tensor(1.0), rtol=1e-4, atol=1e-5)
    output.loss.backward()
    for name, weight in agent.network.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
    assert all(not metric.requires_grad and metric.shape == () for metric in output.metrics.values())
    assert all(metric.isfinite() for metric in output.metrics.values())


def test_acting_from_a_stored_state_in_the_middle():
    agent = make_agent(core="lstm", core_size=8)
    inputs, valid = with_episode_ends(agent.spec)
    state = agent.initial_state(3)
    for t in range(3):
        state = agent.act(row(inputs, t), state, None).state
    later = Inputs({"observation": inputs.observation["observation"][3:]}, inputs.first[3:])
    whole = agent._forward(inputs, agent.initial_state(3))
    torch.testing.assert_close(agent._forward(later, state).policy, whole.policy[3:])
    assert not valid.all()


def test_state_is_dropped_where_an_episode_starts():
    agent = make_agent(core="lstm", core_size=8)
    old = {key: torch.randn_like(item) for key, item in agent.initial_state(2).items()}
    inputs = make_inputs(agent.spec, 1, 2, first=torch.tensor([[True, False]]))
    logits = agent.act(inputs, old, None).extras["behaviour_logits"]
    fresh = agent.act(inputs, agent.initial_state(2), None).extras["behaviour_logits"]
    assert torch.equal(logits[0], fresh[0])
    assert not torch.equal(logits[1], fresh[1])


def test_last_action_is_zero_at_an_episodes_start_and_reward_is_clamped():
    agent = make_agent(last_action=True, last_reward=True)
    first = torch.tensor([[True, False]])
    encoded = agent.network._encode_action(torch.tensor([[0, 2]]), first)
    assert encoded.tolist() == [[[0, 0, 0], [0, 0, 1]]]
    inputs = make_inputs(agent.spec, 1, 2, first)
    inputs.last_reward = torch.tensor([[7.0, -7.0]])
    large = agent._forward(inputs, {}).policy
    inputs.last_reward = torch.tensor([[1.0, -1.0]])
    assert torch.equal(large, agent._forward(inputs, {}).policy)
    with pytest.raises(ValueError, match=r"last_action: expected a tensor"):
        agent.network(inputs.observation, inputs.first, {})


@pytest.mark.parametrize("action", [DISCRETE, BOX])
def test_sampling_follows_the_generator(action):
    agent = make_agent(action=action)
    inputs = make_inputs(agent.spec, 1, 4)
    draws = [agent.act(inputs, {}, torch.Generator().manual_seed(seed)).action for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    greedy = [agent.act(inputs, {}, torch.Generator().manual_seed(seed), greedy=True).action for seed in (1, 2)]
    assert torch.equal(greedy[0], greedy[1])
    if action is BOX:
        assert not torch.equal(draws[0], draws[2])
        assert torch.equal(greedy[0], agent._forward(inputs, {}).policy[0].chunk(2, -1)[0])


def test_sampling_frequencies_and_log_prob():
    agent = make_agent()
    inputs = make_inputs(agent.spec, 1, 1)
    inputs.observation["observation"] = inputs.observation["observation"].expand(1, 20_000, 5)
    inputs.first = inputs.first.expand(1, 20_000)
    with torch.no_grad():
        agent.network.policy.linear.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    output = agent.act(inputs, {}, torch.Generator().manual_seed(0))
    frequency = torch.bincount(output.action, minlength=3) / 20_000
    torch.testing.assert_close(frequency, output.extras["behaviour_logits"][0].softmax(-1), rtol=0, atol=0.015)
    agent = make_agent(action=BOX)
    output = agent.act(inputs, {}, torch.Generator().manual_seed(0))
    mean, log_std = agent._forward(inputs, {}).policy[0, 0].chunk(2, -1)
    torch.testing.assert_close(output.action.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(output.action.std(0), log_std.exp(), rtol=0.03, atol=0)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(output.action).sum(-1)
    torch.testing.assert_close(output.extras["behaviour_log_prob"], expected)


class Injected(nn.Module):
    """A network that returns given logits and values."""

    def __init__(self, policy, value):
        super().__init__()
        self.output = NetworkOutput(policy, value, {})

    def forward(self, *_):
        return self.output


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_is_the_worked_example(reduction):
    """Five rows, an episode that ends after the third, entropy cost 0.01: the total is known."""
    d = torch.float64
    agent = make_agent(reduction=reduction)
    batch = make_unroll(agent, make_inputs(agent.spec, 6, 1), torch.ones(6, 1, dtype=torch.bool))
    behaviour = torch.tensor([[0.2, -0.1, 0.4], [1, 0, -1], [0, 0, 0], [-0.5, 0.5, 0.1], [0.3, 0.3, -0.3]], dtype=d)
    logits = [[0.6, -0.3, 0.1], [0.5, 0.5, -1], [0.2, -0.2, 0], [-0.5, 0.9, 0.1], [0, 0, 0], [9, 0, 0]]
    batch = change(
        batch,
        action=torch.tensor([0, 2, 1, 1, 0])[:, None],
        reward=torch.tensor([0, 1, -1, 0.5, 1], dtype=d)[:, None],
        discount=torch.tensor([0.99, 0.99, 0, 0.99, 0.99], dtype=d)[:, None],
        extras={"behaviour_logits": behaviour[:, None]},
    )
    value = torch.tensor([0.1, 0.4, -0.3, 0.8, 0.25, 1.2], dtype=d)[:, None]
    agent.network = Injected(torch.tensor(logits, dtype=d)[:, None], value)
    loss = agent.loss(batch, 0.0).loss
    expected = 2.6846152377 / (5 if reduction == "mean" else 1)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=d), rtol=0, atol=1e-9)


def loss_of(agent, batch, policy, value):
    agent.network = Injected(policy, value)
    return agent.loss(batch, 0.0).loss


@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("final", [2, 5])
def test_final_observations_count_only_as_bootstrap(truncates, final):
    """One stream with an episode end equals two streams' losses: rows before (bootstrap V(final)) and rows after."""
    agent = make_agent()
    valid = torch.ones(6, 1, dtype=torch.bool)
    valid[final] = False
    truncated = torch.zeros(5, 1, dtype=torch.bool)
    truncated[final - 1] = truncates
    batch = make_unroll(agent, make_inputs(agent.spec, 6, 1), valid, truncated)
    assert batch.discount[final - 1].item() == (pytest.approx(0.99) if truncates else 0.0)
    policy, value = torch.randn(6, 1, 3), torch.randn(6, 1)

    def part(start: int, end: int):
        rows = slice(start, end)
        return change(
            batch,
            valid=torch.ones(end - start + 1, 1, dtype=torch.bool),
            action=batch.action[rows],
            reward=batch.reward[rows],
            discount=batch.discount[rows],
            extras={"behaviour_logits": batch.extras["behaviour_logits"][rows]},
        )

    expected = loss_of(agent, part(0, final), policy[: final + 1], value[: final + 1])
    if final < 5:
        expected = expected + loss_of(agent, part(final + 1, 5), policy[final + 1 :], value[final + 1 :])
    torch.testing.assert_close(loss_of(agent, batch, policy, value), expected)

    changed = value.clone()
    changed[final] += 1.0
    differs = not torch.equal(loss_of(agent, batch, policy, changed), loss_of(agent, batch, policy, value))
    assert differs == truncates


def test_actions_and_rewards_of_invalid_rows_do_not_matter():
    agent = make_agent(last_reward=True)
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    noise = ~valid[:-1]
    other = change(
        batch,
        action=torch.where(noise, (batch.action + 1) % 3, batch.action),
        extras={"behaviour_logits": batch.extras["behaviour_logits"] + 50.0 * noise[..., None] * torch.randn(3)},
        reward=torch.where(noise, 1e6, batch.reward),
    )
    assert torch.equal(agent.loss(batch, 0.0).loss, agent.loss(other, 0.0).loss)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("options", [{}, {"core": "lstm", "core_size": 8}])
def test_the_bootstrap_row_gives_a_value_and_no_gradient_to_its_features(options, autocast):
    agent = make_agent("image", **options)
    inputs, _ = with_episode_ends(agent.spec)
    width = inputs.first.shape[1]

    def run(bootstrap):
        agent.network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            arguments = inputs.observation, inputs.first, agent.initial_state(width), None, None, bootstrap
            output = agent.network(*arguments)
        (output.value[:-1].square().sum() + output.policy[:-1].square().sum()).backward()
        return output, [weight.grad.clone() for weight in agent.network.parameters()]

    (plain, gradients), (short, same) = run(False), run(True)
    torch.testing.assert_close(short.value, plain.value, rtol=1e-3, atol=1e-3)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    tolerance = 0.05 if autocast else 1e-4
    for ours, theirs in zip(same, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize("options", [{}, {"core": "lstm", "core_size": 8}])
@pytest.mark.parametrize("observation", ["vector", "image"])
def test_autocast_is_close_to_float32(observation, options):
    agent = make_agent(observation, **options)
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    exact = agent.loss(batch, 0.0).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = agent.loss(batch, 0.0)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, exact, rtol=0.05, atol=0.05)
    assert all(weight.grad.dtype == torch.float32 for weight in agent.network.parameters())


@pytest.mark.parametrize("options", [{}, {"core": "lstm", "core_size": 8, "last_action": True, "last_reward": True}])
@pytest.mark.parametrize(
    ("observation", "action"), [("vector", BOX), pytest.param("image", DISCRETE, marks=pytest.mark.slow)]
)
def test_compiles_into_one_graph(observation, action, options):
    agent = make_agent(observation, action, **options)
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    compiled = torch.compile(agent.loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch, 0.0).loss, agent.loss(batch, 0.0).loss, rtol=1e-4, atol=1e-4)


def test_exports_the_network_that_acts():
    agent = make_agent("image", core="lstm", core_size=8)
    inputs = make_inputs(agent.spec, 1, 2)
    arguments = (inputs.observation, inputs.first, agent.initial_state(2))
    exported = torch.export.export(agent.network, arguments).module()
    known, got = agent.network(*arguments), exported(*arguments)
    torch.testing.assert_close(got.policy, known.policy)
    torch.testing.assert_close(got.state, known.state)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"discount": 1.5}, "discount=1.5 is out of range; allowed: 0 to 1"),
        ({"rho_bar": 0.0}, "rho_bar=0.0 is out of range; allowed: above 0"),
        ({"entropy_cost": -1.0}, "entropy_cost=-1.0 is out of range; allowed: 0 or above"),
        ({"c_bar": 2.0}, "c_bar=2.0 is above rho_bar=1.0"),
        ({"hidden_size": (64, 0)}, r"hidden_size=\(64, 0\) is out of range"),
    ],
)
def test_config_says_what_is_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        Config(**options)


def test_orthogonal_weights_keep_the_norm_of_features() -> None:
    network = make_agent("image", torso="nature", init="orthogonal", policy_init_scale=0.01).network
    layer = next(module for module in network.torso.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(layer.weight @ layer.weight.T, 2.0 * torch.eye(len(layer.weight)), atol=1e-4, rtol=1e-4)
    assert not layer.bias.any()
    policy = network.policy.linear.weight
    torch.testing.assert_close(policy @ policy.T, 1e-4 * torch.eye(len(policy)), atol=1e-8, rtol=1e-3)


@pytest.mark.parametrize(("observation", "action", "options"), VARIANTS)
def test_what_is_stored_of_the_heads_inputs_is_what_it_makes_of_them_later(observation, action, options):
    agent, plain = (
        make_agent(observation, action, **options, store_features=True),
        make_agent(observation, action, **options),
    )
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    assert batch.extras["features"].shape == (7, 3, agent.network.output_size)
    found = agent.features("torso", batch.inputs, batch.core_state)[:-1]
    torch.testing.assert_close(batch.extras["features"], found, rtol=1e-4, atol=1e-5)
    if action is DISCRETE:
        logits = agent.features("policy", batch.inputs, batch.core_state)[:-1]
        torch.testing.assert_close(batch.extras["behaviour_logits"], logits, rtol=1e-4, atol=1e-5)
    one = [
        agent.act(row(inputs, 0), agent.initial_state(3), torch.Generator().manual_seed(1)) for agent in (agent, plain)
    ]
    assert torch.equal(one[0].action, one[1].action), "storing changes nothing that is acted"
    assert one[0].extras.keys() - one[1].extras.keys() == {"features"}

"""Actor-critic losses against torch.distributions, hand-made sums and the worked example of a whole IMPALA loss."""

from __future__ import annotations

import itertools

import pytest
import torch

from offbeat.algorithms import actor_critic
from offbeat.algorithms.vtrace import vtrace


def test_categorical_equals_torch_distributions():
    logits, action = torch.randn(4, 3, 6, dtype=torch.float64), torch.randint(6, (4, 3))
    reference = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(actor_critic.categorical_log_prob(logits, action), reference.log_prob(action))
    torch.testing.assert_close(actor_critic.categorical_entropy(logits), reference.entropy())


def test_categorical_entropy_survives_impossible_actions():
    logits = torch.tensor([0.0, -float("inf"), 0.0])
    torch.testing.assert_close(actor_critic.categorical_entropy(logits), torch.tensor(2.0).log())
    assert actor_critic.categorical_entropy(torch.tensor([1e9, -1e9])) == 0


def test_gaussian_equals_torch_distributions():
    mean, log_std, action = (torch.randn(4, 3, 2, dtype=torch.float64) for _ in range(3))
    reference = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(actor_critic.gaussian_log_prob(mean, log_std, action), reference.log_prob(action))
    torch.testing.assert_close(actor_critic.gaussian_entropy(log_std), reference.entropy())


def test_reduce():
    x = torch.tensor([[1.0, float("nan")], [3.0, 5.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert actor_critic.reduce(x, mask) == 9.0
    assert actor_critic.reduce(x, mask, "mean") == 3.0
    assert actor_critic.reduce(torch.ones(2, 2), None, "mean") == 1.0
    assert actor_critic.reduce(x, torch.zeros_like(mask), "mean") == 0.0
    with pytest.raises(ValueError, match="reduction: expected 'sum' or 'mean', got 'median'"):
        actor_critic.reduce(x, mask, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask: expected shape \[2, 2\], got \[2\]"):
        actor_critic.reduce(x, mask[0])


def test_gradients_reach_only_what_is_trained():
    log_prob, advantage, value, target = (torch.randn(3, 2, requires_grad=True) for _ in range(4))
    mask = torch.tensor([[True, True], [False, True], [True, True]])
    loss = actor_critic.policy_gradient_loss(log_prob, advantage, mask) + actor_critic.baseline_loss(
        value, target, mask
    )
    loss.backward()
    assert advantage.grad is None
    assert target.grad is None
    torch.testing.assert_close(log_prob.grad, -advantage.detach() * mask)
    torch.testing.assert_close(value.grad, (value - target).detach() * mask)


def test_worked_example_of_the_whole_loss():
    """Five rows, the episode ends after the third; every part of the sum is known."""
    d = torch.float64
    behaviour = torch.tensor([[0.2, -0.1, 0.4], [1, 0, -1], [0, 0, 0], [-0.5, 0.5, 0.1], [0.3, 0.3, -0.3]], dtype=d)
    logits = torch.tensor([[0.6, -0.3, 0.1], [0.5, 0.5, -1], [0.2, -0.2, 0], [-0.5, 0.9, 0.1], [0, 0, 0]], dtype=d)
    action = torch.tensor([0, 2, 1, 1, 0])
    log_prob = actor_critic.categorical_log_prob(logits, action)
    log_ratio = log_prob - actor_critic.categorical_log_prob(behaviour, action)
    value = torch.tensor([0.1, 0.4, -0.3, 0.8, 0.25], dtype=d)[:, None]
    out = vtrace(
        log_ratio=log_ratio[:, None],
        discount=torch.tensor([0.99, 0.99, 0, 0.99, 0.99], dtype=d)[:, None],
        reward=torch.tensor([0, 1, -1, 0.5, 1], dtype=d)[:, None],
        value=value,
        bootstrap_value=torch.tensor([1.2], dtype=d),
    )
    expected = {
        "ratio": ([1.4714721121, 1.1148164579, 0.8079224975, 1.2018210545, 0.8496038787], log_ratio.exp()),
        "target": ([0.1416786121, 0.1431097092, -0.8655457483, 2.3775669937, 1.8965323169], out.target[:, 0]),
        "advantage": ([0.0416786121, -0.2568902908, -0.5655457483, 1.5775669937, 1.6465323169], out.advantage[:, 0]),
        "policy": (1.3388690540, actor_critic.policy_gradient_loss(log_prob[:, None], out.advantage)),
        "baseline": (1.3968395030, 0.5 * actor_critic.baseline_loss(value, out.target)),
        "entropy": (-5.1093319297, actor_critic.entropy_loss(actor_critic.categorical_entropy(logits)[:, None])),
    }
    for name, (known, got) in expected.items():
        torch.testing.assert_close(got, torch.tensor(known, dtype=d), rtol=0, atol=2e-10, msg=name)


def test_actions_of_several_components_are_those_of_one_of_their_product() -> None:
    """Against the joint distribution, enumerated."""
    torch.manual_seed(0)
    choices = (2, 3, 4)
    logits = torch.randn(5, sum(choices), dtype=torch.float64, requires_grad=True)
    probs = [part.softmax(-1) for part in logits.split(choices, -1)]
    joint = torch.einsum("ba,bc,bd->bacd", *probs)
    for action in itertools.product(*map(range, choices)):
        chosen = torch.tensor(action).expand(5, 3)
        got = actor_critic.multi_categorical_log_prob(logits, chosen, choices)
        torch.testing.assert_close(got, joint[:, action[0], action[1], action[2]].log())
    entropy = -(joint * joint.log()).sum((1, 2, 3))
    torch.testing.assert_close(actor_critic.multi_categorical_entropy(logits, choices), entropy)
    with pytest.raises(ValueError, match="action"):
        actor_critic.multi_categorical_log_prob(logits, torch.zeros(5, 2, dtype=torch.int64), choices)

"""Masks: the best legal action, and each legal one drawn as often as any other."""

from __future__ import annotations

import pytest
import torch

from offbeat.algorithms import actor_critic
from offbeat.algorithms.legal import FORBIDDEN, draw_legal, mask_illegal


def test_the_values_of_actions_that_are_not_allowed_are_never_the_largest() -> None:
    q = torch.tensor([[-1e20, 5.0, 7.0], [1.0, 2.0, 3.0]])
    legal = torch.tensor([[True, False, False], [False, False, False]])
    assert mask_illegal(q, legal).argmax(-1).tolist() == [0, 2]
    assert torch.equal(mask_illegal(q, legal)[1], q[1]), "where nothing is legal, everything is"
    assert mask_illegal(q, None) is q
    assert torch.isfinite(mask_illegal(q, legal).bfloat16()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_policies_of_masked_logits_are_those_of_the_legal_actions_alone(dtype: torch.dtype) -> None:
    """Log-probability, entropy and gradient, by hand from the logits of the legal actions; nothing flows elsewhere."""
    logits = torch.tensor([[0.5, 9.0, -1.0, 2.0], [3.0, 0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    legal = torch.tensor([[True, False, True, False], [True, False, False, False]])
    masked = mask_illegal(logits, legal)
    log_prob = actor_critic.categorical_log_prob(masked, torch.tensor([2, 0]))
    entropy = actor_critic.categorical_entropy(masked)
    p = torch.tensor([0.5, -1.0], dtype=dtype).softmax(-1)
    torch.testing.assert_close(log_prob, torch.stack([p[1].log(), torch.zeros((), dtype=dtype)]))
    torch.testing.assert_close(entropy, torch.stack([-(p * p.log()).sum(), torch.zeros((), dtype=dtype)]))
    (log_prob.sum() + entropy.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[~legal] == 0).all()
    slope = p.log() - (p * p.log()).sum()  # of the entropy: -p_a (log p_a + H)
    expected = torch.tensor([0.0, 1.0], dtype=dtype) - p - p * slope
    torch.testing.assert_close(logits.grad[0, [0, 2]], expected)


def test_each_legal_action_is_drawn_alike() -> None:
    legal = torch.tensor([[False, True, False, True, True], [True] * 5, [False, False, True, False, False]])
    uniform = (torch.arange(30) + 0.5) / 30
    for mask in legal:
        action = draw_legal(mask.expand(30, 5), uniform)
        assert torch.bincount(action, minlength=5).tolist() == (mask * (30 // mask.sum())).tolist()
    assert draw_legal(legal[0], torch.tensor(1.0)).item() == 4, "never past the last one"
    assert draw_legal(legal[0], torch.tensor(0.0)).item() == 1


def test_where_nothing_is_legal_everything_is() -> None:
    action = draw_legal(torch.zeros(4, 4, dtype=torch.bool), torch.tensor([0.0, 0.3, 0.6, 0.9]))
    assert action.tolist() == [0, 1, 2, 3]


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match="uniform"):
        draw_legal(torch.ones(3, 4, dtype=torch.bool), torch.zeros(2))
    assert FORBIDDEN == -1e30

"""CLEAR's two losses: worked numbers, gradients, what is held constant, shapes; and the platform's norm."""

from __future__ import annotations

import pytest
import torch

from offbeat.algorithms.clear import policy_cloning, value_cloning, value_cloning_norm
from tests.algorithms.worked import BEHAVIOUR_LOGITS, BEHAVIOUR_VALUE, FORWARD, LOGITS, VALUE, near, table


def test_worked_numbers() -> None:
    cloning = policy_cloning(BEHAVIOUR_LOGITS, LOGITS)
    near(cloning, FORWARD)
    near(cloning[:, 1].sum(), 1.999789619, 1e-9)
    values = value_cloning(BEHAVIOUR_VALUE, VALUE)
    near(values[:, 1].sum(), 0.49, 1e-12)
    near(values[0], table([0.0025, 0.09]), 1e-12)
    near(value_cloning_norm(BEHAVIOUR_VALUE, VALUE), 0.710633520, 1e-9)


def test_the_gradient_of_cloning_is_the_difference_of_the_policies() -> None:
    """d KL(mu || pi) / d logits = pi - mu; d (V - V_mu)^2 / d V = 2 (V - V_mu)."""
    logits, value = LOGITS.clone().requires_grad_(), VALUE.clone().requires_grad_()
    behaviour, noted = BEHAVIOUR_LOGITS.clone().requires_grad_(), BEHAVIOUR_VALUE.clone().requires_grad_()
    (policy_cloning(behaviour, logits).sum() + value_cloning(noted, value).sum()).backward()
    torch.testing.assert_close(logits.grad, LOGITS.softmax(-1) - BEHAVIOUR_LOGITS.softmax(-1))
    torch.testing.assert_close(value.grad, 2 * (VALUE - BEHAVIOUR_VALUE))
    assert behaviour.grad is None and noted.grad is None


def test_the_norm_has_a_gradient_of_length_one_or_none() -> None:
    value, noted = VALUE.clone().requires_grad_(), BEHAVIOUR_VALUE.clone().requires_grad_()
    value_cloning_norm(noted, value).backward()
    torch.testing.assert_close(value.grad, (VALUE - BEHAVIOUR_VALUE) / 0.5050**0.5)
    assert noted.grad is None
    value.grad = None
    value_cloning_norm(VALUE, value).backward()
    assert torch.equal(value.grad, torch.zeros_like(VALUE))


def test_the_norm_leaves_out_rows() -> None:
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    near(value_cloning_norm(BEHAVIOUR_VALUE, VALUE, mask), (0.05**2 + 0.05**2 + 0.2**2) ** 0.5, 1e-12)
    wild = BEHAVIOUR_VALUE.masked_fill(~mask, torch.inf)
    near(value_cloning_norm(wild, VALUE, mask), (0.05**2 + 0.05**2 + 0.2**2) ** 0.5, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_and_policies_far_apart(dtype: torch.dtype) -> None:
    near_one, other = torch.tensor([[[200.0, 0.0]]], dtype=dtype), torch.tensor([[[0.0, 200.0]]], dtype=dtype)
    found = policy_cloning(near_one, other)
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.tensor([[200.0]], dtype=dtype))
    assert value_cloning(VALUE.to(dtype), VALUE.to(dtype)).dtype == dtype


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"logits: expected shape \[3, 2, 3\], got \[3, 2, 4\]"):
        policy_cloning(BEHAVIOUR_LOGITS, torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match=r"behaviour_logits: expected 3 axes \[T, B, A\], got shape \[3, 2\]"):
        policy_cloning(VALUE, VALUE)
    with pytest.raises(ValueError, match=r"value: expected shape \[3, 2\], got \[2\]"):
        value_cloning(BEHAVIOUR_VALUE, torch.zeros(2))
    with pytest.raises(ValueError, match=r"mask: expected shape \[3, 2\], got \[2\]"):
        value_cloning_norm(BEHAVIOUR_VALUE, VALUE, torch.ones(2, dtype=torch.bool))

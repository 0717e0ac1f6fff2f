"""Training in bfloat16 on the GPU: every weight that float32 trains is trained, in nearly the same direction."""

from __future__ import annotations

import pytest
import torch

from tests.cuda.twins import CASES, make, make_batch, make_work, on, quiet

pytestmark = pytest.mark.cuda

COSINE = 0.98
"""Least cosine of a gradient in bfloat16 with the processor's in float32, over all weights."""
RELATIVE = 0.1
"""Largest difference of a loss, relative to the processor's or, where that is below 1, to 1."""


@pytest.mark.parametrize("case", [case for case in CASES if case != "random"])
def test_gradients_are_near_those_in_float32(case: str, device: str) -> None:
    here, there = make(case), make(case, device)
    batch = make_batch(here)
    for agent in (here, there):
        quiet(agent)
    exact, rounded = make_work(here), make_work(there, precision="bf16")
    expected, got = exact.collect(batch), rounded.collect(batch.to(device))
    on(device, got.total, *got.feedback.values())
    assert got.total.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in (*got.metrics.values(), *got.feedback.values()))
    ours, theirs = got.total.item(), expected.total.item()
    assert abs(ours - theirs) <= RELATIVE * max(1.0, abs(theirs))
    one, other = exact.optimiser.gradient(), rounded.optimiser.gradient().cpu().float()
    assert torch.cosine_similarity(one, other, dim=0) > COSINE
    for name, parameter in here.network.named_parameters():  # rounding may lose a weight, but no layer
        rounded_grad = there.network.get_parameter(name).grad
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-3:
            assert rounded_grad is not None and rounded_grad.any(), name


@pytest.mark.parametrize("case", ["impala-images", "impala-lstm", "dqn-images", "rainbow", "r2d2"])
def test_updates_go_on_and_stay_finite(case: str, device: str) -> None:
    agent = make(case, device)
    work = make_work(agent, precision="bf16", learning_rate=1e-3)
    batch, before = make_batch(make(case)).to(device), work.optimiser.flat.clone()
    for _ in range(6):
        output = work.train_step(agent, batch)
        assert output is not None
        for state in work.states.values():
            state.trained(batch, work.updates)
    assert work.optimiser.flat.dtype == torch.float32 and work.optimiser.finite()
    assert work.updates == 6 and not torch.equal(work.optimiser.flat, before)

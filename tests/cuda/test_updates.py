"""An update on the GPU is the processor's: the same weights and batch, in float32 without TF32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offbeat.networks.noisy import NoisyLinear
from offbeat.runtime.master import SharedMaster
from offbeat.runtime.share import Share
from offbeat.types import LossOutput
from tests.cuda import twins
from tests.cuda.twins import CASES, as_on_a_gpu, make, make_batch, make_work, near, near_in_norm, on, quiet, sees_images

pytestmark = pytest.mark.cuda


def same_losses(got: LossOutput, expected: LossOutput) -> None:
    """Total, count, metrics and feedback."""
    near(got.total, expected.total, twins.LOSS)
    count, wanted = (0.0 if output.count is None else float(output.count) for output in (got, expected))
    assert count == wanted
    for names in ("metrics", "feedback"):
        ours, theirs = getattr(got, names), getattr(expected, names)
        assert ours.keys() == theirs.keys()
        for name in ours:
            near(ours[name], theirs[name], twins.LOSS)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradients_are_the_processors(case: str, device: str) -> None:
    here, there = make(case), make(case, device)
    batch = make_batch(here)
    for agent in (here, there):
        quiet(agent)
    works = make_work(here), as_on_a_gpu(make_work(there), there)
    expected, got = works[0].collect(batch), works[1].collect(batch.to(device))
    on(device, got.total, *got.metrics.values(), *got.feedback.values(), works[1].optimiser.gradient())
    same_losses(got, expected)
    gradient = works[0].optimiser.gradient()
    most = twins.IMAGE_GRADIENT if sees_images(here) else twins.GRADIENT
    near_in_norm(works[1].optimiser.gradient(), gradient, most)
    assert case == "random" or gradient.norm() > 1e-3


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("case", ["impala-lstm", "impala-images", "dqn", "rainbow", "r2d2"])
def test_updates_lead_to_the_processors_weights_and_statistics(case: str, optimizer: str, device: str) -> None:
    here, there = make(case), make(case, device)
    batches = [make_batch(here, seed) for seed in (0, 1)]
    options = {"optimizer": optimizer, "epsilon": 1e-2, "rmsprop_momentum": 0.5, "clip_norm": 0.5}
    works = make_work(here, **options), as_on_a_gpu(make_work(there, **options), there)
    before = works[0].optimiser.flat.clone()
    for batch in batches:
        for agent, work in zip((here, there), works, strict=True):
            quiet(agent)
            own: Any = batch.to(work.device)
            assert work.train_step(agent, own) is not None
            for state in work.states.values():
                state.trained(own, work.updates)
    expected = works[0].optimiser.flat - before
    most = twins.IMAGE_STEP if sees_images(here) else twins.STEP
    near_in_norm(works[1].optimiser.flat.cpu() - before, expected, most)
    ours, theirs = (work.optimiser.state() for work in works)
    for name, value in ours.items():
        near_in_norm(theirs[name], value, most)
    assert works[1].updates == 2 and works[1].optimiser.finite()


def test_learners_that_take_turns_at_a_master_on_the_processor_do_what_one_does(device: str) -> None:
    """Without staleness; the weights go to the master and back, which changes no bit of them."""
    batches = [make_batch(make("dqn"), seed).to(device) for seed in range(4)]
    agents = [make("dqn", device) for _ in range(3)]
    alone, *works = (as_on_a_gpu(make_work(agent, optimizer="adam", epsilon=1e-2), agent) for agent in agents)
    master = SharedMaster(len(alone.optimiser.flat), len(alone.optimiser.vectors()), 2, None)
    for work in works:
        work.share = Share(master.store(), work.optimiser)
    assert works[0].share is not None and works[1].share is not None
    works[0].share.begin(works[0].counters())
    works[1].load_counters(works[1].share.take() or {})
    for number, batch in enumerate(batches):
        assert alone.train_step(agents[0], batch) is not None
        work = works[number % 2]
        output = work.gradient(batch)
        loss, count = output.total.detach(), output.count
        with work.turn():
            assert work.apply(batch, output, loss, count)
            work.commit()
    on(device, *works[1].optimiser.vectors())
    near_in_norm(works[1].optimiser.flat, alone.optimiser.flat.cpu(), twins.STEP)
    held = [torch.zeros(len(alone.optimiser.flat)) for _ in range(3)]
    assert master.store().read(held)[1] == alone.counters() | {"steps": 4}
    assert all(torch.equal(one, two.cpu()) for one, two in zip(held, works[1].optimiser.vectors(), strict=True))
    master.close()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_changes_nothing(wrong: float, device: str) -> None:
    agent = make("impala", device)
    batch = make_batch(make("impala")).to(device)
    work = as_on_a_gpu(make_work(agent), agent)
    assert work.train_step(agent, batch) is not None
    before = {"flat": work.optimiser.flat.clone()} | work.optimiser.state()
    batch.reward[0, 0] = wrong
    assert work.train_step(agent, batch) is None
    after = {"flat": work.optimiser.flat} | work.optimiser.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (work.updates, work.skipped) == (1, 1)


def test_noise_is_drawn_on_the_device_anew_for_each_forward(device: str) -> None:
    agent = make("rainbow", device)
    layers = [layer for layer in agent.network.modules() if isinstance(layer, NoisyLinear)]
    assert layers
    x = torch.ones(2, layers[0].weight.shape[1], device=device)
    torch.manual_seed(5)
    first, second = layers[0](x), layers[0](x)
    torch.manual_seed(5)
    on(device, first)
    assert torch.equal(layers[0](x), first) and not torch.equal(first, second)

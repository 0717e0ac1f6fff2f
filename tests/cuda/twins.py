"""The same agent on the processor and on the device, batches for it, and how far what they give may differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from offbeat.agents import apex, dqn, impact, impala, r2d2, rainbow
from offbeat.agents import random as random_agent
from offbeat.networks.noisy import set_noise
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.types import LEGAL, Batch, EnvSpec
from tests.agents.items import any_inputs, make_sequence, make_transition, masked_spec, plain, unlike
from tests.agents.unrolls import BOX, make_spec, make_unroll, with_episode_ends

LOSS = 1e-4
"""Losses, metrics and priorities in float32: largest difference to the processor's, relative to the largest of them."""
GRADIENT, IMAGE_GRADIENT = 1e-4, 5e-3
"""Gradients in float32: norm of the difference, relative to the processor's norm. Images go through half a million
ReLUs: one whose input is nearly zero may fall on the other side, and its gradient with it."""
STEP, IMAGE_STEP = 1e-3, 1e-2
"""The change of the weights by two updates, and the optimiser's statistics, likewise: they have roots and divisions."""
OUTPUT = 1e-4
"""What networks give in float32 (logits, values, states): largest difference."""

SEQUENCES = {"core_size": 5, "length": 4, "burn_in": 2, "period": 2, "n_step": 2}
COLUMNS: list[tuple[int, int | None, str]] = [(2, None, ""), (0, 5, "truncated"), (0, None, ""), (0, 6, "terminated")]

Maker = tuple[Any, Any, EnvSpec]
"""The agent's module, its configuration, and the environment."""
IMAGES: dict[str, Any] = {"torso": "nature", "centered_filters": True, "feature_size": 16}
TERMS: dict[str, Any] = {
    "policy_cloning_cost": 1.0, "value_cloning_cost": 1.0, "trust_region": 1.0, "entropy_on": "online",
}  # fmt: skip
CASES: dict[str, Maker] = {
    "impala": (impala, impala.Config(hidden_size=(8,), reduction="mean"), make_spec()),
    "impala-lstm": (
        impala,
        impala.Config(hidden_size=(8,), core="lstm", core_size=5, last_action=True, last_reward=True),
        masked_spec("dictionary"),
    ),
    "impala-images": (impala, impala.Config(**IMAGES), make_spec("image")),
    "impala-resnet": (impala, impala.Config(torso="resnet", feature_size=16), make_spec("grid")),
    "impala-box": (impala, impala.Config(hidden_size=(8,)), make_spec("vector", BOX)),
    "impala-replay": (impala, impala.Config(hidden_size=(8,), **TERMS), masked_spec()),
    "impala-replay-box": (impala, impala.Config(hidden_size=(8,), **TERMS), make_spec("vector", BOX)),
    "impact": (impact, impact.Config(hidden_size=(8,), kl_cost=1.0), masked_spec()),
    "impact-box": (impact, impact.Config(hidden_size=(8,), core="lstm", core_size=5), make_spec("vector", BOX)),
    "dqn": (dqn, dqn.Config(hidden_size=(8,), double=True), masked_spec()),
    "dqn-images": (dqn, dqn.Config(**IMAGES, double=True), make_spec("image")),
    "apex": (apex, apex.Config(hidden_size=(8,), head_size=6), make_spec()),
    "rainbow": (rainbow, rainbow.Config(hidden_size=(8,), head_size=6, atoms=7), masked_spec()),
    "r2d2": (r2d2, r2d2.Config(hidden_size=(8,), head_size=6, **SEQUENCES), masked_spec()),
    "random": (random_agent, random_agent.Config(), masked_spec()),
}
"""Every agent, with the parts of networks that there are."""


def make(case: str, device: str = "cpu") -> Any:
    """An agent, its target network unlike the online one; the same weights each time and everywhere."""
    module, config, spec = CASES[case]
    torch.manual_seed(3)
    agent = module.Agent(config, spec, "cpu")
    made = agent if device == "cpu" else module.Agent(config, spec, device)
    made.network.load_state_dict(agent.network.state_dict())
    if hasattr(agent, "target"):
        unlike(agent)
        made.target.load_state_dict(agent.target.state_dict())
    return made


def sees_images(agent: Any) -> bool:
    """Whether there are pictures among its observations."""
    return any(len(spec.shape) == 3 for spec in agent.spec.observation.values())


def quiet(agent: Any) -> None:
    """Leave out the noise, which each device draws for itself."""
    set_noise(agent.network, None, quiet=True)
    if hasattr(agent, "target"):
        set_noise(agent.target, None, quiet=True)


def make_batch(agent: Any, seed: int = 0) -> Batch:
    """What ``agent``, on the processor, trains on: episodes end in it."""
    if agent.items.kind == "transition":
        return make_transition(agent, 12, seed)
    if agent.items.kind == "sequence":
        return make_sequence(agent, COLUMNS, seed)
    inputs, valid = with_episode_ends(plain(agent.spec), seed=seed)
    if LEGAL in agent.spec.observation:
        inputs.observation[LEGAL] = any_inputs(agent.spec, *inputs.shape, seed).observation[LEGAL]
    batch = make_unroll(agent, inputs, valid, seed=seed)
    batch.replayed = torch.arange(batch.stream.numel()) > 0
    return batch


def make_work(agent: Any, **options: Any) -> LearnerWork:
    """The learner's work with ``agent``."""
    changes: dict[str, Any] = {"schedule": "constant", "learning_rate": 1e-2} | options
    return LearnerWork(agent, LearnerConfig(**changes), total_frames=10**9)


def as_on_a_gpu(work: LearnerWork, agent: Any) -> LearnerWork:
    """``work`` with all gradients in one vector, as it has them on a GPU anyway."""
    if work.device.type == "cpu":
        work.optimiser = FlatOptimiser(agent.network, work.config, one_gradient=True)
    return work


def on(device: str, *tensors: Tensor) -> None:
    """All of these are on ``device``."""
    assert {tensor.device.type for tensor in tensors} == {torch.device(device).type}


def near(got: Tensor, expected: Tensor, most: float) -> None:
    """The largest difference is at most ``most`` times the largest magnitude (where that is below 1, times 1)."""
    got, expected = got.detach().cpu().double(), expected.detach().double()
    assert got.shape == expected.shape
    size = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(got, expected, rtol=0, atol=most * size)


def near_in_norm(got: Tensor, expected: Tensor, most: float) -> None:
    """The norm of the difference is at most ``most`` times the norm."""
    got, expected = got.detach().cpu().double(), expected.detach().double()
    assert float((got - expected).norm()) <= most * float(expected.norm()) + 1e-9

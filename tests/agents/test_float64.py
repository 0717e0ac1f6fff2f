"""Every agent computes in float64 where its parameters are: losses and gradients agree with those in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offbeat.agents import dqn, impact, impala, r2ac, r2d2, rainbow
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from tests.agents.items import make_sequence, make_transition, unlike
from tests.agents.unrolls import BOX, DISCRETE, make_inputs, make_spec, make_unroll


def impala_agent(observation: str, module: Any = impala, action: Any = DISCRETE, **options: Any) -> tuple[Any, Any]:
    """An agent and an unroll, the first column of which is replayed."""
    agent = module.Agent(module.Config(hidden_size=(8,), **options), make_spec(observation, action))
    valid = torch.ones(6, 3, dtype=torch.bool)
    valid[3, 1] = False
    first = torch.zeros(6, 3, dtype=torch.bool)
    first[4, 1] = True
    batch = make_unroll(agent, make_inputs(agent.spec, 6, 3, first), valid)
    batch.replayed = torch.tensor([True, False, False])
    return agent, batch


def r2ac_agent(core: str, **options: Any) -> tuple[Any, Any]:
    """An agent and an unroll."""
    agent = r2ac.Agent(r2ac.Config(hidden_size=(8,), core=core, core_size=5, **options), make_spec())  # type: ignore
    valid = torch.ones(6, 3, dtype=torch.bool)
    valid[3, 1] = False
    first = torch.zeros(6, 3, dtype=torch.bool)
    first[4, 1] = True
    return agent, make_unroll(agent, make_inputs(agent.spec, 6, 3, first), valid)


def q_agent(module: Any, **options: Any) -> tuple[Any, Any]:
    """An agent and what it trains on."""
    agent = module.Agent(module.Config(hidden_size=(8,), head_size=6, **options), make_spec())
    columns = [(2, None, "terminated"), (0, 5, "truncated")]
    return agent, make_sequence(agent, columns) if module is r2d2 else make_transition(agent)


SEQUENCES = {"core_size": 5, "length": 4, "burn_in": 2, "period": 2, "n_step": 2}
TERMS = {"policy_cloning_cost": 1.0, "value_cloning_cost": 1.0, "trust_region": 1.0, "entropy_on": "online"}
CASES: dict[str, Any] = {
    "impala": lambda: impala_agent("vector", reduction="mean"),
    "impala-lstm": lambda: impala_agent("vector", core="lstm", core_size=5, last_action=True, last_reward=True),
    "impala-images": lambda: impala_agent("dictionary", torso="nature"),
    "impala-replay": lambda: impala_agent("vector", **TERMS),
    "impala-replay-box": lambda: impala_agent("vector", action=BOX, **TERMS),
    "impact": lambda: impala_agent("vector", impact, kl_cost=1.0),
    "impact-lstm": lambda: impala_agent("vector", impact, BOX, core="lstm", core_size=5, last_action=True),
    "r2ac-elstm": lambda: r2ac_agent("elstm-rtrl"),
    "r2ac-rtu": lambda: r2ac_agent("rtu", core_layers=2),
    "dqn": lambda: q_agent(dqn),
    "rainbow": lambda: q_agent(rainbow, atoms=7, noisy_sigma=0.0),
    "r2d2": lambda: q_agent(r2d2, **SEQUENCES),
}


def made(case: str) -> tuple[Any, Any]:
    """The same agent and batch each time."""
    torch.manual_seed(3)
    agent, batch = CASES[case]()
    if hasattr(agent, "target"):
        unlike(agent)
    return agent, batch


@pytest.mark.parametrize("case", list(CASES))
def test_losses_and_gradients_are_float64_and_agree_with_float32(case: str) -> None:
    (single, batch), (double, _) = made(case), made(case)
    double.network.double()
    if hasattr(double, "target"):
        double.target.double()
    losses = []
    for agent in (single, double):
        loss = agent.loss(batch, 0.0).loss
        loss.backward()
        losses.append(loss)
    assert losses[1].dtype == torch.float64
    torch.testing.assert_close(losses[1].float(), losses[0], rtol=1e-4, atol=1e-5)
    for (name, one), other in zip(single.network.named_parameters(), double.network.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad.dtype == torch.float64
            torch.testing.assert_close(other.grad.float(), one.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("case", list(CASES))
def test_a_learner_trains_in_float64(case: str, optimizer: Any) -> None:
    config = LearnerConfig(optimizer=optimizer, learning_rate=1e-3, schedule="constant", epsilon=1e-3)
    (single, batch), (double, _) = made(case), made(case)
    double.network.double()
    works = [LearnerWork(agent, config, total_frames=100) for agent in (single, double)]
    for _ in range(3):
        for agent, work in zip((single, double), works, strict=True):
            assert work.train_step(agent, batch) is not None
    assert works[1].optimiser.flat.dtype == torch.float64
    assert all(value.dtype == torch.float64 for name, value in works[1].optimiser.state().items() if name != "step")
    torch.testing.assert_close(works[1].optimiser.flat.float(), works[0].optimiser.flat, rtol=1e-3, atol=1e-4)

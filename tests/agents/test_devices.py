"""No agent mixes devices: torch's ``meta`` device computes nothing, but refuses tensors that lie elsewhere."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from offbeat.agents import rainbow
from offbeat.networks.lstm import LSTMCore
from offbeat.types import Inputs
from tests.agents.unrolls import make_spec, row
from tests.cuda.twins import CASES, make, make_batch, on

torch.compile(torch.neg, backend="eager")(torch.zeros(1))  # lists functions of torch before any is replaced


@pytest.fixture(autouse=True)
def knows_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast does not know the device, and where episodes start cannot be read from it."""
    autocast, enabled = torch.autocast, torch.is_autocast_enabled

    def switched(device: str, *rest: Any, **options: Any) -> Any:
        return nullcontext() if device == "meta" else autocast(device, *rest, **options)

    monkeypatch.setattr(torch, "autocast", switched)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device != "meta" and enabled(device))
    monkeypatch.setattr(LSTMCore, "_segments", LSTMCore._rows)


def on_meta(case: str) -> tuple[Any, Any]:
    """An agent there, and a batch for it."""
    module, config, spec = CASES[case]
    return module.Agent(config, spec, "meta"), make_batch(make(case)).to("meta")


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradients_stay_on_the_device(case: str) -> None:
    agent, batch = on_meta(case)
    output = agent.loss(batch, 0.5)
    on("meta", output.total, *output.metrics.values(), *output.feedback.values())
    output.total.backward()
    gradients = [parameter.grad for parameter in agent.network.parameters()]
    assert None not in gradients
    on("meta", *gradients)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_acting_stays_on_the_device(case: str, greedy: bool) -> None:
    agent, batch = on_meta(case)
    inputs: Inputs = row(batch.inputs, 0)
    inputs = replace(inputs, epsilon=torch.zeros(inputs.shape, device="meta"))
    with torch.no_grad():
        output = agent.act(inputs, agent.initial_state(inputs.shape[1]), None, greedy)
    on("meta", output.action, *output.extras.values(), *output.state.values())


def test_a_tensor_that_stays_behind_is_found() -> None:
    agent = rainbow.Agent(rainbow.Config(hidden_size=(8,), head_size=6, atoms=7), make_spec(), "meta")
    batch = make_batch(make("rainbow")).to("meta")
    agent.support = torch.linspace(-10, 10, 7)
    with pytest.raises(RuntimeError, match="meta"):
        agent.loss(batch, 0.0)

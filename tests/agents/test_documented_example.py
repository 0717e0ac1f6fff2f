"""The agent printed in docs/adding_an_algorithm.md works as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch

from offbeat.types import LEGAL
from tests.agents.items import any_inputs, masked_spec
from tests.agents.unrolls import make_spec, make_unroll, with_episode_ends

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding_an_algorithm.md"


def test_the_documented_agent_acts_and_learns(tmp_path, monkeypatch):
    source = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S).group(1)
    file = tmp_path / "reinforce.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("reinforce", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reinforce", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    agent = module.Agent(module.Config(), make_spec("grid"))
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    optimiser = torch.optim.Adam(agent.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = agent.loss(batch, 0.0).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(weight.grad.abs().sum() > 0 for weight in agent.network.parameters())
    assert min(losses) < losses[0]
    masked = module.Agent(module.Config(), masked_spec())
    inputs = any_inputs(masked.spec, 1, 100)
    for greedy in (False, True):
        action = masked.act(inputs, {}, torch.Generator().manual_seed(0), greedy).action
        assert inputs.observation[LEGAL][0].gather(-1, action[:, None]).all()

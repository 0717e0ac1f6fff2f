"""``offbeat export``: the network that acted and trained, as a torch.export program that runs without offbeat.

    program = torch.export.load("policy.pt2").module()
    output = program(observation, first, state)          # keyword dicts of tensors, one row (T = 1), any batch

The file carries ``offbeat.json``: names, shapes and dtypes of inputs and outputs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.agents.base import Agent
from offbeat.agents.q_agent import QAgent
from offbeat.algorithms.legal import FORBIDDEN, mask_illegal
from offbeat.networks.heads import legal_actions
from offbeat.networks.noisy import set_noise
from offbeat.types import LEGAL, CoreState, TensorDict

DESCRIPTION = "offbeat.json"


class ExportedNetwork(nn.Module):
    """The agent's network with plain outputs: ``policy`` [1, B, ...], ``value`` [1, B] and the next ``state``.

    Of a value-based agent: ``q`` [1, B, A], the action values, and ``state``. Where the observation has a mask of
    actions, logits or values of those that are not legal are -1e30, so that the largest is always a legal one's.
    """

    def __init__(self, network: nn.Module, values: Callable[[Tensor], Tensor] | None = None) -> None:
        """``network`` is shared, not copied. ``values``: from a value-based network's output to action values."""
        super().__init__()
        self.network, self.values = network, values

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
    ) -> dict[str, Any]:
        """One row for B environments; last action and reward only where the network reads them."""
        output = self.network(observation, first, state, last_action, last_reward)._asdict()
        if self.values is None:
            return dict(output)
        return {"q": mask_illegal(self.values(output["value"]), legal_actions(observation)), "state": output["state"]}


def export_run(run: Path, out: Path | None = None, **own: Any) -> Path:
    """Write the network of ``run`` with its newest weights to ``out`` (``RUN/policy.pt2``) and return the path.

    ``own``: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.run.load import load_agent, run_config

    config = run_config(run)
    agent, _ = load_agent(run, config, device="cpu", **own)
    path = out or run / "policy.pt2"
    export_agent(agent, path, {"run": run.name, "agent": config.agent_name, "env": config.env.id})
    return path


def export_agent(agent: Agent, path: Path, about: dict[str, Any] | None = None) -> None:
    """Write an agent's network to ``path``; ``about`` joins the description. Raises ``UserError`` if it has none."""
    from offbeat.errors import UserError, called

    if not hasattr(agent.network, "initial_state"):
        raise UserError(
            f"agent {called(type(agent))} cannot be exported: its network must have a method "
            "initial_state(batch), as offbeat.networks.encoder.Encoder has"
        )
    inputs = example_inputs(agent, batch=2)
    module = ExportedNetwork(agent.network, agent.values if isinstance(agent, QAgent) else None).eval()
    set_noise(agent.network, None, quiet=True)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = _dynamic(inputs, batch)
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    set_noise(agent.network, None)
    description = {**(about or {}), **describe(agent, inputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description, indent=1)})


def example_inputs(agent: Agent, batch: int) -> tuple[Any, ...]:
    """Zero inputs for one row: observation, first, state and, where the network reads them, last action and reward."""
    spec = agent.spec
    observation = {
        key: torch.zeros(1, batch, *array.shape, dtype=getattr(torch, array.dtype))
        for key, array in spec.network_observation.items()
    }
    inputs: tuple[Any, ...] = (observation, torch.ones(1, batch, dtype=torch.bool), agent.initial_state(batch))
    if agent.wants_last:
        action = spec.action.array
        last_action = torch.zeros(1, batch, *action.shape, dtype=getattr(torch, action.dtype))
        inputs += (last_action, torch.zeros(1, batch))
    return inputs


def describe(agent: Agent, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """What goes in and comes out, for those who load the file."""
    observation, _, state, *last = inputs
    named = {"first": inputs[1], **dict(zip(("last_action", "last_reward"), last, strict=False))}
    shown = (
        {f"observation.{k}": v for k, v in observation.items()} | named | {f"state.{k}": v for k, v in state.items()}
    )
    choices = agent.spec.action.choices
    logits = "logits [1, B, A]" if choices else "mean and log_std joined [1, B, 2K]"
    if len(choices) > 1:
        logits += f", of components with {', '.join(map(str, choices))} choices one after the other"
    outputs = {"policy": logits, "value": "[1, B]"}
    if isinstance(agent, QAgent):
        outputs = {"q": "[1, B, A], the best is the action"}
    if LEGAL in agent.spec.observation and choices:
        name = next(iter(outputs))
        outputs[name] += f"; {FORBIDDEN:g} where observation.{LEGAL} is False (unless all of it is)"
    return {
        "inputs": {name: {"shape": _shape(name, x), "dtype": str(x.dtype)[6:]} for name, x in shown.items()},
        "outputs": outputs | {"state": "as the input, for the next row"},
        "action": dataclasses.asdict(agent.spec.action),
        "order": ["observation", "first", "state", *list(named)[1:]],
    }


def _shape(name: str, tensor: Tensor) -> list[int | str]:
    """A tensor's shape with its batch axis as ``"B"``."""
    axis = 0 if name.startswith("state.") else 1
    return ["B" if i == axis else size for i, size in enumerate(tensor.shape)]


def _dynamic(inputs: tuple[Any, ...], batch: Any) -> Any:
    """The same structure with the batch axis of each tensor marked: axis 0 of states, axis 1 of all others."""
    observation, _, state, *last = inputs
    rows = {1: batch}
    return (dict.fromkeys(observation, rows), rows, {key: {0: batch} for key in state}, *(rows for _ in last))

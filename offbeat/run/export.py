"""``offbeat export``: the network that acted and trained, as a torch.export program that runs without offbeat.

    program = torch.export.load("policy.pt2").module()
    output = program(observation, first, state)          # tensors of one row (T = 1), any batch

Of a Gymnasium environment, ``observation`` is what ``reset`` gives: its dictionaries (keys sorted) and tuples, each
array as a tensor [1, B, ...] of its space's dtype. Of others (Atari, toys) it is a dictionary, as the agent's
``spec.network_observation`` says. ``first`` [1, B] bool is True where an episode starts, ``state`` zeros at first and
then ``output["state"]``.

``output["action"]`` [1, B, ...] is what ``step`` takes: the most probable action, or the best. Beside it: ``policy``
and ``value`` [1, B], or ``q``. If the network reads them, ``last_action`` and ``last_reward`` follow, the former as
``output["last_action"]`` gives it. If ``info`` holds a mask, ``action_mask=`` [1, B, A] bool does too.

The file carries ``offbeat.json``: names, shapes and dtypes of inputs and outputs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offbeat.agents.base import Agent
from offbeat.agents.q_agent import QAgent
from offbeat.algorithms.legal import FORBIDDEN
from offbeat.envs.spaces import MASK, Translator
from offbeat.networks.noisy import set_noise
from offbeat.run.exported import ExportedNetwork, OwnAction, OwnObservation, example
from offbeat.run.written import draft_of, written
from offbeat.types import LEGAL, ArraySpec

DESCRIPTION = "offbeat.json"


def export_run(run: Path, out: Path | None = None, **own: Any) -> Path:
    """Write the network of ``run`` with its newest weights to ``out`` (``RUN/policy.pt2``) and return the path.

    ``own``: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.envs.registry import translator
    from offbeat.run.load import load_agent, run_config

    config = run_config(run)
    agent, _ = load_agent(run, config, device="cpu", **own)
    path = out or run / "policy.pt2"
    draft_of(path).unlink()  # says at once where it cannot be written
    about = {"run": run.name, "agent": config.agent_name, "env": config.env.id}
    export_agent(agent, path, about, translator(config.eval_env, own.get("env_factory")))
    return path


def export_agent(
    agent: Agent, path: Path, about: dict[str, Any] | None = None, translator: Translator | None = None
) -> None:
    """Write an agent's network to ``path``; ``about`` joins the description. Raises ``UserError`` if it has none.

    ``translator``: of the environment's own spaces, which the file then speaks in; None: in offbeat's terms.
    """
    from offbeat.errors import UserError, called

    if not hasattr(agent.network, "initial_state"):
        raise UserError(
            f"agent {called(type(agent))} cannot be exported: its network must have a method "
            "initial_state(batch), as offbeat.networks.encoder.Encoder has"
        )
    inputs = example_inputs(agent, 2, translator)
    given = {name: inputs[name] for name in inputs if name != MASK}
    terms = (OwnObservation(translator), OwnAction(translator.action_space)) if translator is not None else ()
    module = ExportedNetwork(agent, *terms).eval()
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = {name: _mapped(value, {0 if name == "state" else 1: batch}) for name, value in inputs.items()}
    set_noise(agent.network, None, quiet=True)
    program = _exported(agent, module, given, {name: inputs[name] for name in inputs.keys() - given.keys()}, shapes)
    set_noise(agent.network, None)
    description = {**(about or {}), **describe(agent, inputs, translator)}
    with written(path) as draft:
        torch.export.save(program, draft, extra_files={DESCRIPTION: json.dumps(description, indent=1)})


def _exported(
    agent: Agent, module: ExportedNetwork, given: dict[str, Any], named: dict[str, Any], shapes: dict[str, Any]
) -> torch.export.ExportedProgram:
    """What torch makes of ``module``. ``UserError`` for a network of the user's that takes or gives something else."""
    from offbeat.errors import UserError, called

    try:
        with torch.no_grad():
            module(*given.values(), **named)
    except Exception as error:
        raise UserError(
            f"agent {called(type(agent))} cannot be exported: its network must be called as network(observation, "
            "first, state, last_action, last_reward) and give a named tuple with policy or value, and state, as "
            f"offbeat.networks.encoder.Encoder's do: {type(error).__name__}: {error}"
        ) from error
    with torch.no_grad():
        return torch.export.export(module, tuple(given.values()), named, dynamic_shapes=shapes, strict=False)


def example_inputs(agent: Agent, batch: int, translator: Translator | None = None) -> dict[str, Any]:
    """Zero inputs for one row by their names, in their order."""
    spec = agent.spec
    observation: Any = {key: _zeros(array, batch) for key, array in spec.network_observation.items()}
    if translator is not None:
        observation = example(translator.observation_space, batch)
    inputs = {
        "observation": observation,
        "first": torch.ones(1, batch, dtype=torch.bool),
        "state": agent.initial_state(batch),
    }
    if agent.wants_last:
        inputs |= {"last_action": _zeros(spec.action.array, batch), "last_reward": torch.zeros(1, batch)}
    if translator is not None and LEGAL in spec.observation and LEGAL not in translator.leaves:
        inputs[MASK] = _zeros(spec.observation[LEGAL], batch)
    return inputs


def describe(agent: Agent, inputs: dict[str, Any], translator: Translator | None = None) -> dict[str, Any]:
    """What goes in and comes out, for those who load the file."""
    shown = {path: tensor for name, value in inputs.items() for path, tensor in _tensors(value, name)}
    choices = agent.spec.action.choices
    logits = "logits [1, B, A]" if choices else "mean and log_std joined [1, B, 2K]"
    if len(choices) > 1:
        logits += f", of components with {', '.join(map(str, choices))} choices one after the other"
    outputs = {"policy": logits, "value": "[1, B]"}
    if isinstance(agent, QAgent):
        outputs = {"q": "[1, B, A], the best is the action"}
    if LEGAL in agent.spec.observation and choices:
        key = translator.leaves[LEGAL].key if translator is not None and LEGAL in translator.leaves else LEGAL
        mask = MASK if MASK in inputs else f"observation.{key}"
        outputs[next(iter(outputs))] += f"; {FORBIDDEN:g} where {mask} is False (unless all of it is)"
    outputs["action"] = "[1, B, ...], the most probable or best, as the environment takes it"
    if agent.wants_last:
        outputs["last_action"] = "as the input, for the next row"
    own = (
        {"observation": str(translator.observation_space), "action": str(translator.action_space)} if translator else {}
    )
    return {
        "inputs": {name: {"shape": _shape(name, x), "dtype": str(x.dtype)[6:]} for name, x in shown.items()},
        "outputs": outputs | {"state": "as the input, for the next row"},
        "action": dataclasses.asdict(agent.spec.action),
        "spaces": own,
        "order": list(inputs),
    }


def _zeros(spec: ArraySpec, batch: int) -> Tensor:
    return torch.from_numpy(spec.zeros(1, batch))


def _shape(name: str, tensor: Tensor) -> list[int | str]:
    """A tensor's shape with its batch axis as ``"B"``."""
    axis = 0 if name.startswith("state.") else 1
    return ["B" if i == axis else size for i, size in enumerate(tensor.shape)]


def _mapped(value: Any, one: Any) -> Any:
    """The same structure with ``one`` in place of each tensor."""
    if isinstance(value, dict):
        return {key: _mapped(part, one) for key, part in value.items()}
    return tuple(_mapped(part, one) for part in value) if isinstance(value, tuple) else one


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """(name joined with ".", tensor) of all in a structure."""
    if isinstance(value, Tensor):
        yield name, value
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _tensors(part, f"{name}.{key}")

"""``offbeat export``: the network that acted and trained, as a file that runs without offbeat.

    program = torch.export.load("policy.pt2").module()
    output = program(observation, first, state)          # tensors of one row (T = 1), any batch

Of a Gymnasium environment, ``observation`` is what ``reset`` gives: its dictionaries (keys sorted) and tuples, each
array as a tensor [1, B, ...] of its space's dtype. Of others (Atari, toys) it is a dictionary, as the agent's
``spec.network_observation`` says. ``first`` [1, B] bool is True where an episode starts, ``state`` zeros at first and
then ``output["state"]``.

``output["action"]`` [1, B, ...] is what ``step`` takes: the most probable action, or the best. Beside it: ``policy``
and ``value`` [1, B], or ``q``. If the network reads them, ``last_action`` and ``last_reward`` follow, the former as
``output["last_action"]`` gives it. If ``info`` holds a mask, ``action_mask=`` [1, B, A] bool does too.

The file carries ``offbeat.json``: names, shapes and dtypes of inputs and outputs. As ONNX (``run/export_onnx.py``) it
takes and gives the same tensors by their names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offbeat.agents.base import Agent
from offbeat.algorithms.legal import FORBIDDEN
from offbeat.envs.spaces import MASK, Translator
from offbeat.errors import UserError, called, unknown
from offbeat.networks.noisy import set_noise
from offbeat.run.export_onnx import OnnxFile, need_onnx, save_onnx
from offbeat.run.exported import (
    DESCRIPTION,
    ExportedNetwork,
    Flat,
    OwnAction,
    OwnObservation,
    example,
    mapped,
    tensors,
)
from offbeat.run.written import draft_of, written
from offbeat.types import LEGAL, ArraySpec

FORMATS = ("pt2", "onnx")
"""What files there are: torch.export's, and ONNX."""
PLACES = ("observation", "first", "state", "last_action", "last_reward")
"""Inputs in the order in which a program takes them; a mask follows by its name."""


def export_run(
    run: Path,
    out: Path | None = None,
    *,
    format: str | None = None,
    check: int = 100,
    checkpoint: Path | str | None = None,
    say: Callable[[str], object] = lambda text: None,
    **own: Any,
) -> Path:
    """Write the network of ``run`` with its newest weights to ``out`` (``RUN/policy.pt2``) and return the path.

    Args:
        format: one of ``FORMATS``; None: ONNX if ``out`` ends in .onnx, else pt2.
        check: observations of the run's environment on which the file must do what the agent does; 0: none.
        checkpoint: other weights than the newest, see ``offbeat.run.load.load_agent``.
        say: takes the line that says what was checked.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.

    UserError where the network cannot be written, or does not do what the agent does; nothing is left then.
    """
    from offbeat.envs.registry import specs_kept, translator
    from offbeat.run.export_check import check as compared
    from offbeat.run.load import load_agent, run_config

    format = chosen_format(format, out)
    if check < 0:
        raise UserError(f"check={check} is out of range; allowed: 0 or above")
    config, factory = run_config(run), own.get("env_factory")
    with specs_kept():
        agent, _ = load_agent(run, config, checkpoint=checkpoint, device="cpu", **own)
    path = out or run / f"policy.{format}"
    draft_of(path).unlink()  # says at once where it cannot be written
    about = {"run": run.name, "agent": config.agent_name, "env": config.env.id}
    terms = translator(config.eval_env, factory)
    with written(path) as draft:
        export_agent(agent, draft, about, terms, format)
        if check:
            verdict = compared(loaded(draft, format), agent, config.eval_env, check, terms, factory)
            say(f"{path.name} was {verdict}")
    return path


def chosen_format(format: str | None, out: Path | None) -> str:
    """One of ``FORMATS``, by its name or the end of the file's. UserError where both disagree, or something lacks."""
    ends = "" if out is None else out.suffix.removeprefix(".")
    chosen = format or ("onnx" if ends == "onnx" else "pt2")
    if chosen not in FORMATS:
        raise unknown("format", chosen, FORMATS)
    if ends in FORMATS and ends != chosen:
        raise UserError(f"{str(out)!r} is to be of the format {chosen!r}; let its name end in .{chosen}")
    if chosen == "onnx":
        need_onnx()
    return chosen


def loaded(path: Path, format: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An exported file as a function of its inputs by name."""
    if format == "onnx":
        return OnnxFile(path)
    program = torch.export.load(path).module()

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        given, named = _placed(inputs)
        output: dict[str, Any] = program(*given, **named)
        return output

    return call


def export_agent(
    agent: Agent,
    path: Path,
    about: dict[str, Any] | None = None,
    translator: Translator | None = None,
    format: str = "pt2",
) -> None:
    """Write an agent's network to ``path``; ``about`` joins the description. Raises ``UserError`` if it has none.

    ``translator``: of the environment's own spaces, which the file then speaks in; None: in offbeat's terms.
    """
    if not hasattr(agent.network, "initial_state"):
        raise UserError(
            f"agent {called(type(agent))} cannot be exported: its network must have a method "
            "initial_state(batch), as offbeat.networks.encoder.Encoder has"
        )
    inputs = example_inputs(agent, 2, translator)
    terms = (OwnObservation(translator), OwnAction(translator.action_space)) if translator is not None else ()
    module = ExportedNetwork(agent, *terms).eval()
    set_noise(agent.network, None, quiet=True)
    outputs = _tried(agent, module, inputs)
    program = _exported(module, inputs) if format == "pt2" else _exported_flat(module, inputs)
    set_noise(agent.network, None)
    description = {**(about or {}), **describe(agent, inputs, translator, values="q" in outputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "pt2":
        torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description, indent=1)})
    else:
        save_onnx(
            program, path, [name for name, _ in tensors(inputs)], [name for name, _ in tensors(outputs)], description
        )


def _tried(agent: Agent, module: ExportedNetwork, inputs: dict[str, Any]) -> dict[str, Any]:
    """What ``module`` gives. ``UserError`` for a network of the user's that takes or gives something else."""
    try:
        with torch.no_grad():
            output: dict[str, Any] = module(**inputs)
    except Exception as error:
        raise UserError(
            f"agent {called(type(agent))} cannot be exported: its network must be called as network(observation, "
            "first, state, last_action, last_reward) and give a named tuple with policy and value, or q, and state, as "
            f"offbeat.networks.encoder.Encoder's do: {type(error).__name__}: {error}"
        ) from error
    return output


@torch.no_grad()
def _exported(module: ExportedNetwork, inputs: dict[str, Any]) -> torch.export.ExportedProgram:
    """What torch makes of ``module``, which takes any batch."""
    given, named = _placed(inputs)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = {name: _batched(value, 0 if name == "state" else 1, batch) for name, value in inputs.items()}
    return torch.export.export(module, given, named, dynamic_shapes=shapes, strict=False)


@torch.no_grad()
def _exported_flat(module: ExportedNetwork, inputs: dict[str, Any]) -> torch.export.ExportedProgram:
    """The same of tensors one after the other."""
    batch = torch.export.Dim("batch", min=1, max=65_536)
    given = dict(tensors(inputs))
    shapes = {"given": tuple({0 if name.startswith("state.") else 1: batch} for name in given)}
    flat = Flat(module, inputs).eval()
    return torch.export.export(flat, tuple(given.values()), dynamic_shapes=shapes, strict=False)


def _placed(inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Those that are handed over by place, in their order, and those by name."""
    return tuple(inputs[name] for name in PLACES if name in inputs), {MASK: inputs[MASK]} if MASK in inputs else {}


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


def describe(
    agent: Agent, inputs: dict[str, Any], translator: Translator | None = None, *, values: bool
) -> dict[str, Any]:
    """What goes in and comes out, for those who load the file. ``values``: ``q`` comes out."""
    shown = {path: tensor for name, value in inputs.items() for path, tensor in tensors(value, name)}
    choices = agent.spec.action.choices
    logits = "logits [1, B, A]" if choices else "mean and log_std joined [1, B, 2K]"
    if len(choices) > 1:
        logits += f", of components with {', '.join(map(str, choices))} choices one after the other"
    outputs = {"policy": logits, "value": "[1, B]"}
    if values:
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


def _batched(value: Any, axis: int, batch: Any) -> Any:
    """The same structure with what ``torch.export`` is told of each tensor: where its batch lies."""
    return mapped(value, lambda _: {axis: batch})


def _zeros(spec: ArraySpec, batch: int) -> Tensor:
    return torch.from_numpy(spec.zeros(1, batch))


def _shape(name: str, tensor: Tensor) -> list[int | str]:
    """A tensor's shape with its batch axis as ``"B"``."""
    axis = 0 if name.startswith("state.") else 1
    return ["B" if i == axis else size for i, size in enumerate(tensor.shape)]

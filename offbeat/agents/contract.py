"""Whether an agent keeps to its protocol: asked of the made agent before a run starts, whoever wrote it.

See ``offbeat.agents.base.Agent`` for the protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.agents.base import Explores, learner_states, trains_on
from offbeat.errors import UserError, called, in_short
from offbeat.types import LEGAL, ActOutput, ArraySpec, Batch, EnvSpec, Inputs, LossOutput

ROWS = 2
"""Environments of the trial."""
KINDS = "biuf"
"""Kinds of NumPy dtypes that rows and states may have: bool, integers, floats."""


def check_agent(agent: Any, spec: EnvSpec) -> dict[str, ArraySpec]:
    """The specs of the agent's recurrent state, name -> spec of one environment's, if it keeps to its protocol.

    Raises UserError, naming what was expected and got, where a member of ``agent`` is none of the protocol's. ``act``
    is called once, on zeros. What it raises itself is raised here.
    """
    who = f"agent {called(type(agent))}"
    try:
        trains_on(agent)
        states = learner_states(agent)
    except ValueError as error:
        raise UserError(str(error)) from error
    for name, state in states.items():
        if missing := [member for member in ("exact", "trained", "state", "load_state") if not hasattr(state, member)]:
            raise UserError(f"{who}: learner_states: {name!r} has no {', '.join(missing)}; see agents/base.py")
    _check_members(agent, who)
    extras, core = _extras(agent, who), _state(agent, who)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        training = agent.network.training
        agent.network.eval()
        try:
            output = agent.act(_zeros(agent, spec), core, torch.Generator().manual_seed(0))
        finally:
            agent.network.train(training)
    if not isinstance(output, ActOutput):
        raise UserError(f"{who}: act: expected an offbeat.types.ActOutput, got {type(output).__name__}")
    _compare(who, "act: action", {"action": output.action}, {"action": spec.action.array})
    _compare(who, "act: extras, as row_extras declares them", output.extras, extras)
    known = {name: ArraySpec(tuple(value.shape[1:]), _dtype(value)) for name, value in core.items()}
    _compare(who, "act: state, as initial_state gives it", output.state, known)
    return known


def _check_members(agent: Any, who: str) -> None:
    if not isinstance(getattr(agent, "network", None), nn.Module):
        got = type(getattr(agent, "network", None)).__name__
        raise UserError(f"{who}: network: expected a torch.nn.Module, got {got}")
    discount = getattr(agent, "discount", None)
    if isinstance(discount, bool) or not isinstance(discount, int | float) or not 0 <= discount <= 1:
        raise UserError(f"{who}: discount: expected a number from 0 to 1, got {discount!r}")
    last = getattr(agent, "wants_last", None)
    if not isinstance(last, bool):
        raise UserError(f"{who}: wants_last: expected True or False, got {last!r}")


def _extras(agent: Any, who: str) -> dict[str, ArraySpec]:
    extras = agent.row_extras()
    if not isinstance(extras, Mapping) or not all(isinstance(spec, ArraySpec) for spec in extras.values()):
        raise UserError(f"{who}: row_extras: expected a dict name -> offbeat.types.ArraySpec, got {extras!r}")
    for name, spec in extras.items():
        try:
            fine = np.dtype(spec.dtype).kind in KINDS
        except TypeError:
            fine = False
        if not fine:
            raise UserError(
                f"{who}: row_extras: {name!r} has dtype {spec.dtype!r}; allowed are NumPy's numbers and bool, such as "
                "'float32'"
            )
    return dict(extras)


def _state(agent: Any, who: str) -> dict[str, Tensor]:
    state = agent.initial_state(ROWS)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{who}: initial_state: expected a dict name -> tensor [batch, ...], got {type(state).__name__}"
        )
    for name, value in state.items():
        if value.dim() < 1 or value.shape[0] != ROWS:
            raise UserError(
                f"{who}: initial_state({ROWS}): {name!r} has shape {list(value.shape)}; the batch comes first: "
                f"[{ROWS}, ...]"
            )
        if _dtype(value) is None:
            raise UserError(
                f"{who}: initial_state: {name!r} has dtype {value.dtype}; allowed are those that NumPy has, such as "
                "torch.float32"
            )
    return dict(state)


def _zeros(agent: Any, spec: EnvSpec) -> Inputs:
    """A first row of ``ROWS`` environments; every action is legal."""
    seen = {key: torch.from_numpy(array.zeros(1, ROWS)) for key, array in spec.network_observation.items()}
    if LEGAL in seen and spec.action.choices:
        seen[LEGAL] = torch.ones_like(seen[LEGAL])
    inputs = Inputs(seen, torch.ones(1, ROWS, dtype=torch.bool))
    if agent.wants_last:
        inputs.last_action = torch.from_numpy(spec.action.array.zeros(1, ROWS))
        inputs.last_reward = torch.zeros(1, ROWS)
    if isinstance(agent, Explores):
        inputs.epsilon = torch.zeros(1, ROWS)
    return inputs


def _compare(who: str, what: str, got: Any, wanted: Mapping[str, ArraySpec]) -> None:
    """``got`` [ROWS, ...] has the names, shapes and kinds of numbers of ``wanted``."""
    if not isinstance(got, Mapping) or got.keys() != wanted.keys():
        names = sorted(got) if isinstance(got, Mapping) else type(got).__name__
        raise UserError(f"{who}: {what}: expected {sorted(wanted)}, got {names}")
    for name, spec in wanted.items():
        value, shape = got[name], [ROWS, *spec.shape]
        if not isinstance(value, Tensor):
            raise UserError(f"{who}: {what}: {name!r}: expected a tensor {shape}, got {type(value).__name__}")
        given = _dtype(value)
        fits = given is not None and np.can_cast(given, spec.dtype, "same_kind")
        if list(value.shape) != shape or not fits:
            raise UserError(
                f"{who}: {what}: {name!r}: expected {spec.dtype} {shape}, got "
                f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
            )


def _dtype(value: Tensor) -> Any:
    """The NumPy name of a tensor's dtype; None if it has none."""
    name = str(value.dtype).removeprefix("torch.")
    try:
        return name if np.dtype(name).kind in KINDS else None
    except TypeError:
        return None


def check_output(output: Any, batch: Batch, reserved: Collection[str] = ()) -> None:
    """Raise TypeError or ValueError, naming what was expected and got, where a loss gave no ``LossOutput``.

    ``reserved``: names of metrics that are the learner's own.
    """
    if not isinstance(output, LossOutput):
        raise TypeError(f"loss: expected an offbeat.types.LossOutput, got {type(output).__name__}")
    total, count = output.total, output.count
    if not isinstance(total, torch.Tensor) or total.shape != () or not total.requires_grad:
        raise TypeError(f"LossOutput.total: expected a tensor [] with gradients, got {_said(total)}")
    if not (count is None or isinstance(count, int | float) or (isinstance(count, torch.Tensor) and count.dim() == 0)):
        raise TypeError(f"LossOutput.count: expected None, a number or a tensor [], got {_said(count)}")
    for name, value in output.metrics.items():
        if name in reserved:
            raise ValueError(f"LossOutput.metrics: {name!r} is what the learner reports itself; choose another name")
        if not isinstance(value, torch.Tensor) or value.dim() or value.requires_grad:
            raise TypeError(f"LossOutput.metrics[{name!r}]: expected a detached tensor [], got {_said(value)}")
    for name, value in output.feedback.items():
        if not isinstance(value, torch.Tensor) or value.shape != batch.row.shape or value.requires_grad:
            raise TypeError(
                f"LossOutput.feedback[{name!r}]: expected a detached tensor {list(batch.row.shape)}, got {_said(value)}"
            )


def _said(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return in_short(f"{type(value).__name__} {value!r}")
    return f"a tensor {list(value.shape)} {'with' if value.requires_grad else 'without'} gradients"

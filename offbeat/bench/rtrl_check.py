"""``offbeat diagnose rtrl``: how far the gradient of a configuration's core is from full backpropagation, in float64.

The weights are fixed while several unrolls are gone through, with episodes that start anywhere; so RTRL, truncated and
full backpropagation through time are of the same loss, and what differs is what each leaves out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.networks.stacked import Stacked
from offbeat.networks.traced import TracedCore
from offbeat.types import TensorDict

UNROLLS, BATCH, STARTS = 5, 4, 0.02
"""Unrolls gone through, episodes beside each other, share of rows that start one."""
EXACT = 1e-10
"""Largest difference that counts as none, as a share of the parameter's largest gradient."""


@dataclass(frozen=True)
class Difference:
    """Of one parameter's gradient from that of full backpropagation, as a share of the largest number in that."""

    name: str
    rtrl: float
    """As configured."""
    truncated: float
    """With unrolls that know nothing of those before them."""


def compare(core: nn.Module, inputs: int, unroll: int, seed: int = 0) -> list[Difference]:
    """Of every parameter of ``core``, whose inputs have the width ``inputs``, in unrolls of ``unroll`` rows."""
    generator = torch.Generator().manual_seed(seed)
    core = copy.deepcopy(core).double()
    rows = UNROLLS * unroll
    x = torch.randn(rows, BATCH, inputs, dtype=torch.float64, generator=generator)
    first = torch.rand(rows, BATCH, generator=generator) < STARTS
    weight = torch.randn(rows, BATCH, int(core.output_size), dtype=torch.float64, generator=generator)  # type: ignore
    found = [_gradient(core, x, first, weight, length, traced) for length, traced in
             ((rows, False), (unroll, True), (unroll, False))]  # fmt: skip
    differences = []
    for name, full in found[0].items():
        scale = float(full.abs().max()) or 1.0
        far = [float((other[name] - full).abs().max()) / scale for other in found[1:]]
        differences.append(Difference(name, *far))
    return differences


def _gradient(core: Any, x: Tensor, first: Tensor, weight: Tensor, length: int, traced: bool) -> TensorDict:
    """Of ``sum(weight * outputs)``, in unrolls of ``length`` rows; ``traced``: with sensitivities."""
    core.zero_grad()
    state = core.initial_state(BATCH) if traced else core.initial_carry(BATCH)
    for start in range(0, len(x), length):
        rows = slice(start, start + length)
        output, state = core(x[rows], state, first[rows])
        (output * weight[rows]).sum().backward()
        state = {name: value.detach() for name, value in state.items()}
    return {name: parameter.grad.clone() for name, parameter in core.named_parameters()}


def core_of(config: RunConfig, factory: Callable[..., Any] | None = None) -> tuple[nn.Module, int]:
    """The core of the configuration's agent, and the width of its inputs. UserError where it keeps no sensitivities.

    ``factory``: of a user's own environment.
    """
    from offbeat.agents.make import make_agent
    from offbeat.envs.registry import env_spec

    torch.manual_seed(config.seed)
    agent = make_agent(config.agent_name, config.agent, env_spec(config.env, factory))
    core = getattr(agent.network, "core", None)
    if not isinstance(core, TracedCore | Stacked) or not core.initial_trace(1):
        named = getattr(config.agent, "core", None)
        got = f"agent {config.agent_name}" + (f" with agent.core={named!r}" if named else "")
        raise UserError(
            f"{got} does not learn by RTRL; name a preset that does, or --agent r2ac --agent.core elstm-rtrl"
        )
    first: Any = core
    while isinstance(first, Stacked):
        first = first.layers[0]
    return core, first.input_size


def diagnose_rtrl(config: RunConfig, factory: Callable[..., Any] | None = None) -> bool:
    """Print how far each parameter's gradient is from full backpropagation; whether all that should be exact is."""
    core, inputs = core_of(config, factory)
    unroll = config.learner.unroll_length
    print(
        f"{type(core).__name__} with inputs of {inputs}: {UNROLLS} unrolls of {unroll} rows, {BATCH} episodes at a "
        "time, float64; largest difference from full backpropagation, as a share of the parameter's largest gradient"
    )
    differences = compare(core, inputs, unroll)
    print(f"{'parameter':<14}{'RTRL':>12}{'truncated':>14}")
    for one in differences:
        print(f"{one.name:<14}{one.rtrl:>12.1e}{one.truncated:>14.1e}")
    last = f"layers.{len(core.layers) - 1}." if isinstance(core, Stacked) else ""
    worst = max(one.rtrl for one in differences if one.name.startswith(last))
    exact = worst <= EXACT
    where = "in the last layer" if last else "of RTRL"
    print(f"largest difference {where}: {worst:.1e}: " + ("exact" if exact else f"more than {EXACT:.0e}: NOT exact"))
    if last:
        print("between layers RTRL leaves out what SnAp-1 does, so the earlier ones differ")
    for name, default in (("trace_decay", 1.0), ("trace_refresh", 0)):
        if (value := getattr(config.agent, name, default)) != default:
            print(f"this is the core alone: agent.{name}={value} leaves out more, on purpose")
    return exact

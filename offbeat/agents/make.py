"""From an agent's name to its class: modules of ``offbeat.agents``, and entry points of the group ``offbeat.agents``.

An agent module defines ``Config``, a frozen dataclass, and ``Agent(config, spec, device)``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch

import offbeat.agents
from offbeat.agents.base import Agent
from offbeat.errors import UserError, load_entry_point
from offbeat.networks.own_torso import TorsoFactory, name_of
from offbeat.types import EnvSpec

ENTRY_POINT_GROUP = "offbeat.agents"
_NOT_AGENTS = {
    "base", "contract", "joined_loss", "make", "policy_agent", "q_agent", "replay_terms", "sensitivities", "target",
}  # fmt: skip


def list_agents() -> list[str]:
    """Names of all agents that can be made, in alphabetical order."""
    own = {module.name for module in pkgutil.iter_modules(offbeat.agents.__path__)} - _NOT_AGENTS
    return sorted(own | {point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def agent_config_class(name: str) -> type:
    """The ``Config`` dataclass of an agent.

    Raises:
        ValueError: no agent has that name (the message gives the nearest one), or it lacks ``Config`` or ``Agent``.
    """
    config_class: type = _agent_module(name).Config
    return config_class


def agent_source(name: str) -> tuple[str, str]:
    """Which package an agent comes from, with its version unless it is offbeat, and the first line on what it is.

    Raises as ``agent_config_class``.
    """
    module = _agent_module(name)
    said = (inspect.getdoc(module) or "").partition("\n\n")[0]
    package = "offbeat"
    if not getattr(module, "__name__", "").startswith("offbeat.agents."):
        found = [point.dist for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name and point.dist]
        package = f"{found[0].name} {found[0].version}" if found else ""
    return package, " ".join(said.split())


def make_agent(
    name: str,
    config: Any,
    spec: EnvSpec,
    device: torch.device | str = "cpu",
    torso: TorsoFactory | None = None,
    factory: Callable[..., Agent] | None = None,
) -> Agent:
    """Build an agent for one environment spec. ``config``: an instance of its ``Config``; ``torso``: the user's own.

    ``factory``: of a user's own agent, which is made in place of the one of that name.

    Raises:
        ValueError: no agent has that name, ``config`` is of another class, or the agent takes no torso.
        UserError: the agent refuses the environment, or its network does not fit into memory.
    """
    if factory is not None:
        return factory(config, spec, device)
    module = _agent_module(name)
    if not isinstance(config, module.Config):
        raise ValueError(f"agent {name!r} takes a {module.Config.__module__}.Config, got {type(config).__qualname__}")
    if torso is not None and "torso" not in inspect.signature(module.Agent).parameters:
        raise ValueError(f"agent {name!r} has no torso that could be replaced by {name_of(torso)}")
    try:
        made: Agent = module.Agent(config, spec, device, **({} if torso is None else {"torso": torso}))
    except UserError:
        raise
    except ValueError as error:  # an environment that this agent cannot play
        raise UserError(f"agent {name!r} cannot train on {spec.id}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not _is_short_of_memory(error):
            raise
        raise UserError(
            f"the network of agent {name!r} does not fit into the memory of {device}: {str(error).splitlines()[0]}; "
            "use smaller ones of agent.core_size, agent.hidden_size, agent.feature_size and the like"
        ) from error
    return made


def _is_short_of_memory(error: Exception) -> bool:
    """Whether that is what torch means; on processors it has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _agent_module(name: str) -> Any:
    """The module (or object) with ``Config`` and ``Agent``. Only listed names are ever imported."""
    known = list_agents()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"unknown agent {name!r}; {hint}allowed: {', '.join(known)}")
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    own = {module.name for module in pkgutil.iter_modules(offbeat.agents.__path__)}
    module = (
        importlib.import_module(f"offbeat.agents.{name}") if name in own else load_entry_point("agent", points[name])
    )
    if not (hasattr(module, "Config") and hasattr(module, "Agent")):
        raise UserError(f"agent {name!r}: {module!r} defines no Config and Agent; see docs/adding_an_algorithm.md")
    return module
